"""Files and directories that appear whole or not at all."""

import fcntl
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from support.full_disk import full_disk
from ubert_model.errors import InputError
from ubert_model.running.atomic import replacing, replacing_directory, write_text


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


def write_directory(path: Path, content: str) -> None:
    with replacing_directory(path) as staging:
        (staging / "inner").mkdir()
        (staging / "inner" / "file").write_text(content)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_directory_is_replaced_whole_or_after_a_kill_at_any_rename_put_back_by_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_at(renames: int) -> int:
        """Replace the directory in a process that dies before a rename beyond so many; its exit status."""
        left = iter(range(renames))
        rename = os.replace

        def counted(source: Path, target: Path) -> None:
            if next(left, None) is None:
                os._exit(9)
            rename(source, target)

        if child := os.fork():
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        monkeypatch.setattr(os, "replace", counted)
        write_directory(tmp_path / "bundle", "new")
        os._exit(0)

    for renames in range(3):
        write_directory(tmp_path / "bundle", "old")
        assert killed_at(renames) == (0 if renames == 2 else 9)
        with pytest.raises(InterruptedError), replacing_directory(tmp_path / "bundle"):
            raise InterruptedError  # even a write that fails puts the old directory back, and removes what is left
        assert contents(tmp_path) == {"bundle/inner/file": "new" if renames == 2 else "old"}
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_symbolic_link_is_kept_and_the_directory_it_names_replaced(tmp_path: Path) -> None:
    write_directory(tmp_path / "v1", "old")
    (tmp_path / "current").symlink_to("v1")
    write_directory(tmp_path / "current", "new")
    assert (tmp_path / "current").is_symlink()
    assert contents(tmp_path / "v1") == {"inner/file": "new"}


def test_a_directory_is_on_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    rename = os.replace

    def checked(source: Path, target: Path) -> None:
        assert {path.stat().st_ino for path in (source, *source.rglob("*"))} <= set(flushed)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    monkeypatch.setattr(os, "replace", checked)
    write_directory(tmp_path / "bundle", "new")
    assert flushed[-1] == tmp_path.stat().st_ino


def test_two_processes_never_replace_the_same_directory_at_once(tmp_path: Path) -> None:
    with replacing_directory(tmp_path / "bundle") as staging:
        (staging / "file").write_text("the first")
        with pytest.raises(InputError, match=r"another process is writing .*bundle: wait for its end"):
            write_directory(tmp_path / "bundle", "the second")
    assert contents(tmp_path) == {"bundle/file": "the first"}


def test_an_old_directory_that_a_kill_left_is_put_back_where_an_empty_one_was_made_since(tmp_path: Path) -> None:
    write_directory(tmp_path / ".bundle.replacing" / "old", "old")
    (tmp_path / "bundle").mkdir()
    with pytest.raises(InterruptedError), replacing_directory(tmp_path / "bundle"):
        raise InterruptedError
    assert contents(tmp_path) == {"bundle/inner/file": "old"}


def test_an_old_directory_that_a_kill_left_beside_another_is_kept_until_a_write_succeeds(tmp_path: Path) -> None:
    write_directory(tmp_path / ".bundle.replacing" / "old", "old")
    write_directory(tmp_path / "other", "other")
    (tmp_path / "other").rename(tmp_path / "bundle")
    with pytest.raises(InterruptedError), replacing_directory(tmp_path / "bundle"):
        raise InterruptedError
    assert contents(tmp_path) == {"bundle/inner/file": "other", ".bundle.replacing/old/inner/file": "old"}
    write_directory(tmp_path / "bundle", "new")
    assert contents(tmp_path) == {"bundle/inner/file": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_process_that_waited_at_the_end_of_another_does_not_work_in_what_that_one_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, lock = replacing_directory(tmp_path / "bundle"), fcntl.flock
    (first.__enter__() / "file").write_text("the first")

    def lock_late(descriptor: int, operation: int) -> None:
        first.__exit__(None, None, None)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with pytest.raises(InputError, match="another process is writing"):
        write_directory(tmp_path / "bundle", "the second")
    assert contents(tmp_path) == {"bundle/file": "the first"}


def test_the_working_directory_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(InputError, match="cannot be replaced: give a directory inside it"):
        write_directory(Path(), "new")
    assert [*tmp_path.rglob("*")] == [here]
