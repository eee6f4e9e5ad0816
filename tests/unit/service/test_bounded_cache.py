"""The bound in bytes, who leaves first, and what must not be kept."""

import gc
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ubert_model.states import entity_mark, state_mark
from ubert_model.states.keys import Side
from ubert_service.resident import bounded_cache
from ubert_service.resident.bounded_cache import BoundedCache, CacheEntry, Key

NEVER = float("inf")
ROOM = 100_000
PATIENCE_S = 10.0


def fresh(name: str, size: int = 1_000, *, value: object = None, expires: float = NEVER) -> CacheEntry[object]:
    return CacheEntry(("state", name), name if value is None else value, size, state_mark(name), expires)


def keys(*names: str) -> list[Key]:
    return [("state", name) for name in names]


def held(cache: BoundedCache[object], *names: str) -> list[bool]:
    return [value is not None for value in cache.get(keys(*names), now=0.0)]


def test_the_least_recently_used_leaves_first() -> None:
    room_for_two = 2 * bounded_cache._size(fresh("a"))
    cache: BoundedCache[object] = BoundedCache(room_for_two)
    assert cache.add([fresh("a"), fresh("b")], generation=cache.generation) == 0
    assert cache.get(keys("a"), now=0.0) == ["a"]
    assert cache.add([fresh("c")], generation=cache.generation) == 1
    assert held(cache, "a", "b", "c") == [True, False, True]


def test_what_is_added_coldest_makes_nothing_leave_but_its_like() -> None:
    room_for_two = 2 * bounded_cache._size(fresh("a"))
    cache: BoundedCache[object] = BoundedCache(room_for_two)
    cache.add([fresh("u")], generation=cache.generation)
    assert cache.add([fresh("a"), fresh("b"), fresh("c")], generation=cache.generation, coldest=True) == 2
    assert held(cache, "u", "a", "b", "c") == [True, True, False, False]


def test_what_is_larger_than_the_bound_is_not_kept() -> None:
    cache: BoundedCache[object] = BoundedCache(ROOM)
    cache.add([fresh("a", ROOM)], generation=cache.generation)
    assert (cache.held_bytes, len(cache)) == (0, 0)


@pytest.mark.parametrize("coldest", [False, True])
def test_what_is_larger_than_the_bound_displaces_nothing_but_what_it_replaces(coldest: bool) -> None:
    cache: BoundedCache[object] = BoundedCache(ROOM)
    cache.add([fresh("a"), fresh("b")], generation=cache.generation)
    assert cache.add([fresh("a", ROOM)], generation=cache.generation, coldest=coldest) == 0
    assert held(cache, "a", "b") == [False, True]
    assert cache.held_bytes == bounded_cache._size(fresh("b"))


def test_who_reads_or_tells_of_a_change_does_not_wait_while_values_are_made() -> None:
    cache: BoundedCache[object] = BoundedCache(ROOM)
    cache.add([fresh("held")], generation=cache.generation)

    def made() -> Iterator[CacheEntry[object]]:
        yield fresh("a")
        yield fresh("b")
        assert another.submit(held, cache, "held").result(PATIENCE_S) == [True]
        assert another.submit(cache.drop, {state_mark("a"), state_mark("c")}).result(PATIENCE_S) == 1
        yield fresh("c")
        yield fresh("d")

    with ThreadPoolExecutor(1) as another:
        cache.add(made(), generation=cache.generation)
    assert held(cache, "a", "b", "c", "d") == [False, True, False, True]


def test_when_everything_may_have_changed_while_values_are_made_none_of_them_is_kept() -> None:
    cache: BoundedCache[object] = BoundedCache(ROOM)

    def made() -> Iterator[CacheEntry[object]]:
        yield fresh("a")
        assert another.submit(cache.drop, None).result(PATIENCE_S) == 1
        yield fresh("b")

    with ThreadPoolExecutor(1) as another:
        cache.add(made(), generation=cache.generation)
    assert (held(cache, "a", "b"), cache.held_bytes) == ([False, False], 0)


def test_what_has_expired_is_as_good_as_absent_until_it_is_replaced() -> None:
    cache: BoundedCache[object] = BoundedCache(ROOM)
    cache.add([fresh("a", expires=10.0)], generation=cache.generation)
    assert cache.get(keys("a"), now=10.0) == ["a"]
    assert cache.get(keys("a"), now=10.1) == [None]
    before = cache.held_bytes
    cache.add([fresh("a", expires=20.0)], generation=cache.generation)
    assert cache.get(keys("a"), now=10.1) == ["a"]
    assert cache.held_bytes == before


