"""The in-process cache: it is coherent with the store under any writes, and stands in for a store that is away."""

import gc
import re
import threading
import time
import tracemalloc
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from support.app_settings import settings_for
from support.engines import engine_over, residents_over
from support.metrics import metric
from support.problems import problem_of
from support.redis_server import RedisServer
from support.running_app import running, serving, wait_until_ready
from support.serve_process import ServeProcess
from support.tiny_bundle import Corpus, TinyBundle, states_of_tokens
from support.waiting import wait_until
from support.watched_lock import WatchedLock
from ubert_model.bundle import SCORER_GRAPH
from ubert_model.errors import StoreUnavailableError
from ubert_model.review import ReviewEntry, Side
from ubert_model.states import Changes, MaintenanceStore, Namespace, Revision, StateStore, open_store
from ubert_model.states.redis_pipelines import RedisPipelines
from ubert_service.app import create_app
from ubert_service.context import STALE_SECONDS
from ubert_service.errors import LostRevisionError, NotResidentError
from ubert_service.read_version import ReadVersion
from ubert_service.reading.histories import EVERY_REVIEW, Pair, Reading
from ubert_service.resident import keeper
from ubert_service.resident.bounded_cache import BoundedCache
from ubert_service.resident.follower import Follower
from ubert_service.resident.keeper import ResidentsKeeper
from ubert_service.resident.residents import Residents
from ubert_service.schemas import READ_VERSION
from ubert_service.scoring.engine import ScoringEngine
from ubert_service.scoring.runtime import OnnxRuntime
from ubert_service.scoring.scoring_lane import ScoringLane
from ubert_service.serving.opened import OpenedBundle
from ubert_service.settings import Settings

LAG_S = 0.2
READY_S = 1.5
"""Shorter than the 2 s that a call waits for a server that hangs; longer than the 0.8 s of a readiness check."""
IN_BACKGROUND = ("residents", "holding", "ubert-check")
"""How the names of those threads begin whose waiting for the store delays no request but a check."""
TIMEOUT_S = 60.0
USERS, ITEMS = ["u0", "u1", "new-user"], ["i0", "i1", "new-item"]
PAIRS = [Pair(user, item) for user in USERS for item in ITEMS]


@pytest.fixture(scope="module")
def runtime(tiny: TinyBundle) -> OnnxRuntime:
    return OnnxRuntime(tiny.bundle.file(SCORER_GRAPH), device="cpu", threads=1)


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, kw_only=True)
class Replica:
    """An engine with a cache of its own."""

    tiny: TinyBundle
    runtime: OnnxRuntime
    store: MaintenanceStore
    max_bytes: int
    clock: Clock = field(default_factory=Clock)
    residents: Residents = field(init=False)
    engine: ScoringEngine = field(init=False)

    def __post_init__(self) -> None:
        bundle = self.tiny.bundle
        residents = residents_over(self.store, bundle, max_bytes=self.max_bytes, max_lag_s=LAG_S, clock=self.clock)
        engine = engine_over(residents, bundle, self.runtime)
        object.__setattr__(self, "residents", residents)
        object.__setattr__(self, "engine", engine)

    @property
    def version(self) -> str:
        return self.tiny.bundle.codec("fp32").namespace.version

    def put(self, name: str, user: str, item: str, tokens: int, rating: int) -> Revision:
        """Write, then invalidate, as :class:`ReviewWriter` does."""
        entry = review_of(name, user, item, tokens, rating)
        payload = self.tiny.bundle.codec("fp32").encode(states_of_tokens(self.tiny.model, [rating] * tokens))
        revision = self.store.put(self.version, [(entry, payload)])
        self.residents.wrote([entry])
        return revision

    def delete(self, name: str, user: str, item: str) -> Revision:
        entry = review_of(name, user, item, 0, 0)
        revision = self.store.delete(self.version, [entry])
        self.residents.wrote([entry])
        return revision


def review_of(name: str, user: str, item: str, rows: int, rating: int) -> ReviewEntry:
    return ReviewEntry(review_id=name, user=user, item=item, rating=rating, timestamp=rating, rows=rows)


# Each id belongs to a review of one pair, as the review writer ensures.
PAIR_OF_REVIEW = {f"{user}/{item}/{number}": (user, item) for user in USERS for item in ITEMS for number in range(2)}
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.integers(0, 1),
            st.sampled_from(sorted(PAIR_OF_REVIEW)),
            st.integers(0, 12),
            st.integers(1, 5),
        ),
        st.tuples(st.just("delete"), st.integers(0, 1), st.sampled_from(sorted(PAIR_OF_REVIEW))),
        st.tuples(
            st.just("score"),
            st.integers(0, 1),
            st.lists(st.sampled_from(PAIRS), min_size=1, max_size=6),
            st.sampled_from([EVERY_REVIEW, Reading(before=3), Reading(excluded=frozenset(["u0/i1/0"]))]),
        ),
    ),
    min_size=4,
    max_size=25,
)


