"""Processes of a test, which never outlive it."""

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal


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


def has_in_mask(process: "subprocess.Popen[str]", mask: Literal["SigBlk", "SigCgt"], number: signal.Signals) -> bool:
    """Does the main thread of the process block this signal, or catch it? As Linux reports it."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    (bits,) = (line.split()[1] for line in status.splitlines() if line.startswith(mask))
    return bool(int(bits, 16) >> (number - 1) & 1)
