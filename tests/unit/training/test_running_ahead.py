"""A pipeline step in its own thread: nothing lost, nothing out of order, nothing left running."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from ubert_training.states.running_ahead import running_ahead


def failing_after(count: int) -> Iterator[int]:
    yield from range(count)
    raise OSError("the source broke")


def test_items_come_in_order_from_another_thread() -> None:
    threads = []

    def source() -> Iterator[int]:
        for number in range(100):
            threads.append(threading.current_thread())
            yield number

    assert list(running_ahead(source(), 3)) == list(range(100))
    assert set(threads).isdisjoint({threading.current_thread()})
    assert len(set(threads)) == 1


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_an_exception_arrives_after_all_items_before_it(count: int) -> None:
    items = running_ahead(failing_after(count), 4)
    assert [next(items) for _ in range(count)] == list(range(count))
    with pytest.raises(OSError, match="the source broke"):
        next(items)


def test_an_exception_passes_through_every_step_of_a_chain() -> None:
    doubled = (2 * number for number in running_ahead(failing_after(5), 2))
    with pytest.raises(OSError, match="the source broke"):
        list(running_ahead(doubled, 2))
    assert no_thread_is_left()


def test_the_source_is_never_further_ahead_than_its_depth() -> None:
    made = 0

    def source() -> Iterator[int]:
        nonlocal made
        while True:
            made += 1
            yield made

    with closing(running_ahead(source(), 3)) as ahead:
        for number in ahead:
            assert made - number <= 3
            if number == 50:
                break


def test_closing_ends_every_step_and_closes_the_source() -> None:
    closed = []

    def source() -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.append(True)

    with closing(running_ahead(running_ahead(source(), 2), 2)) as ahead:
        assert next(ahead) == 0
    assert closed == [True]
    assert no_thread_is_left()


def no_thread_is_left() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