@contextmanager
def replicas(
    tiny: TinyBundle, runtime: OnnxRuntime, stores: list[MaintenanceStore], max_bytes: int
) -> Iterator[tuple[list[Replica], Replica]]:
    """One with a cache for each of ``stores``, and one without; the namespace is empty."""
    namespace = tiny.bundle.codec("fp32").namespace
    stores[0].drop_namespace(namespace.version)
    stores[0].open_namespace(namespace)
    cached = [Replica(tiny=tiny, runtime=runtime, store=store, max_bytes=max_bytes) for store in stores]
    yield cached, Replica(tiny=tiny, runtime=runtime, store=stores[0], max_bytes=0)


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def stores(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[MaintenanceStore]]:
    """Two handles of one store."""
    with ExitStack() as stack:
        if request.param == "lmdb":  # which a process may open only once
            store = stack.enter_context(closing(open_store(f"lmdb:{tmp_path_factory.mktemp('shared')}")))
            yield [store, store]
        else:
            yield [stack.enter_context(closing(open_store(f"{redis_url[:-1]}9"))) for _ in range(2)]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(operations=OPERATIONS, max_bytes=st.sampled_from([4_000, 12_000, 1 << 24]))
def test_after_any_writes_cached_replicas_rate_as_an_uncached_one(
    tiny: TinyBundle,
    runtime: OnnxRuntime,
    stores: list[MaintenanceStore],
    operations: list[tuple[Any, ...]],
    max_bytes: int,
) -> None:
    with replicas(tiny, runtime, stores, max_bytes) as (cached, uncached):
        behind = [False, False]
        for operation, which, *rest in operations:
            replica = cached[which]
            if operation == "put":
                name, tokens, rating = rest
                replica.put(name, *PAIR_OF_REVIEW[name], tokens, rating)
                behind[1 - which] = True
            elif operation == "delete":
                replica.delete(rest[0], *PAIR_OF_REVIEW[rest[0]])
                behind[1 - which] = True
            else:
                if behind[which]:
                    replica.clock.now += 1.01 * LAG_S
                    behind[which] = False
                assert replica.engine.score(*rest) == uncached.engine.score(*rest)
            assert replica.residents.held_bytes <= max_bytes
        for replica in cached:
            replica.clock.now += 1.01 * LAG_S
            assert replica.engine.score(PAIRS) == uncached.engine.score(PAIRS)


def test_a_replica_that_catches_up_with_a_write_shows_it_at_once(
    tiny: TinyBundle, runtime: OnnxRuntime, stores: list[MaintenanceStore]
) -> None:
    with replicas(tiny, runtime, stores, 1 << 24) as ((one, other), uncached):
        one.put("a", "u0", "i0", 5, 1)
        before = other.engine.score(PAIRS)
        revision = one.put("b", "u0", "i1", 5, 5)
        written = ReadVersion(one.version, revision)
        assert not other.residents.reflects(written)
        other.residents.catch_up(written)
        assert other.residents.reflects(written)
        after = other.engine.score(PAIRS)
        assert after == uncached.engine.score(PAIRS) != before
        other.residents.catch_up(ReadVersion(one.version, one.delete("b", "u0", "i1")))
        assert other.engine.score(PAIRS) == before
        with pytest.raises(LostRevisionError, match=str(revision.major + 10**6)):
            other.residents.catch_up(ReadVersion(one.version, Revision(revision.major + 10**6)))


@pytest.mark.parametrize("position", [0, 10**15])
def test_catching_up_with_a_write_in_another_namespace_reads_the_feed_to_its_end(
    tiny: TinyBundle, runtime: OnnxRuntime, stores: list[MaintenanceStore], position: int
) -> None:
    with replicas(tiny, runtime, stores, 1 << 24) as ((one, other), uncached):
        before = other.engine.score(PAIRS)
        one.put("b", "u0", "i1", 5, 5)
        written = ReadVersion("0f" * 8, Revision(position))
        assert not other.residents.reflects(written)
        other.residents.catch_up(written)
        assert other.engine.score(PAIRS) == uncached.engine.score(PAIRS) != before


