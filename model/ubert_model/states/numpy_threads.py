"""How many threads numpy's matrix products use while states are encoded and decoded."""

from threadpoolctl import threadpool_limits


def numpy_in_one_thread() -> threadpool_limits:
    """Limit numpy's matrix products to one thread of this process: from now on or, as a context manager, until exit.

    The products of product codes are small. Shared over threads, they take many times as long, because the threads wait
    for each other and compete with those that run the review encoder or score.
    """
    return threadpool_limits(limits=1, user_api="blas")
