"""A lock on a folder that other processes wait for."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ubert_training.running.progress import progress_bar


@contextlib.contextmanager
def wait_for_lock(folder: Path, waiting: str) -> Iterator[None]:
    """Lock an existing folder. While another process holds it, wait and show ``waiting`` on the terminal."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress_bar(waiting, None):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