def test_a_write_is_seen_after_the_lag_and_the_feed_is_not_polled_before(
    tiny: TinyBundle, runtime: OnnxRuntime, own_redis_url: str
) -> None:
    with (
        closing(open_store(own_redis_url)) as writing,
        closing(open_store(own_redis_url)) as reading,
        replicas(tiny, runtime, [writing, reading], 1 << 24) as ((one, other), _),
    ):
        one.put("a", "u0", "i0", 5, 1)
        before = other.engine.score(PAIRS)
        one.put("b", "u0", "i1", 5, 5)
        other.clock.now += 0.9 * LAG_S
        assert other.engine.score(PAIRS) == before
        other.clock.now += 0.2 * LAG_S
        assert other.engine.score(PAIRS) != before


def test_a_write_that_was_not_announced_is_seen_once_the_cached_copy_expires(
    tiny: TinyBundle, runtime: OnnxRuntime, redis_store: MaintenanceStore, own_redis_url: str
) -> None:
    with replicas(tiny, runtime, [redis_store], 1 << 24) as ((replica,), uncached):
        replica.put("a", "u0", "i0", 5, 1)
        before = replica.engine.score(PAIRS)
        with redis.Redis.from_url(own_redis_url) as raw:
            feed = next(key for key in raw.scan_iter() if key.endswith(b":changes"))
            feed_before = raw.dump(feed)
            replica.store.put(replica.version, [(review_of("b", "u0", "i1", 0, 5), b"")])
            raw.restore(feed, 0, feed_before, replace=True)  # as if the writer had died before announcing it
        replica.clock.now += 1.0
        assert replica.engine.score(PAIRS) == before
        replica.clock.now += 300.0
        assert replica.engine.score(PAIRS) == uncached.engine.score(PAIRS) != before


def test_concurrent_reads_and_writes_leave_no_stale_copy(
    tiny: TinyBundle, runtime: OnnxRuntime, stores: list[MaintenanceStore]
) -> None:
    with replicas(tiny, runtime, stores, 1 << 24) as (cached, uncached):
        for number, name in enumerate(PAIR_OF_REVIEW):
            cached[0].put(name, *PAIR_OF_REVIEW[name], 3, 1 + number % 5)

        def write(which: int) -> None:
            for number in range(30):
                name = sorted(PAIR_OF_REVIEW)[(7 * number + which) % len(PAIR_OF_REVIEW)]
                cached[which].put(name, *PAIR_OF_REVIEW[name], number % 9, 1 + number % 5)

        def read(which: int) -> None:
            for _ in range(30):
                cached[which].clock.now += LAG_S
                cached[which].engine.score(PAIRS)

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(lambda job: job[0](job[1]), [(write, 0), (read, 0), (read, 1), (write, 1), (read, 0)]))
        for replica in cached:
            replica.clock.now += 1.01 * LAG_S
            assert replica.engine.score(PAIRS) == uncached.engine.score(PAIRS)


