"""What signals do: SIGTERM and SIGINT end the process with exit status 0, and SIGHUP promotes the shadow bundle."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from ubert_model.errors import UbertError

_STDIN = 0

_log = logging.getLogger(__name__)


def hold_hangup() -> None:
    """Keep SIGHUP, which would end the process, until :func:`promote_on_hangup`; not from a terminal that closes."""
    if not on_terminal():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])


def promote_on_hangup(promote: Callable[[], object]) -> None:
    """Call ``promote`` at each SIGHUP from now on, and at once if one was held. An ``UbertError`` of it is logged."""

    def call() -> None:
        try:
            promote()
        except UbertError as error:
            _log.error("SIGHUP: the shadow bundle was not promoted: %s", error)

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        # In a thread: it asks the store, and could deadlock on a lock that the interrupted thread holds.
        threading.Thread(target=call, name="ubert-promote").start()

    signal.signal(signal.SIGHUP, handle)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])


def exit_cleanly() -> None:
    """Exit with status 0 at SIGTERM and SIGINT. While uvicorn serves it handles both, then raises them again.

    By default they would end the process as killed; or, where it is process 1 of a container, do nothing.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def on_terminal() -> bool:
    """Was the process started from a terminal? It sends SIGHUP as it closes."""
    return os.isatty(_STDIN)
