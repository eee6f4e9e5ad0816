"""A lock on a folder, so that only one process at a time works on it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def try_lock(folder: Path) -> Iterator[bool]:
    """Try to lock an existing folder: yields True if this process holds it, False if another one does.

    The operating system releases the lock when the process dies, however it dies.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