@pytest.mark.parametrize("kept", ["review_lists", "states"])
def test_what_was_read_before_a_write_is_not_kept_after_it(
    tiny: TinyBundle, runtime: OnnxRuntime, lmdb_store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    """The write falls between the store's answer and the cache, and another thread has read of it by then."""
    replica = Replica(tiny=tiny, runtime=runtime, store=lmdb_store, max_bytes=1 << 24)
    replica.put("a", "u0", "i0", 5, 1)

    def read() -> Any:
        if kept == "states":
            return replica.residents.states(["a"])["a"].tolist()
        return [entry.rating for entry in replica.residents.review_lists(["u0"], [])[0]]

    from_store = getattr(lmdb_store, kept)

    def read_then_write(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(lmdb_store, kept, from_store)
        outdated = from_store(*arguments, **named)
        replica.put("a", "u0", "i0", 5, 2)
        replica.residents.follower.poll()
        return outdated

    monkeypatch.setattr(lmdb_store, kept, read_then_write)
    outdated = read()
    assert read() != outdated


def test_an_unavailable_store_is_a_shared_failure_but_a_miss_of_the_cache_is_not(
    tiny: TinyBundle, runtime: OnnxRuntime, lmdb_store: MaintenanceStore
) -> None:
    lane = ScoringLane(Replica(tiny=tiny, runtime=runtime, store=lmdb_store, max_bytes=0).engine, EVERY_REVIEW)
    assert lane.is_shared_failure(StoreUnavailableError("the store is away"))
    assert not lane.is_shared_failure(NotResidentError("the store was not asked"))


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(
    ("user_name", "item_name"),
    [
        ("A{:011d}", "B{:011d}"),
        ("A{:0199d}", "B{:09d}"),
        ("A{:09d}", "B{:0199d}"),
        ("покупательница настольных игр {:09d}", "настольная игра для всей семьи {:09d}"),
    ],
)
def test_held_bytes_of_review_lists_are_those_that_python_allocates(
    tiny: TinyBundle, runtime: OnnxRuntime, lmdb_store: MaintenanceStore, side: Side, user_name: str, item_name: str
) -> None:
    replica = Replica(tiny=tiny, runtime=runtime, store=lmdb_store, max_bytes=1 << 30)
    entries = [
        review_of(f"{one:09d}{other:03d}", user_name.format(user), item_name.format(item), 200 + 10 * other, 5)
        for one in range(300)
        for other in range(11)
        for user, item in [(one, other) if side is Side.USER else (other, one)]
    ]
    lmdb_store.put(replica.version, [(replace(entry, timestamp=1_400_000_000), b"") for entry in entries])
    name = user_name if side is Side.USER else item_name
    gc.collect()  # otherwise memory that Python has kept of freed objects is used again below, uncounted
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        entities = [name.format(one) for one in range(300)]
        replica.residents.review_lists(*((entities, []) if side is Side.USER else ([], entities)))
        del entities
        allocated = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert allocated == pytest.approx(replica.residents.held_bytes, rel=0.05)


def test_states_read_together_do_not_share_memory(
    tiny: TinyBundle, runtime: OnnxRuntime, lmdb_store: MaintenanceStore
) -> None:
    replica = Replica(tiny=tiny, runtime=runtime, store=lmdb_store, max_bytes=1 << 24)
    for name in ("a", "b"):
        replica.put(name, "u0", "i0", 5, 1)
    replica.residents.states(["a", "b"])
    cached = replica.residents.states(["a", "b"])
    assert [states.base for states in cached.values()] == [None, None]


@pytest.mark.parametrize("failure", [StoreUnavailableError("it is away"), AttributeError("unexpected")])
def test_the_cache_stands_in_for_a_failing_store_until_it_recovers(
    tiny: TinyBundle,
    runtime: OnnxRuntime,
    lmdb_store: MaintenanceStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
) -> None:
    replica = Replica(tiny=tiny, runtime=runtime, store=lmdb_store, max_bytes=1 << 24)
    namespace = tiny.bundle.codec("fp32").namespace
    lmdb_store.open_namespace(namespace)
    replica.put("a", "u0", "i0", 5, 1)
    keeper = ResidentsKeeper(
        replica.residents,
        store=lmdb_store,
        namespace=namespace,
        max_bytes=replica.max_bytes,
        max_lag_s=LAG_S,
        warm_s=0.0,
    )

    def failing(*_: object) -> Changes:
        raise failure

    with keeper:
        cached = replica.residents.review_lists(["u0"], [])
        with monkeypatch.context() as patched:
            patched.setattr(lmdb_store, "changes", failing)
            wait_until(lambda: replica.residents.away is not None)
            replica.clock.now += 10_000.0  # expired, if the store answered
            assert replica.residents.review_lists(["u0"], []) == cached
            with pytest.raises(NotResidentError):
                replica.residents.review_lists(["u1"], [])
        wait_until(lambda: replica.residents.away is None)
        assert list(*replica.residents.review_lists(["u1"], [])) == []
    assert str(failure) in caplog.text
    assert ("Traceback" in caplog.text) == isinstance(failure, AttributeError)


def test_threads_that_waited_for_a_failed_poll_do_not_poll_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the threads would wait for a server that hangs one after the other."""
    polling, released, lock = threading.Semaphore(0), threading.Event(), WatchedLock()
    polled: list[str] = []

    class HangingStore:
        local = False

        def changes(self, version: str, since: Revision | None) -> Changes:
            polled.append(version)
            polling.release()
            assert released.wait(TIMEOUT_S)
            raise StoreUnavailableError("it hangs")

    follower = Follower(store=cast("StateStore", HangingStore()), version="0f", drop=lambda marks: None, max_lag_s=0.0)
    monkeypatch.setattr(follower, "_polling", lock)
    threads = [threading.Thread(target=follower.poll) for _ in range(4)]
    threads[0].start()
    assert polling.acquire(timeout=TIMEOUT_S)
    for thread in threads[1:]:
        thread.start()
    for _ in threads:  # the last three wait for the first
        assert lock.attempts.acquire(timeout=TIMEOUT_S)
    released.set()
    for thread in threads:
        thread.join()
    assert (polled, follower.away) == (["0f"], "it hangs")


def settings_of(tiny: TinyBundle, **options: Any) -> Settings:
    return settings_for(tiny.bundle, **{"resident_lag": LAG_S, **options})


@dataclass(frozen=True, kw_only=True)
class Outage:
    """A Redis server that the test may break, and two warm services over it. ``raw``: a client of the server."""

    server: RedisServer
    one: httpx.Client
    other: httpx.Client
    store: MaintenanceStore
    raw: redis.Redis


@pytest.fixture
def outage(tiny: TinyBundle, corpus: Corpus) -> Iterator[Outage]:
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        store = stack.enter_context(closing(open_store(server.url)))
        corpus.write(store, tiny.bundle)
        clients = []
        for _ in range(2):
            own = stack.enter_context(closing(open_store(server.url)))
            with_texts = settings_of(tiny, texts=True)
            app = create_app(with_texts, OpenedBundle.open(with_texts), own)
            clients.append(stack.enter_context(running(app)))
            wait_until_ready(clients[-1])
        raw = stack.enter_context(redis.Redis.from_url(server.url))
        yield Outage(server=server, one=clients[0], other=clients[1], store=store, raw=raw)


def predict(client: httpx.Client, user: str = "u0", item: str = "i1", **headers: str) -> httpx.Response:
    return client.post("/predict", json={"pairs": [{"user": user, "item": item}]}, headers=headers)


def prediction(response: httpx.Response) -> dict[str, Any]:
    (one,) = response.raise_for_status().json()["predictions"]
    return dict(one)


def is_ready(client: httpx.Client) -> bool:
    return bool(client.get("/readyz").json()["status"] == "ready")


def at_once(send: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer to a request that must not wait for the server: so nothing asks it but threads in the background."""
    asking: list[str] = []
    client_of = vars(RedisPipelines)["_client"].fget

    def noted_client(pipelines: RedisPipelines) -> Any:
        asking.append(threading.current_thread().name)
        return client_of(pipelines)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RedisPipelines, "_client", property(noted_client))
        answer = send()
    assert [name for name in asking if not name.startswith(IN_BACKGROUND)] == []
    return answer


def is_not_ready(client: httpx.Client) -> bool:
    """Are predictions refused, rather than made as if nothing had reviews?"""
    return problem_of(predict(client)) == (503, "not-ready")


def has_no_states(client: httpx.Client) -> bool:
    """Are missing states the only reason that it is not ready?"""
    return [reason["check"] for reason in client.get("/readyz").json().get("reasons", ())] == ["states"]


def assert_stands_in(client: httpx.Client, healthy: dict[str, Any]) -> None:
    """What is cached is answered, at once and with its age; what is not is refused with the reason."""
    wait_until(lambda: STALE_SECONDS in predict(client).headers)
    answer = at_once(lambda: predict(client))
    refused = at_once(lambda: predict(client, user="not cached"))
    assert prediction(answer) == healthy
    assert float(answer.headers[STALE_SECONDS]) > LAG_S
    assert problem_of(refused) == (503, "store-unavailable")
    assert "Redis at 127.0.0.1" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) > 0
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert predict(client, **{READ_VERSION: "0f0f:99999999999999-0"}).status_code == 503


