"""Files that appear whole or not at all."""

from pathlib import Path

import pytest

from ubert_model.running.atomic import replacing, write_text


@pytest.mark.parametrize("name", [".", "/", "folder"])
def test_a_directory_is_refused_by_name_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="give the file to write") as refusal, replacing(Path(name)):
        pytest.fail("there is nothing to write to")
    assert refusal.value.filename == str(Path(name))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_failed_write_leaves_the_previous_file(tmp_path: Path) -> None:
    def fail() -> None:
        with replacing(tmp_path / "file") as partial:
            partial.write_text("half")
            raise InterruptedError

    write_text(tmp_path / "file", "before")
    with pytest.raises(InterruptedError):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "before")]
