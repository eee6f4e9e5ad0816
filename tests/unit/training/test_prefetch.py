"""A pipeline step in its own thread: nothing lost, nothing out of order, nothing left running."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from itertools import islice
from typing import Any

import pytest

from ubert_training.states.prefetch import prefetch


def failing_after(count: int) -> Iterator[int]:
    yield from range(count)
    raise OSError("the source broke")


def test_items_come_in_order_from_another_thread() -> None:
    threads = []

    def source() -> Iterator[int]:
        for number in range(100):
            threads.append(threading.current_thread())
            yield number

    assert list(prefetch(source(), 3)) == list(range(100))
    assert set(threads).isdisjoint({threading.current_thread()})
    assert len(set(threads)) == 1


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_an_exception_arrives_after_all_items_before_it(count: int) -> None:
    items = prefetch(failing_after(count), 4)
    assert [next(items) for _ in range(count)] == list(range(count))
    with pytest.raises(OSError, match="the source broke"):
        next(items)


def test_an_exception_passes_through_every_step_of_a_chain() -> None:
    doubled = (2 * number for number in prefetch(failing_after(5), 2))
    with pytest.raises(OSError, match="the source broke"):
        list(prefetch(doubled, 2))
    assert no_thread_is_left()


def test_the_source_is_as_far_ahead_as_its_depth_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    class Eager(ThreadPoolExecutor):
        """Has done what it is given once it has taken it."""

        def submit(self, work: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
            taken = super().submit(work, *arguments, **named)
            wait([taken])
            return taken

    monkeypatch.setattr("ubert_training.states.prefetch.ThreadPoolExecutor", Eager)
    made = 0

    def source() -> Iterator[int]:
        nonlocal made
        while True:
            made += 1
            yield made

    with closing(prefetch(source(), 3)) as ahead:
        assert all(made - number == 3 for number in islice(ahead, 50))


def test_closing_waits_for_the_item_that_is_being_made_and_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    ending = threading.Event()

    class Ending(ThreadPoolExecutor):
        """Tells when it has been asked to end."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            ending.set()
            super().shutdown(wait=wait)

    monkeypatch.setattr("ubert_training.states.prefetch.ThreadPoolExecutor", Ending)
    begun: list[int] = []

    def source() -> Iterator[int]:
        for number in range(100):
            begun.append(number)
            if number:
                ending.wait(60)
            yield number

    with closing(prefetch(source(), 8)) as ahead:
        assert next(ahead) == 0
    assert begun in ([0], [0, 1])


def test_closing_ends_every_step_and_closes_the_source() -> None:
    closed = []

    def source() -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.append(True)

    held = source()  # what nobody refers to any more would be closed by Python itself
    with closing(prefetch(prefetch(held, 2), 2)) as ahead:
        assert next(ahead) == 0
    assert closed == [True]
    assert no_thread_is_left()


def no_thread_is_left() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