WHERE = {"user": "u0", "item": "i13"}
REVIEW = {**WHERE, "rating": 1, "text": "A bad board.", "timestamp": 99}


def test_the_cache_stands_in_for_a_killed_server_until_that_returns_empty(outage: Outage) -> None:
    healthy = prediction(predict(outage.one))
    assert healthy["basis"] == "full"
    outage.server.kill()
    for client in (outage.one, outage.other):
        assert_stands_in(client, healthy)
    assert outage.one.post("/reviews", json=REVIEW).status_code == 503
    outage.server.start()
    for client in (outage.one, outage.other):
        wait_until(partial(is_not_ready, client))
        assert STALE_SECONDS not in predict(client).headers
        wait_until(partial(has_no_states, client))


def test_the_answer_that_first_finds_the_store_away_reports_its_age(
    tiny: TinyBundle, corpus: Corpus, redis_store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changes(version: str, since: Revision | None) -> Changes:
        raise StoreUnavailableError("the store is away")

    corpus.write(redis_store, tiny.bundle)
    with serving(settings_of(tiny, resident_lag=0.0), redis_store) as client:
        wait_until_ready(client)
        healthy = predict(client)
        assert STALE_SECONDS not in healthy.headers
        monkeypatch.setattr(redis_store, "changes", changes)
        answer = predict(client)
        assert prediction(answer) == prediction(healthy)
        assert STALE_SECONDS in answer.headers


def test_the_cache_stands_in_for_a_server_that_hangs_and_recovery_needs_no_restart(outage: Outage) -> None:
    healthy = prediction(predict(outage.one))
    outage.server.pause()
    for _ in range(10):  # before the store is found to be away, and after
        began = time.monotonic()
        assert outage.one.get("/readyz").status_code == 200
        assert time.monotonic() - began < READY_S
        time.sleep(0.1)
    assert_stands_in(outage.one, healthy)
    outage.server.resume()
    for client in (outage.one, outage.other):  # each reconnects by itself
        wait_until(partial(is_ready, client))
    written = outage.one.post("/reviews", json=REVIEW).raise_for_status()
    changed = prediction(predict(outage.other, **{READ_VERSION: written.headers[READ_VERSION]}))
    assert changed["rating"] != healthy["rating"]
    assert changed["missing_states"] == 0
    assert prediction(predict(outage.one)) == changed


def test_requests_that_need_a_server_that_hangs_delay_no_cached_prediction(outage: Outage) -> None:
    healthy = prediction(predict(outage.one))
    outage.server.pause()
    wait_until(lambda: STALE_SECONDS in predict(outage.one).headers)
    one = outage.one
    for _ in range(2):
        for send in (
            lambda: one.get("/users/u0"),
            lambda: one.get("/items"),
            lambda: one.get("/candidate-sets"),
            lambda: one.put("/candidate-sets/some", json={"items": ["i1"]}),
            lambda: one.post("/rank", json={"user": "u0", "candidate_set": "some"}),
            lambda: one.post("/reviews", json=REVIEW),
            lambda: one.delete("/reviews/review-0", params={"user": "u0", "item": "i0"}),
            lambda: predict(one, **{READ_VERSION: "0f0f:99999999999999-0"}),
        ):
            answer = at_once(send)
            assert problem_of(answer) == (503, "store-unavailable")
            assert prediction(at_once(lambda: predict(one))) == healthy


def test_while_the_store_is_away_an_explanation_has_no_texts_and_says_so(outage: Outage) -> None:
    def explain(**texts: Any) -> httpx.Response:
        return outage.one.post("/explain", json={"user": "u0", "item": "i1", **texts})

    written = outage.one.post("/reviews", json=REVIEW).raise_for_status()
    # Otherwise a late poll may see the write announced, and drop what the explanation has cached.
    prediction(predict(outage.one, **{READ_VERSION: written.headers[READ_VERSION]}))
    healthy = explain().raise_for_status().json()
    assert any(review["text"] for review in healthy["reviews"])
    assert not healthy["texts_unavailable"]
    outage.server.pause()
    wait_until(lambda: STALE_SECONDS in predict(outage.one).headers)
    answer = at_once(explain).raise_for_status()
    without = [{**review, "text": None, "token_spans": None} for review in healthy["reviews"]]
    assert answer.json() == {**healthy, "reviews": without, "texts_unavailable": True}
    assert float(answer.headers[STALE_SECONDS]) > LAG_S
    inline = explain(user_texts=[{"text": "A good board."}]).raise_for_status().json()
    assert [review["text"] for review in inline["reviews"] if review["text"]] == ["A good board."]


def test_a_full_server_refuses_writes_but_deletes_and_predictions_stay_right(outage: Outage, corpus: Corpus) -> None:
    healthy = prediction(predict(outage.one))
    outage.raw.config_set("maxmemory-policy", "noeviction")
    outage.raw.config_set("maxmemory", 1)
    refused = outage.one.post("/reviews", json=REVIEW)
    assert problem_of(refused) == (507, "store-full")
    assert "out of memory" in refused.json()["detail"]
    assert prediction(predict(outage.one)) == prediction(predict(outage.other)) == healthy
    read = next(entry for entry in corpus.of_user("u0") if entry.item != "i1" and entry.rows)
    where = {"user": read.user, "item": read.item}
    removed = outage.one.delete(f"/reviews/{read.review_id}", params=where).raise_for_status()
    without = prediction(predict(outage.other, **{READ_VERSION: removed.headers[READ_VERSION]}))
    assert without["rating"] != healthy["rating"]
    assert prediction(predict(outage.one)) == without
    outage.raw.config_set("maxmemory", 0)
    outage.one.post("/reviews", json=REVIEW).raise_for_status()
    wait_until(lambda: prediction(predict(outage.other))["rating"] != without["rating"])


def test_a_read_version_that_is_lost_or_malformed_is_refused(outage: Outage, tiny: TinyBundle) -> None:
    version = tiny.bundle.manifest.namespace("fp32").version
    lost = predict(outage.one, **{READ_VERSION: f"{version}:99999999999999-0"})
    assert problem_of(lost) == (412, "read-version-lost")
    assert predict(outage.one, **{READ_VERSION: "yesterday"}).status_code == 422


def test_once_everything_is_cached_predictions_read_no_lists_or_states(outage: Outage) -> None:
    def reads() -> int:
        stats = outage.raw.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("get", "mget", "hvals", "hgetall"))

    def predict_all() -> None:
        for user in range(8):
            prediction(predict(outage.one, user=f"u{user}"))

    predict_all()  # warming leaves out users without reviews
    before = reads()
    predict_all()
    assert reads() == before


