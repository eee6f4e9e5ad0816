"""Errors of writing, such as a full disk, or an output in the place of an input."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ubert_model.errors import ConfigError


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


def require_outside(out: Path, inputs: Iterable[Path | str | None]) -> None:
    """Raise ``ConfigError`` if one of the ``inputs`` is ``out`` or lies in it: replacing that would lose it."""
    for path in inputs:
        if path is not None and Path(path).exists() and Path(path).resolve().is_relative_to(out.resolve()):
            raise ConfigError(f"{path}, which this command reads, would be replaced: give another --out than {out}")
