"""How long a call takes."""

import time
from collections.abc import Callable


def seconds_of(call: Callable[[], object], now: Callable[[], float] = time.perf_counter) -> float:
    """By the clock ``now``, in seconds."""
    started = now()
    call()
    return now() - started
