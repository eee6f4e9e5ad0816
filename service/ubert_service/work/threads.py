"""Pools of threads that all run before the first request."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier


def started_pool(workers: int, name: str) -> ThreadPoolExecutor:
    """A pool whose threads have all started. Raises ``RuntimeError`` where the system lets it start fewer.

    A pool starts a thread when it first needs one. Should the system then refuse it, requests would wait for it in
    vain, as would the end of the process: so it must be refused before anybody is served.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
    together = Barrier(workers)
    try:
        for _ in range(workers):
            pool.submit(together.wait)
    except RuntimeError:
        together.abort()
        raise
    return pool
