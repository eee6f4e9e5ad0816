"""What one process at a time may work on, and the others wait for."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ubert_training.running.progress import progress_bar


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
