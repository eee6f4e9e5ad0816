"""A lock by which a test knows that a thread waits."""

import threading


class WatchedLock:
    """A lock that signals each attempt to acquire it."""

    def __init__(self) -> None:
        self.attempts = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.attempts.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
