"""What a process keeps in memory is what the store holds: under any writes of others, and when the store breaks."""

import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from support.tiny_bundle import TinyBundle, states_of_tokens
from ubert_model.bundle import SCORER_GRAPH
from ubert_model.states import ReviewEntry, StateStore, open_store
from ubert_service.engine import ScoringEngine
from ubert_service.errors import LostRevisionError
from ubert_service.histories import EVERY_REVIEW, Pair, ReviewFilter
from ubert_service.residents import Residents
from ubert_service.runtime import OnnxRuntime

LAG_S = 0.2
USERS, ITEMS = ["u0", "u1", "stranger"], ["i0", "i1", "novelty"]
PAIRS = [Pair(user, item) for user in USERS for item in ITEMS]


@pytest.fixture(scope="module")
def runtime(tiny: TinyBundle) -> OnnxRuntime:
    return OnnxRuntime(tiny.bundle.file(SCORER_GRAPH), device="cpu", threads=1)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, kw_only=True)
class Replica:
    """An engine over residents of its own."""

    tiny: TinyBundle
    runtime: OnnxRuntime
    store: StateStore
    max_bytes: int
    clock: Clock = field(default_factory=Clock)
    residents: Residents = field(init=False)
    engine: ScoringEngine = field(init=False)

    def __post_init__(self) -> None:
        manifest = self.tiny.bundle.manifest
        residents = Residents(
            store=self.store,
            codec=self.tiny.bundle.codec("fp32"),
            config=manifest.config,
            max_bytes=self.max_bytes,
            max_lag_s=LAG_S,
            clock=self.clock,
        )
        engine = ScoringEngine(
            manifest=manifest, identities=self.tiny.bundle.identities, residents=residents, runtime=self.runtime
        )
        object.__setattr__(self, "residents", residents)
        object.__setattr__(self, "engine", engine)

    @property
    def version(self) -> str:
        return self.tiny.bundle.codec("fp32").namespace.version

    def put(self, name: str, user: str, item: str, tokens: int, rating: int) -> Any:
        """As :class:`ReviewBook` does it: write, then forget."""
        entry = review_of(name, user, item, tokens, rating)
        payload = self.tiny.bundle.codec("fp32").encode(states_of_tokens(self.tiny.model, [rating] * tokens))
        revision = self.store.put(self.version, [(entry, payload)])
        self.residents.wrote([entry])
        return revision

    def delete(self, name: str, user: str, item: str) -> Any:
        entry = review_of(name, user, item, 0, 0)
        revision = self.store.delete(self.version, [entry])
        self.residents.wrote([entry])
        return revision


def review_of(name: str, user: str, item: str, tokens: int, rating: int) -> ReviewEntry:
    return ReviewEntry(review_id=name, user=user, item=item, rating=rating, timestamp=rating, tokens=tokens)


# A name stands for a review of one pair, as the review book sees to.
NAMES = {f"{user}/{item}/{number}": (user, item) for user in USERS for item in ITEMS for number in range(2)}
ACTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.integers(0, 1),
            st.sampled_from(sorted(NAMES)),
            st.integers(0, 12),
            st.integers(1, 5),
        ),
        st.tuples(st.just("delete"), st.integers(0, 1), st.sampled_from(sorted(NAMES))),
        st.tuples(
            st.just("score"),
            st.integers(0, 1),
            st.lists(st.sampled_from(PAIRS), min_size=1, max_size=6),
            st.sampled_from([EVERY_REVIEW, ReviewFilter(before=3), ReviewFilter(excluded=frozenset(["u0/i1/0"]))]),
        ),
    ),
    min_size=4,
    max_size=25,
)


@contextmanager
def two_replicas(
    tiny: TinyBundle, runtime: OnnxRuntime, stores: list[StateStore], max_bytes: int
) -> Iterator[tuple[list[Replica], Replica]]:
    """Two that keep reviews, over an empty store, and one that never does."""
    namespace = tiny.bundle.codec("fp32").namespace
    stores[0].drop_namespace(namespace.version)
    stores[0].open_namespace(namespace)
    kept = [Replica(tiny=tiny, runtime=runtime, store=store, max_bytes=max_bytes) for store in stores]
    yield kept, Replica(tiny=tiny, runtime=runtime, store=stores[0], max_bytes=0)


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def stores(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[StateStore]]:
    """Two ways to one store."""
    with ExitStack() as stack:
        if request.param == "lmdb":  # which a process opens once
            store = stack.enter_context(closing(open_store(f"lmdb:{tmp_path_factory.mktemp('shared')}")))
            yield [store, store]
        else:
            yield [stack.enter_context(closing(open_store(f"{redis_url[:-1]}9"))) for _ in range(2)]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(acts=ACTS, max_bytes=st.sampled_from([4_000, 12_000, 1 << 24]))
