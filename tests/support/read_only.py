"""A folder that may be read, and not be written."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534


@contextlib.contextmanager
def inside_read_only(folder: Path) -> Iterator[Path]:
    """Yield the path of the folder, which this process cannot write into: as another user, if it is root's.

    The path is relative, since another user may not reach the folder from above.
    """
    working, mode, user = Path.cwd(), folder.stat().st_mode, os.geteuid()
    os.chdir(folder)
    folder.chmod(0o555)
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode | 0o555)  # whatever this process's umask keeps from others
    try:
        if user == 0:
            os.seteuid(NOBODY)
        yield Path()
    finally:
        os.seteuid(user)
        folder.chmod(mode)
        os.chdir(working)
