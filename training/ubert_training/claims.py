"""What one process at a time may work on."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ubert_training.progress import progress_bar


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Hold an existing folder against other processes: is it ours, or does another hold it?

    The system takes the claim back when the process dies, however it dies.
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


@contextlib.contextmanager
def awaited(folder: Path, told: str) -> Iterator[None]:
    """Hold an existing folder as soon as no other process does; ``told`` says on the terminal what is waited for."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress_bar(told, None):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
