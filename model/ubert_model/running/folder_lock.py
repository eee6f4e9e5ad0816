"""A lock on a folder, so that only one process at a time works on it.

The operating system releases the lock when the process dies, however it dies.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path


@contextmanager
def try_lock(folder: Path) -> Iterator[bool]:
    """Try to lock an existing folder: yields True if this process holds it, False if another one does, or has removed
    the folder meanwhile.
    """
    with _opened(folder) as descriptor:
        yield _locked_at_once(descriptor) and _is_at(folder, descriptor)


@contextmanager
def wait_for_lock(folder: Path, waiting: AbstractContextManager[object]) -> Iterator[None]:
    """Lock an existing folder. While another process holds it, wait inside the context ``waiting``."""
    with _opened(folder) as descriptor:
        if not _locked_at_once(descriptor):
            with waiting:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_at(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(folder), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _locked_at_once(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
