"""The cache's bound in bytes, the order of eviction, and what must not be cached."""

import gc
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ubert_model.review import Side
from ubert_model.states import entity_mark, state_mark
from ubert_service.resident import bounded_cache
from ubert_service.resident.bounded_cache import BoundedCache, CacheEntry, Key

NEVER = float("inf")
MAX_BYTES = 100_000
TIMEOUT_S = 60.0


def entry(name: str, size: int = 1_000, *, value: object = None, expires: float = NEVER) -> CacheEntry[object]:
    return CacheEntry(("state", name), name if value is None else value, size, state_mark(name), expires)


def keys(*names: str) -> list[Key]:
    return [("state", name) for name in names]


def held(cache: BoundedCache[object], *names: str) -> list[bool]:
    return [value is not None for value in cache.get(keys(*names), now=0.0)]


def test_the_least_recently_used_entry_is_evicted_first() -> None:
    two_entries = 2 * bounded_cache._size(entry("a"))
    cache: BoundedCache[object] = BoundedCache(two_entries)
    assert cache.add([entry("a"), entry("b")], generation=cache.generation) == 0
    assert cache.get(keys("a"), now=0.0) == ["a"]
    assert cache.add([entry("c")], generation=cache.generation) == 1
    assert held(cache, "a", "b", "c") == [True, False, True]


def test_entries_added_coldest_evict_only_each_other() -> None:
    two_entries = 2 * bounded_cache._size(entry("a"))
    cache: BoundedCache[object] = BoundedCache(two_entries)
    cache.add([entry("u")], generation=cache.generation)
    assert cache.add([entry("a"), entry("b"), entry("c")], generation=cache.generation, coldest=True) == 2
    assert held(cache, "u", "a", "b", "c") == [True, True, False, False]


@pytest.mark.parametrize("coldest", [False, True])
def test_an_entry_larger_than_the_bound_only_removes_the_one_it_replaces(coldest: bool) -> None:
    cache: BoundedCache[object] = BoundedCache(MAX_BYTES)
    cache.add([entry("a"), entry("b")], generation=cache.generation)
    assert cache.add([entry("a", MAX_BYTES)], generation=cache.generation, coldest=coldest) == 0
    assert held(cache, "a", "b") == [False, True]
    assert (cache.held_bytes, len(cache)) == (bounded_cache._size(entry("b")), 1)


def test_reads_and_drops_do_not_wait_while_the_values_to_add_are_computed() -> None:
    cache: BoundedCache[object] = BoundedCache(MAX_BYTES)
    cache.add([entry("held")], generation=cache.generation)

    def computed() -> Iterator[CacheEntry[object]]:
        yield entry("a")
        yield entry("b")
        assert another_thread.submit(held, cache, "held").result(TIMEOUT_S) == [True]
        assert another_thread.submit(cache.drop, {state_mark("a"), state_mark("c")}).result(TIMEOUT_S) == (1, 0)
        yield entry("c")
        yield entry("d")

    with ThreadPoolExecutor(1) as another_thread:
        cache.add(computed(), generation=cache.generation)
    assert held(cache, "a", "b", "c", "d") == [False, True, False, True]


def test_no_value_computed_across_a_drop_of_everything_is_cached() -> None:
    cache: BoundedCache[object] = BoundedCache(MAX_BYTES)

    def computed() -> Iterator[CacheEntry[object]]:
        yield entry("a")
        assert another_thread.submit(cache.drop, None).result(TIMEOUT_S) == (1, 0)
        yield entry("b")

    with ThreadPoolExecutor(1) as another_thread:
        cache.add(computed(), generation=cache.generation)
    assert (held(cache, "a", "b"), cache.held_bytes) == ([False, False], 0)


def test_an_expired_entry_counts_as_absent_until_it_is_replaced() -> None:
    cache: BoundedCache[object] = BoundedCache(MAX_BYTES)
    cache.add([entry("a", expires=10.0)], generation=cache.generation)
    assert cache.get(keys("a"), now=10.0) == ["a"]
    assert cache.get(keys("a"), now=10.1) == [None]
    before = cache.held_bytes
    cache.add([entry("a", expires=20.0)], generation=cache.generation)
    assert cache.get(keys("a"), now=10.1) == ["a"]
    assert cache.held_bytes == before


def test_a_value_read_before_its_mark_was_dropped_is_not_cached() -> None:
    cache: BoundedCache[object] = BoundedCache(MAX_BYTES)
    generation = cache.generation
    assert cache.drop({state_mark("a"), entity_mark(Side.USER, "a")}) == (0, 0)
    cache.add([entry("a"), entry("b")], generation=generation)
    assert held(cache, "a", "b") == [False, True]
    cache.add([entry("a")], generation=cache.generation)
    assert held(cache, "a") == [True]
    assert cache.drop({state_mark("a")}) == (1, 0)
    assert held(cache, "a", "b") == [False, True]