def test_pages_and_searches_use_cached_lists_and_show_the_latest_write_of_another_process(
    outage: Outage,
) -> None:
    def lists_read() -> int:
        return int(outage.raw.info("commandstats").get("cmdstat_hvals", {"calls": 0})["calls"])

    def reviews(path: str) -> int:
        counts = outage.one.get(path).raise_for_status().json()["counts"]
        return int(counts["reviews"])

    paths = ["/users/u0", "/items/i1"]
    before = [reviews(path) for path in paths]
    outage.one.get("/users").raise_for_status()
    read = lists_read()
    for written in range(1, 4):
        assert [reviews(path) for path in paths] == [count + written - 1 for count in before]
        (found,) = outage.one.get("/users", params={"prefix": "u0"}).raise_for_status().json()["found"]
        assert found["counts"]["reviews"] == before[0] + written - 1
        outage.one.get("/users").raise_for_status()
        assert lists_read() == read
        outage.other.post("/reviews", json={**REVIEW, "item": "i1", "review_id": f"new {written}"}).raise_for_status()
        assert [reviews(path) for path in paths] == [count + written for count in before]
        read = lists_read()


def test_metrics_report_hits_misses_drops_bytes_and_age(outage: Outage) -> None:
    wait_until_ready(outage.one)
    assert metric(outage.one, "ubert_residents_asked_total") == 0  # reads of warming are not counted
    for user in ("u0", "newcomer"):
        prediction(predict(outage.one, user=user))
    assert metric(outage.one, "ubert_residents_asked_total", kind="lists", outcome="hit") == 3
    assert metric(outage.one, "ubert_residents_asked_total", kind="lists", outcome="miss") == 1
    assert metric(outage.one, "ubert_residents_bytes") > 10_000
    assert metric(outage.one, "ubert_residents_stale_seconds") == 0
    outage.one.post("/reviews", json=REVIEW).raise_for_status()
    assert metric(outage.one, "ubert_residents_dropped_total") >= 1
    outage.server.kill()
    wait_until(lambda: metric(outage.one, "ubert_residents_stale_seconds") > LAG_S)


