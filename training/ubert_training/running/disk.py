"""Writing where the disk may be full."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def writing(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Raise as ``OSError`` what a library raises in its own ``errors`` where the system refuses to write to ``path``.

    What was written before stays, so that the same command goes on from there.
    """
    try:
        yield
    except errors as error:
        reason = " ".join(str(error).split())
        raise OSError(f"{path} cannot be written ({reason}); make room, then give the same command again") from error
