"""Processes of a test, which never outlive it."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def running(
    command: Sequence[str | Path], *, stdout: int = subprocess.PIPE, **options: Any
) -> Iterator["subprocess.Popen[str]"]:
    """While entered, runs the command; killed on leaving if it still runs, however the test ends.

    ``options``: further ones of ``Popen``.
    """
    with subprocess.Popen(command, stdout=stdout, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()
