"""Waiting for something that another thread or process does."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], *, or_fail: str = "it did not happen", within_s: float = 60.0) -> None:
    """Poll until ``condition`` is true. Fails the test after ``within_s``, which only a broken test should reach."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, or_fail
        time.sleep(0.01)