@pytest.mark.parametrize("hangs", [True, False])
def test_a_readiness_check_during_a_failover_finds_the_service_ready(
    tiny: TinyBundle, filled_redis_store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    """It fails on the former server, and the cache that stood in for that is dropped when the new one answers."""
    dropped, answered = threading.Event(), threading.Event()
    drop, changes = BoundedCache.drop, filled_redis_store.changes

    def drop_and_signal(cache: BoundedCache[Any], marks: Collection[bytes] | None) -> tuple[int, int]:
        held = drop(cache, marks)
        dropped.set()
        return held

    def namespaces() -> list[Namespace]:
        monkeypatch.setattr(
            filled_redis_store,
            "changes",
            lambda version, since: replace(changes(version, since), history="another server's"),
        )
        assert dropped.wait(TIMEOUT_S)
        assert not hangs or answered.wait(TIMEOUT_S)
        raise StoreUnavailableError("the former server is away")

    options = settings_of(tiny)
    with serving(options, filled_redis_store) as client:
        wait_until_ready(client)
        monkeypatch.setattr(BoundedCache, "drop", drop_and_signal)
        monkeypatch.setattr(filled_redis_store, "namespaces", namespaces)
        answer = client.get("/readyz")
        answered.set()
    assert (answer.status_code, dropped.is_set()) == (200, True), answer.text


def test_two_processes_over_one_lmdb_directory_see_each_others_writes_at_once(
    tiny: TinyBundle, filled_store: MaintenanceStore, tmp_path: Path
) -> None:
    filled_store.close()
    arguments = ["--bundle", str(tiny.bundle.path), "--store", f"lmdb:{tmp_path / 'states'}", "--codec", "fp32"]
    arguments += ["--device", "cpu", "--threads", "1"]
    with ServeProcess(*arguments) as one, ServeProcess(*arguments) as other:
        for service in (one, other):
            wait_until_ready(service.client)
        before = prediction(predict(other.client))
        written = one.client.post("/reviews", json=REVIEW).raise_for_status().json()
        after = prediction(predict(other.client))
        one.client.delete(f"/reviews/{written['review_id']}", params=WHERE).raise_for_status()
        assert after["rating"] != before["rating"]
        assert prediction(predict(other.client)) == before


def test_the_cache_stands_in_for_an_lmdb_directory_that_is_gone_until_it_is_back(
    tiny: TinyBundle, filled_store: MaintenanceStore, tmp_path: Path
) -> None:
    used, moved = tmp_path / "states", tmp_path / "moved"
    with serving(settings_of(tiny), filled_store) as client:
        wait_until_ready(client)
        healthy = prediction(predict(client))
        used.rename(moved)
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["remedy"] == "make the state store usable again, as the detail says"
        wait_until(lambda: STALE_SECONDS in predict(client).headers)
        assert prediction(predict(client)) == healthy
        for refused, why in (
            (predict(client, user="not cached"), "what this request needs is not in memory"),
            (client.post("/reviews", json=REVIEW), "this request needs the state store itself"),
            (client.put("/candidate-sets/x", json={"items": ["i1"]}), "this request needs the state store itself"),
        ):
            assert refused.status_code == 503
            assert re.match(f"{why}.* put the directory back", refused.json()["detail"])
        moved.rename(used)
        wait_until(lambda: is_ready(client))
        assert client.post("/reviews", json=REVIEW).status_code == 201
        assert STALE_SECONDS not in predict(client).headers


def test_a_request_that_names_a_write_queues_no_more_work_once_that_is_read(
    tiny: TinyBundle, filled_redis_store: MaintenanceStore
) -> None:
    with serving(settings_of(tiny), filled_redis_store) as client:
        written = client.post("/reviews", json=REVIEW).raise_for_status()
        versions = {READ_VERSION: written.headers[READ_VERSION]}
        expected = prediction(predict(client, **versions))
        queued = metric(client, "ubert_queue_seconds_count")
        assert prediction(predict(client, **versions)) == expected
        assert metric(client, "ubert_queue_seconds_count") == queued + 1


def test_the_service_is_not_ready_until_it_is_warm_and_reports_the_progress(
    tiny: TinyBundle, filled_redis_store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the store, busy with the reads of warming, is too slow for a check."""
    go_on = threading.Event()
    read, namespaces = filled_redis_store.review_lists, filled_redis_store.namespaces
    first = threading.Semaphore()  # read at once, so that something is resident

    def slow(*arguments: Any, **named: Any) -> Any:
        assert first.acquire(blocking=False) or go_on.wait(TIMEOUT_S)
        return read(*arguments, **named)

    def slow_namespaces() -> list[Namespace]:
        assert go_on.wait(TIMEOUT_S)
        return namespaces()

    monkeypatch.setattr(keeper, "_BATCH_ENTITIES", 1)
    monkeypatch.setattr(filled_redis_store, "review_lists", slow)
    with serving(settings_of(tiny), filled_redis_store) as client:
        wait_until(lambda: "warming: 1 of" in client.get("/readyz").text)
        assert [reason["check"] for reason in client.get("/readyz").json()["reasons"]] == ["residents"]
        monkeypatch.setattr(filled_redis_store, "namespaces", slow_namespaces)
        assert [reason["check"] for reason in client.get("/readyz").json().get("reasons", ())] == ["residents"]
        assert client.get("/healthz").status_code == 200
        go_on.set()
        wait_until_ready(client)


@pytest.mark.parametrize("max_bytes", [8_000, 16_000])
def test_a_small_cache_is_warmed_with_the_most_reviewed(
    tiny: TinyBundle,
    corpus: Corpus,
    runtime: OnnxRuntime,
    filled_store: MaintenanceStore,
    monkeypatch: pytest.MonkeyPatch,
    max_bytes: int,
) -> None:
    replica = Replica(tiny=tiny, runtime=runtime, store=filled_store, max_bytes=max_bytes)
    keeper = ResidentsKeeper(
        replica.residents,
        store=filled_store,
        namespace=tiny.bundle.codec("fp32").namespace,
        max_bytes=max_bytes,
        max_lag_s=LAG_S,
        warm_s=TIMEOUT_S,
    )
    most_reviewed = max({entry.user for entry in corpus.entries}, key=lambda user: len(corpus.of_user(user)))
    with keeper:
        wait_until(lambda: keeper.warming is None)
        monkeypatch.setattr(filled_store, "review_lists", lambda *_, **__: pytest.fail("it was not cached"))
        (reviews,) = replica.residents.review_lists([most_reviewed], [])
    assert list(reviews) == corpus.of_user(most_reviewed)


def test_warming_ends_when_the_cache_is_full(tiny: TinyBundle, filled_redis_store: MaintenanceStore) -> None:
    with serving(settings_of(tiny, resident_bytes=30_000), filled_redis_store) as client:
        wait_until_ready(client)
        assert 20_000 < metric(client, "ubert_residents_bytes") <= 30_000
