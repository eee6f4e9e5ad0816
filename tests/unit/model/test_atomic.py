"""Files that appear whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from support.full_disk import full_disk
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


def test_weights_are_readable_by_whoever_may_read_other_files(tmp_path: Path) -> None:
    with replacing(tmp_path / "weights") as partial:
        save_file({"weight": np.zeros(3)}, partial)
    write_text(tmp_path / "text", "")
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "text").stat().st_mode


def test_a_failed_write_leaves_the_previous_file(tmp_path: Path) -> None:
    def fail() -> None:
        with replacing(tmp_path / "file") as partial:
            partial.write_text("half")
            raise InterruptedError

    write_text(tmp_path / "file", "before")
    with pytest.raises(InterruptedError):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "before")]


def test_a_write_to_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with full_disk(10), pytest.raises(OSError, match="File too large") as refusal:
        write_text(tmp_path / "file", "more than ten bytes")
    assert refusal.value.filename == str(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_created_is_named_by_its_own_name() -> None:
    with pytest.raises(OSError, match=r"'/proc/report\.json'$"):
        write_text(Path("/proc/report.json"), "{}")
