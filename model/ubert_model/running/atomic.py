"""Atomic file writes: a file appears whole or not at all."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

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


def write_text(path: Path, text: str) -> None:
    """Replace the content of ``path`` atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def publish(finished: Path, path: Path) -> None:
    """Flush a finished file to disk and rename it to ``path``, which must be on the same file system."""
    _flush(finished)
    finished.replace(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
