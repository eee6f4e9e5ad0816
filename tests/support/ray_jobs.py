"""Jobs for the tests of the Ray engine, in a module that its workers can import."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ubert_model.errors import StoreUnavailableError


@dataclass(frozen=True, kw_only=True)
class Squares:
    """Squares numbers, and records in a folder which processes opened it and which portions were tried.

    The portion ``raises`` fails the first ``times`` times that it is tried; ``dies`` kills its worker the first time.
    """

    folder: Path
    raises: int | None = None
    times: int = 1
    dies: int | None = None

    def open(self) -> Callable[[int], tuple[int, int]]:
        """A function from a number to its square and the worker's process."""
        opened = len(list(self.folder.glob(f"opened-{os.getpid()}-*")))
        (self.folder / f"opened-{os.getpid()}-{opened}").touch()

        def square(number: int) -> tuple[int, int]:
            tried = len(list(self.folder.glob(f"tried-{number}-*")))
            (self.folder / f"tried-{number}-{tried}").touch()
            if number == self.raises and tried < self.times:
                raise StoreUnavailableError(f"no store for {number}; start it")
            if number == self.dies and not tried:
                os.kill(os.getpid(), signal.SIGKILL)
            return number * number, os.getpid()

        return square
