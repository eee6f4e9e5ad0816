"""How many threads numpy multiplies with, where states are packed and unpacked."""

from threadpoolctl import threadpool_limits


def numpy_in_one_thread() -> threadpool_limits:
    """Let numpy multiply in one thread of this process from now on; as a context, until it ends.

    The products of product codes are small: shared over threads, these wait for each other and for the threads of
    whatever encodes or scores meanwhile, and packing or unpacking takes many times as long.
    """
    return threadpool_limits(limits=1, user_api="blas")
