"""Prefetching: items in order, exceptions in their place, the thread ahead by a fixed depth and ended on closing."""

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


def test_items_come_in_order_from_one_other_thread() -> None:
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


def test_the_source_is_exactly_depth_items_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    class BlockingExecutor(ThreadPoolExecutor):
        """Returns from ``submit`` when the work is done."""

        def submit(self, work: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
            submitted = super().submit(work, *arguments, **named)
            wait([submitted])
            return submitted

    monkeypatch.setattr("ubert_training.states.prefetch.ThreadPoolExecutor", BlockingExecutor)
    produced = 0

    def source() -> Iterator[int]:
        nonlocal produced
        while True:
            produced += 1
            yield produced

    with closing(prefetch(source(), 3)) as items:
        assert all(produced - number == 3 for number in islice(items, 50))


def test_closing_waits_for_the_current_item_and_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    shutting_down = threading.Event()

    class SignallingExecutor(ThreadPoolExecutor):
        """Sets ``shutting_down`` once its pending work is cancelled."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            shutting_down.set()
            super().shutdown(wait=wait)

    monkeypatch.setattr("ubert_training.states.prefetch.ThreadPoolExecutor", SignallingExecutor)
    started: list[int] = []

    def source() -> Iterator[int]:
        for number in range(100):
            started.append(number)
            if number:
                shutting_down.wait(60)
            yield number

    with closing(prefetch(source(), 8)) as items:
        assert next(items) == 0
    assert started in ([0], [0, 1])


def test_closing_a_chain_ends_every_thread_and_closes_the_source() -> None:
    closed = []

    def source() -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.append(True)

    referenced = source()  # without this reference, garbage collection would close it
    with closing(prefetch(prefetch(referenced, 2), 2)) as items:
        assert next(items) == 0
    assert closed == [True]
    assert no_thread_is_left()


def no_thread_is_left() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