def test_what_was_read_before_it_changed_is_not_kept() -> None:
    cache: BoundedCache[object] = BoundedCache(ROOM)
    generation = cache.generation
    assert cache.drop({state_mark("a"), entity_mark(Side.USER, "a")}) == 0
    cache.add([fresh("a"), fresh("b")], generation=generation)
    assert held(cache, "a", "b") == [False, True]
    cache.add([fresh("a")], generation=cache.generation)
    assert held(cache, "a") == [True]
    assert cache.drop({state_mark("a")}) == 1
    assert held(cache, "a", "b") == [False, True]


def test_what_was_read_before_everything_may_have_changed_is_not_kept() -> None:
    cache: BoundedCache[object] = BoundedCache(ROOM)
    cache.add([fresh("a")], generation=cache.generation)
    generation = cache.generation
    assert cache.drop(None) == 1
    cache.add([fresh("a")], generation=generation)
    assert (held(cache, "a"), cache.held_bytes) == ([False], 0)


def test_what_was_read_before_more_changes_than_are_remembered_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_cache, "_REMEMBERED_MARKS", 3)
    cache: BoundedCache[object] = BoundedCache(ROOM)
    generation = cache.generation
    for number in range(5):
        cache.drop({state_mark(f"r{number}")})
    cache.add([fresh("r0")], generation=generation)
    assert held(cache, "r0") == [False]
    cache.add([fresh("r0")], generation=cache.generation)
    assert held(cache, "r0") == [True]


def test_what_changes_again_and_again_is_remembered_by_its_last_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_cache, "_REMEMBERED_MARKS", 3)
    cache: BoundedCache[object] = BoundedCache(ROOM)
    for name in ("a", "b", "c"):
        cache.drop({state_mark(name)})
    generation = cache.generation
    for name in ("a", "d", "e"):
        cache.drop({state_mark(name)})
    cache.add([fresh("a")], generation=generation)
    assert held(cache, "a") == [False]


def test_two_things_under_one_mark_never_outlive_its_change() -> None:
    cache: BoundedCache[object] = BoundedCache(ROOM)
    same = state_mark("a")
    cache.add([CacheEntry(("state", name), name, 10, same, NEVER) for name in ("a", "b")], generation=cache.generation)
    cache.drop({same})
    assert held(cache, "a", "b") == [False, False]
    assert cache.held_bytes == 0


NAMES = [f"review-{number}" for number in range(40)]
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(NAMES), st.integers(0, 40_000), st.booleans()),
        st.tuples(st.just("drop"), st.sets(st.sampled_from(NAMES), max_size=5)),
        st.tuples(st.just("get"), st.lists(st.sampled_from(NAMES), max_size=10)),
    ),
    max_size=60,
)


@given(acts=ACTS)
def test_the_bound_is_never_passed_and_what_is_held_is_what_was_added(acts: list[tuple[object, ...]]) -> None:
    cache: BoundedCache[object] = BoundedCache(ROOM)
    newest: dict[str, int] = {}
    for act in acts:
        match act:
            case ("add", str(name), int(size), bool(coldest)):
                cache.add([fresh(name, size, value=size)], generation=cache.generation, coldest=coldest)
                newest[name] = size
            case ("drop", set(names)):
                cache.drop({state_mark(name) for name in names})
                for name in names:
                    newest.pop(name, None)
            case ("get", list(names)):
                for name, value in zip(names, cache.get(keys(*names), now=0.0), strict=True):
                    assert value is None or value == newest[name]
        assert cache.held_bytes <= ROOM
    everything = cache.get(keys(*NAMES), now=0.0)
    found = [(name, size) for name, size in zip(NAMES, everything, strict=True) if isinstance(size, int)]
    assert cache.held_bytes == sum(bounded_cache._size(fresh(*one)) for one in found)


@pytest.mark.parametrize("rows", [1, 10, 100])
def test_accounted_bytes_are_those_that_python_allocates(rows: int) -> None:
    cache: BoundedCache[NDArray[np.float32]] = BoundedCache(1 << 30)
    gc.collect()  # else what Python keeps of freed objects serves some of those below, uncounted
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(4_000):
            name = f"review-{number:013d}"
            states = np.zeros((rows, 64), dtype=np.float32)
            one = CacheEntry(("state", name), states, states.nbytes + 160, state_mark(name), float(number))
            cache.add([one], generation=cache.generation)
            del one, states
        truth = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert truth == pytest.approx(cache.held_bytes, rel=0.05)