def test_a_value_read_before_a_drop_of_everything_is_not_cached() -> None:
    cache: BoundedCache[object] = BoundedCache(MAX_BYTES)
    cache.add([entry("a")], generation=cache.generation)
    generation = cache.generation
    assert cache.drop(None) == (1, 0)
    cache.add([entry("a")], generation=generation)
    assert (held(cache, "a"), cache.held_bytes) == ([False], 0)


def test_a_value_read_before_more_drops_than_are_remembered_is_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_cache, "_REMEMBERED_MARKS", 3)
    cache: BoundedCache[object] = BoundedCache(MAX_BYTES)
    generation = cache.generation
    for number in range(5):
        cache.drop({state_mark(f"r{number}")})
    cache.add([entry("r0")], generation=generation)
    assert held(cache, "r0") == [False]
    cache.add([entry("r0")], generation=cache.generation)
    assert held(cache, "r0") == [True]


def test_a_mark_dropped_again_is_remembered_by_its_last_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_cache, "_REMEMBERED_MARKS", 3)
    cache: BoundedCache[object] = BoundedCache(MAX_BYTES)
    for name in ("a", "b", "c"):
        cache.drop({state_mark(name)})
    generation = cache.generation
    for name in ("a", "d", "e"):
        cache.drop({state_mark(name)})
    cache.add([entry("a")], generation=generation)
    assert held(cache, "a") == [False]


def test_two_keys_of_one_mark_are_both_gone_after_its_drop() -> None:
    cache: BoundedCache[object] = BoundedCache(MAX_BYTES)
    same = state_mark("a")
    cache.add([CacheEntry(("state", name), name, 10, same, NEVER) for name in ("a", "b")], generation=cache.generation)
    cache.drop({same})
    assert held(cache, "a", "b") == [False, False]
    assert len(cache) == 0


NAMES = [f"review-{number}" for number in range(40)]
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(NAMES), st.integers(0, 40_000), st.booleans()),
        st.tuples(st.just("drop"), st.sets(st.sampled_from(NAMES), max_size=5)),
        st.tuples(st.just("get"), st.lists(st.sampled_from(NAMES), max_size=10)),
    ),
    max_size=60,
)


@given(operations=OPERATIONS)
def test_the_bound_is_never_exceeded_and_a_held_value_is_the_last_one_added(
    operations: list[tuple[object, ...]],
) -> None:
    cache: BoundedCache[object] = BoundedCache(MAX_BYTES)
    newest: dict[str, int] = {}
    for operation in operations:
        match operation:
            case ("add", str(name), int(size), bool(coldest)):
                cache.add([entry(name, size, value=size)], generation=cache.generation, coldest=coldest)
                newest[name] = size
            case ("drop", set(names)):
                cache.drop({state_mark(name) for name in names})
                for name in names:
                    newest.pop(name, None)
            case ("get", list(names)):
                for name, value in zip(names, cache.get(keys(*names), now=0.0), strict=True):
                    assert value is None or value == newest[name]
        assert cache.held_bytes <= MAX_BYTES
    everything = cache.get(keys(*NAMES), now=0.0)
    found = [(name, size) for name, size in zip(NAMES, everything, strict=True) if isinstance(size, int)]
    marks = bounded_cache._MARK_BYTES * len(cache._dropped)
    assert cache.held_bytes == marks + sum(bounded_cache._size(entry(*one)) for one in found)


def test_marks_of_dropped_entries_count_as_held_and_take_a_small_part_of_the_bound() -> None:
    cache: BoundedCache[object] = BoundedCache(MAX_BYTES)
    full = MAX_BYTES // bounded_cache._size(entry("0"))
    cache.add([entry(str(number)) for number in range(full)], generation=cache.generation)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        evicted = 0
        for number in range(10_000):
            evicted += cache.drop({state_mark(f"of another process {number}")})[1]
        allocated = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert allocated < MAX_BYTES / 4
    assert cache.held_bytes <= MAX_BYTES
    assert 0.85 * full < len(cache) < full
    assert evicted == full - len(cache)


@pytest.mark.parametrize("rows", [1, 10, 100])
def test_held_bytes_match_what_python_allocates(rows: int) -> None:
    cache: BoundedCache[NDArray[np.float32]] = BoundedCache(1 << 30)
    gc.collect()  # else memory that Python keeps of freed objects would serve some of those below, uncounted
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(4_000):
            name = f"review-{number:013d}"
            states = np.zeros((rows, 64), dtype=np.float32)
            one = CacheEntry(("state", name), states, states.nbytes + 160, state_mark(name), float(number))
            cache.add([one], generation=cache.generation)
            del one, states
        allocated = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert allocated == pytest.approx(cache.held_bytes, rel=0.05)
