import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from ubert_model.running.folder_lock import try_lock, wait_for_lock


def test_one_holder_at_a_time_and_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with try_lock(tmp_path) as ours, try_lock(tmp_path) as theirs:
        assert (ours, theirs) == (True, False)
    with pytest.raises(RuntimeError), wait_for_lock(tmp_path, nullcontext()):
        raise RuntimeError
    with try_lock(tmp_path) as ours:
        assert ours


def test_the_waiting_context_spans_the_wait_and_nothing_else(tmp_path: Path) -> None:
    events: list[str] = []
    waits = threading.Event()

    @contextmanager
    def waiting() -> Iterator[None]:
        events.append("waits")
        waits.set()
        yield
        events.append("waited")

    def lock() -> None:
        with wait_for_lock(tmp_path, waiting()):
            events.append("holds")

    with ThreadPoolExecutor(1) as executor:
        with try_lock(tmp_path):
            waiter = executor.submit(lock)
            assert waits.wait(timeout=60)
            assert not waiter.done()
        waiter.result(timeout=60)
    assert events == ["waits", "waited", "holds"]
    lock()
    assert events[3:] == ["holds"]
