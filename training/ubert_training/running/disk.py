"""Errors of writing, such as a full disk."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def translated_write_errors(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Turn the ``errors`` that a library raises when it cannot write to ``path`` into ``OSError`` with a remedy.

    What was written before stays, so that the same command continues from there.
    """
    try:
        yield
    except errors as error:
        reason = " ".join(str(error).split())
        raise OSError(f"{path} cannot be written ({reason}); make room, then run the same command again") from error
