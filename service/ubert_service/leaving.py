"""Ends a process that cannot end by itself, because a call hangs: in a GPU's driver, say."""

import logging
import os
import threading

SECONDS_TO_CLOSE = 10
"""How long a process may take to end once it has nothing left to answer."""
HUNG = 70
"""The exit status of a process that left something running."""

_log = logging.getLogger("ubert_service")


def leave_after(seconds: float) -> threading.Timer:
    """End this process unless it ends, or the timer is cancelled, before: such a call can be neither waited for nor
    stopped, and Python waits for all its threads.
    """
    timer = threading.Timer(seconds, _leave)
    timer.daemon = True
    timer.start()
    return timer


def _leave() -> None:
    _log.error("leaving what still runs: it has not ended. Where it runs on a GPU, look at the driver")
    os._exit(HUNG)
