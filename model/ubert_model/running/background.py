"""What runs beside other work, in a thread of its own, as long as that does."""

from abc import ABC, abstractmethod
from threading import Event, Thread
from types import TracebackType
from typing import Self


class Background(ABC):
    """While entered, its thread runs; leaving sets ``_ended``, which :meth:`_run` has to heed, and waits for it."""

    def __init__(self, name: str) -> None:
        self._ended = Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    @abstractmethod
    def _run(self) -> None:
        """The work, until ``_ended`` is set."""
