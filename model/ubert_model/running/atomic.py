"""Atomic writes: a file or a directory appears whole or not at all."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ubert_model.errors import InputError
from ubert_model.running.folder_lock import try_lock

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed to disk and renamed to ``path``.

    The temporary name holds the process id, so that two processes that write the same file do not share it. On an
    exception the temporary file is removed, and ``path`` stays as it was.

    Raises ``IsADirectoryError`` if ``path`` is a directory. Errors name ``path`` for the temporary file, and those of a
    full disk in any case.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a directory, give the file to write", str(path))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)  # safetensors replaces the file by a private one
        publish(partial, path)
    except OSError as error:
        # An open file's error names none, and the user has to know which disk is full.
        if error.filename in (str(partial), partial) or (error.errno in _NO_ROOM and not error.filename):
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory beside ``path``; on success it is flushed to disk and takes the place of ``path``.

    On an exception it is removed, and ``path`` stays as it was. A symbolic link is kept: what it names is replaced.

    For want of an atomic exchange, the old directory is renamed before the new one: between these two renames nothing
    is at ``path``. Whoever is killed just then leaves both in ``.NAME.replacing``, from where the next call puts the
    old one back before it yields, unless a file or a directory that is not empty is at ``path`` by then.

    Raises ``InputError`` if another process is replacing ``path``, and for a ``path`` that cannot be moved: ``.``, or
    the root of a mounted volume.
    """
    path = path.resolve() if path.is_symlink() else path
    work = path.parent / f".{path.name}.replacing"
    work.mkdir(parents=True, exist_ok=True)
    with try_lock(work) as ours:
        if not ours:
            raise InputError(f"another process is writing {path}: wait for its end, or give another directory")
        new, old = work / "new", work / "old"
        _put_back(old, path)
        shutil.rmtree(new, ignore_errors=True)  # left by a kill
        try:
            new.mkdir()
            yield new
            new.chmod(0o755)
            for written in (*new.rglob("*"), new):
                _flush(written)
            _exchange(path, new, old)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            _put_back(old, path)
            shutil.rmtree(new, ignore_errors=True)
            with contextlib.suppress(OSError):  # it may still hold an old directory, for want of a new one
                work.rmdir()


def write_text(path: Path, text: str) -> None:
    """Replace the content of ``path`` atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def publish(finished: Path, path: Path) -> None:
    """Flush a finished file to disk and rename it to ``path``, which must be on the same file system."""
    _flush(finished)
    finished.replace(path)
    _flush(path.parent)


def _exchange(path: Path, new: Path, old: Path) -> None:
    """Rename ``path``, if it exists, to ``old``, and ``new`` to ``path``."""
    try:
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)  # left by a kill, and replaced since
            os.replace(path, old)
        os.replace(new, path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise InputError(f"{path} cannot be replaced: give a directory inside it") from error
    _flush(path.parent)


def _put_back(old: Path, path: Path) -> None:
    """Rename ``old``, if it exists, to ``path``, unless a file or a directory that is not empty is there."""
    taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if old.exists() and not taken:
        os.replace(old, path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