def test_under_any_writes_of_two_replicas_both_answer_as_if_they_kept_nothing(
    tiny: TinyBundle,
    runtime: OnnxRuntime,
    stores: list[StateStore],
    acts: list[tuple[Any, ...]],
    max_bytes: int,
) -> None:
    with two_replicas(tiny, runtime, stores, max_bytes) as (kept, uncached):
        behind = [False, False]
        for act, which, *rest in acts:
            replica = kept[which]
            if act == "put":
                name, tokens, rating = rest
                replica.put(name, *NAMES[name], tokens, rating)
                behind[1 - which] = True
            elif act == "delete":
                replica.delete(rest[0], *NAMES[rest[0]])
                behind[1 - which] = True
            else:
                if behind[which]:
                    replica.clock.now += 1.01 * LAG_S
                    behind[which] = False
                assert replica.engine.score(*rest) == uncached.engine.score(*rest)
            assert replica.residents.held_bytes <= max_bytes
        for replica in kept:
            replica.clock.now += 1.01 * LAG_S
            assert replica.engine.score(PAIRS) == uncached.engine.score(PAIRS)


def test_a_write_is_seen_at_once_by_whoever_is_told_its_revision(
    tiny: TinyBundle, runtime: OnnxRuntime, stores: list[StateStore]
) -> None:
    with two_replicas(tiny, runtime, stores, 1 << 24) as ((one, other), uncached):
        one.put("a", "u0", "i0", 5, 1)
        before = other.engine.score(PAIRS)
        revision = one.put("b", "u0", "i1", 5, 5)
        other.residents.catch_up(revision)
        after = other.engine.score(PAIRS)
        assert after == uncached.engine.score(PAIRS) != before
        other.residents.catch_up(one.delete("b", "u0", "i1"))
        assert other.engine.score(PAIRS) == before
        with pytest.raises(LostRevisionError, match=str(revision.major + 10**6)):
            other.residents.catch_up(replace_major(revision, 10**6))


def replace_major(revision: Any, more: int) -> Any:
    return type(revision)(revision.major + more, revision.minor)


def test_a_write_is_seen_within_the_lag_and_not_asked_for_before(
    tiny: TinyBundle, runtime: OnnxRuntime, own_redis_url: str
) -> None:
    with (
        closing(open_store(own_redis_url)) as writing,
        closing(open_store(own_redis_url)) as reading,
        two_replicas(tiny, runtime, [writing, reading], 1 << 24) as ((one, other), _),
    ):
        one.put("a", "u0", "i0", 5, 1)
        before = other.engine.score(PAIRS)
        one.put("b", "u0", "i1", 5, 5)
        other.clock.now += 0.9 * LAG_S
        assert other.engine.score(PAIRS) == before
        other.clock.now += 0.2 * LAG_S
        assert other.engine.score(PAIRS) != before


def test_what_no_feed_tells_is_seen_when_it_has_grown_too_old(
    tiny: TinyBundle, runtime: OnnxRuntime, redis_store: StateStore, own_redis_url: str
) -> None:
    with two_replicas(tiny, runtime, [redis_store], 1 << 24) as ((replica,), uncached):
        replica.put("a", "u0", "i0", 5, 1)
        before = replica.engine.score(PAIRS)
        with redis.Redis.from_url(own_redis_url) as raw:
            feed = next(key for key in raw.scan_iter() if key.endswith(b":changes"))
            kept_feed = raw.dump(feed)
            replica.store.put(replica.version, [(review_of("b", "u0", "i1", 0, 5), b"")])
            raw.restore(feed, 0, kept_feed, replace=True)  # as if the writer had died before it announced
        replica.clock.now += 1.0
        assert replica.engine.score(PAIRS) == before
        replica.clock.now += 300.0
        assert replica.engine.score(PAIRS) == uncached.engine.score(PAIRS) != before


def test_threads_that_read_while_others_write_never_keep_an_old_answer(
    tiny: TinyBundle, runtime: OnnxRuntime, stores: list[StateStore]
) -> None:
    with two_replicas(tiny, runtime, stores, 1 << 24) as (kept, uncached):
        for number, name in enumerate(NAMES):
            kept[0].put(name, *NAMES[name], 3, 1 + number % 5)

        def write(which: int) -> None:
            for number in range(30):
                name = sorted(NAMES)[(7 * number + which) % len(NAMES)]
                kept[which].put(name, *NAMES[name], number % 9, 1 + number % 5)

        def read(which: int) -> None:
            for _ in range(30):
                kept[which].clock.now += LAG_S
                kept[which].engine.score(PAIRS)

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(lambda job: job[0](job[1]), [(write, 0), (read, 0), (read, 1), (write, 1), (read, 0)]))
        for replica in kept:
            replica.clock.now += 1.01 * LAG_S
            assert replica.engine.score(PAIRS) == uncached.engine.score(PAIRS)


def test_accounted_bytes_of_review_lists_are_those_that_python_allocates(
    tiny: TinyBundle, runtime: OnnxRuntime, lmdb_store: StateStore
) -> None:
    replica = Replica(tiny=tiny, runtime=runtime, store=lmdb_store, max_bytes=1 << 30)
    users = [f"A{number:011d}" for number in range(300)]
    entries = [
        review_of(f"{number:02d}{user}", user, f"B{number:011d}", 300 + number, 5)
        for user in users
        for number in range(11)
    ]
    lmdb_store.put(replica.version, [(replace(entry, timestamp=1_400_000_000), b"") for entry in entries])
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        replica.residents.review_lists(users, [])
        truth = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert truth == pytest.approx(replica.residents.held_bytes, rel=0.05)
