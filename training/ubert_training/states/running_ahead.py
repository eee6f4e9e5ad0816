"""A step of a pipeline in a thread of its own."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def running_ahead(source: Iterable[T], depth: int) -> Generator[T]:
    """The items of ``source`` in order, made by a thread that is at most ``depth`` items ahead of whoever reads.

    What ``source`` raises is raised here, at the item it concerns. Closing this generator, or an exception where it
    is read from, ends the thread after the item it is at, and closes ``source`` if that is a generator.
    """
    iterator = iter(source)
    thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        pending = deque(thread.submit(_next, iterator) for _ in range(depth))
        while found := pending.popleft().result():
            pending.append(thread.submit(_next, iterator))
            yield found[0]
    finally:
        thread.shutdown(cancel_futures=True)
        if isinstance(iterator, Generator):
            iterator.close()


def _next(iterator: Iterator[T]) -> tuple[T] | None:
    """The next item, or None at the end: a ``StopIteration`` cannot leave a thread."""
    for item in iterator:
        return (item,)
    return None
