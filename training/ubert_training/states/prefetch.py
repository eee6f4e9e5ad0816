"""Prefetching: a step of a pipeline in a thread of its own."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(source: Iterable[T], depth: int) -> Generator[T]:
    """Yield the items of ``source`` in order, produced by a thread at most ``depth`` items ahead of the consumer.

    An exception of ``source`` is raised here, in place of the item that caused it. Closing this generator, or an
    exception in its consumer, stops the thread after its current item, and closes ``source`` if that is a generator.
    """
    iterator = iter(source)
    thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        pending = deque(thread.submit(_next, iterator) for _ in range(depth))
        while item := pending.popleft().result():
            pending.append(thread.submit(_next, iterator))
            yield item[0]
    finally:
        thread.shutdown(cancel_futures=True)
        if isinstance(iterator, Generator):
            iterator.close()


def _next(iterator: Iterator[T]) -> tuple[T] | None:
    """The next item in a tuple, or None at the end: ``StopIteration`` cannot be raised out of a thread."""
    for item in iterator:
        return (item,)
    return None
