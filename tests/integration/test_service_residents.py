"""What a process keeps in memory is what the store holds: under any writes of others, and when the store breaks."""

import gc
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
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
from support.redis_server import RedisServer
from support.running_app import running, serving, wait_until_ready
from support.serve_process import ServeProcess
from support.tiny_bundle import Corpus, TinyBundle, states_of_tokens
from support.waiting import wait_until
from ubert_model.bundle import SCORER_GRAPH
from ubert_model.errors import StoreUnavailableError
from ubert_model.states import Changes, Namespace, ReviewEntry, Revision, Side, StateStore, open_store
from ubert_service.app import create_app
from ubert_service.errors import LostRevisionError, NotResidentError
from ubert_service.read_version import ReadVersion
from ubert_service.reading.histories import EVERY_REVIEW, Pair, Reading
from ubert_service.resident.follower import Follower
from ubert_service.resident.keeper import ResidentsKeeper
from ubert_service.resident.residents import Residents
from ubert_service.routes.dependencies import READ_VERSION, STALE_SECONDS
from ubert_service.scoring.engine import ScoringEngine
from ubert_service.scoring.runtime import OnnxRuntime
from ubert_service.scoring.scoring_lane import ScoringLane
from ubert_service.serving.served import ServedBundle
from ubert_service.settings import Settings

LAG_S = 0.2
AT_ONCE_S = 1.5
"""Less than a server that hangs is waited for: 2 s. Readiness waits for it, too, but for 0.8 s at most."""
PATIENCE_S = 60.0
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
            usual=self.tiny.bundle.deviations,
            bias=manifest.bias,
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

    def put(self, name: str, user: str, item: str, tokens: int, rating: int) -> Revision:
        """As :class:`ReviewWriter` does it: write, then forget."""
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


# A name stands for a review of one pair, as the review writer ensures.
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
            st.sampled_from([EVERY_REVIEW, Reading(before=3), Reading(excluded=frozenset(["u0/i1/0"]))]),
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


@settings(max_examples=20, deadline=None, derandomize=True)
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
        other.residents.catch_up(ReadVersion(one.version, revision))
        after = other.engine.score(PAIRS)
        assert after == uncached.engine.score(PAIRS) != before
        other.residents.catch_up(ReadVersion(one.version, one.delete("b", "u0", "i1")))
        assert other.engine.score(PAIRS) == before
        with pytest.raises(LostRevisionError, match=str(revision.major + 10**6)):
            other.residents.catch_up(ReadVersion(one.version, Revision(revision.major + 10**6)))


@pytest.mark.parametrize("position", [0, 10**15])
def test_after_a_write_in_another_namespace_all_that_is_there_now_is_read(
    tiny: TinyBundle, runtime: OnnxRuntime, stores: list[StateStore], position: int
) -> None:
    with two_replicas(tiny, runtime, stores, 1 << 24) as ((one, other), uncached):
        before = other.engine.score(PAIRS)
        one.put("b", "u0", "i1", 5, 5)
        other.residents.catch_up(ReadVersion("0f" * 8, Revision(position)))
        assert other.engine.score(PAIRS) == uncached.engine.score(PAIRS) != before


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


def test_a_request_that_memory_cannot_answer_does_not_fail_those_that_it_can(
    tiny: TinyBundle, runtime: OnnxRuntime, lmdb_store: StateStore
) -> None:
    lane = ScoringLane(Replica(tiny=tiny, runtime=runtime, store=lmdb_store, max_bytes=0).engine, EVERY_REVIEW)
    assert lane.is_shared_failure(StoreUnavailableError("asked in vain"))
    assert not lane.is_shared_failure(NotResidentError("not asked"))


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
def test_accounted_bytes_of_review_lists_are_those_that_python_allocates(
    tiny: TinyBundle, runtime: OnnxRuntime, lmdb_store: StateStore, side: Side, user_name: str, item_name: str
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
    gc.collect()  # else what Python keeps of freed objects serves some of those below, uncounted
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        entities = [name.format(one) for one in range(300)]
        replica.residents.review_lists(*((entities, []) if side is Side.USER else ([], entities)))
        del entities
        truth = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert truth == pytest.approx(replica.residents.held_bytes, rel=0.05)


def test_states_that_were_read_together_can_leave_memory_one_by_one(
    tiny: TinyBundle, runtime: OnnxRuntime, lmdb_store: StateStore
) -> None:
    replica = Replica(tiny=tiny, runtime=runtime, store=lmdb_store, max_bytes=1 << 24)
    for name in ("a", "b"):
        replica.put(name, "u0", "i0", 5, 1)
    replica.residents.states(["a", "b"])
    kept = replica.residents.states(["a", "b"])
    assert [states.base for states in kept.values()] == [None, None]


@pytest.mark.parametrize("failure", [StoreUnavailableError("it is away"), AttributeError("nobody foresaw it")])
def test_whatever_the_store_fails_with_what_it_has_is_read_again_once_it_is_back(
    tiny: TinyBundle,
    runtime: OnnxRuntime,
    lmdb_store: StateStore,
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
        kept = replica.residents.review_lists(["u0"], [])
        with monkeypatch.context() as patched:
            patched.setattr(lmdb_store, "changes", failing)
            wait_until(lambda: replica.residents.away is not None)
            replica.clock.now += 10_000.0  # too old to be trusted beside a store that answers
            assert replica.residents.review_lists(["u0"], []) == kept
            with pytest.raises(NotResidentError):
                replica.residents.review_lists(["u1"], [])
        wait_until(lambda: replica.residents.away is None)
        assert list(*replica.residents.review_lists(["u1"], [])) == []
    assert str(failure) in caplog.text
    assert ("Traceback" in caplog.text) == isinstance(failure, AttributeError)


class WatchedLock:
    """Tells of everyone who comes to it."""

    def __init__(self) -> None:
        self.came = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.came.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_who_waited_while_another_asked_in_vain_does_not_ask_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every thread would wait for a server that hangs after the other, each for as long as it may take."""
    asking, hanging, lock = threading.Semaphore(0), threading.Event(), WatchedLock()
    asked: list[str] = []

    class HangingStore:
        local = False

        def changes(self, version: str, since: Revision | None) -> Changes:
            asked.append(version)
            asking.release()
            assert hanging.wait(PATIENCE_S)
            raise StoreUnavailableError("it hangs")

    class Copies:
        def drop(self, marks: frozenset[bytes] | None) -> None: ...

    follower = Follower(store=cast("StateStore", HangingStore()), version="0f", copies=Copies(), max_lag_s=0.0)
    monkeypatch.setattr(follower, "_polling", lock)
    threads = [threading.Thread(target=follower.poll) for _ in range(4)]
    threads[0].start()
    assert asking.acquire(timeout=PATIENCE_S)
    for thread in threads[1:]:
        thread.start()
    for _ in threads:  # the last three stand behind the first
        assert lock.came.acquire(timeout=PATIENCE_S)
    hanging.set()
    for thread in threads:
        thread.join()
    assert (asked, follower.away) == (["0f"], "it hangs")


def settings_of(tiny: TinyBundle, **options: Any) -> Settings:
    return settings_for(tiny.bundle, **{"resident_lag": LAG_S, **options})


@dataclass(frozen=True, kw_only=True)
class Outage:
    """A server of the test's own, and two services over it that have read all of the corpus."""

    server: RedisServer
    one: httpx.Client
    other: httpx.Client
    store: StateStore
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
            app = create_app(with_texts, ServedBundle.load(with_texts, own))
            clients.append(stack.enter_context(running(app)))
            wait_until_ready(clients[-1])
        raw = stack.enter_context(redis.Redis.from_url(server.url))
        yield Outage(server=server, one=clients[0], other=clients[1], store=store, raw=raw)


def ask(client: httpx.Client, user: str = "u0", item: str = "i1", **headers: str) -> httpx.Response:
    return client.post("/predict", json={"pairs": [{"user": user, "item": item}]}, headers=headers)


def prediction(response: httpx.Response) -> dict[str, Any]:
    (one,) = response.raise_for_status().json()["predictions"]
    return dict(one)


def at_once(asked: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer, which has not waited for the server."""
    began = time.monotonic()
    answer = asked()
    assert time.monotonic() - began < AT_ONCE_S
    return answer


def is_not_ready(client: httpx.Client) -> bool:
    """It says so rather than rate everybody as a stranger."""
    answer = ask(client)
    return answer.status_code == 503 and bool(answer.json()["type"] == "urn:u-bert:problem:not-ready")


def has_no_states(client: httpx.Client) -> bool:
    """Nothing else keeps it from being ready."""
    return [reason["check"] for reason in client.get("/readyz").json().get("reasons", ())] == ["states"]


def assert_stands_in(client: httpx.Client, healthy: dict[str, Any]) -> None:
    """What is resident is answered, soon and with its age; what is not is refused with the reason."""
    wait_until(lambda: STALE_SECONDS in ask(client).headers)
    answer = at_once(lambda: ask(client))
    refused = at_once(lambda: ask(client, user="never heard of"))
    assert prediction(answer) == healthy
    assert float(answer.headers[STALE_SECONDS]) > LAG_S
    assert refused.status_code == 503
    assert refused.json()["type"] == "urn:u-bert:problem:store-unavailable"
    assert "Redis at 127.0.0.1" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) > 0
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert ask(client, **{READ_VERSION: "0f0f:99999999999999-0"}).status_code == 503


REVIEW = {"user": "u0", "item": "i13", "rating": 1, "text": "A bad board.", "timestamp": 99}


def test_a_killed_server_is_stood_in_for_and_one_that_returns_empty_is_believed(outage: Outage) -> None:
    healthy = prediction(ask(outage.one))
    assert healthy["basis"] == "full"
    outage.server.kill()
    for client in (outage.one, outage.other):
        assert_stands_in(client, healthy)
    assert outage.one.post("/reviews", json=REVIEW).status_code == 503
    outage.server.start()
    for client in (outage.one, outage.other):
        wait_until(partial(is_not_ready, client))
        assert STALE_SECONDS not in ask(client).headers
        wait_until(partial(has_no_states, client))


def test_a_server_that_hangs_is_stood_in_for_and_needs_no_restart_of_the_service(outage: Outage) -> None:
    healthy = prediction(ask(outage.one))
    outage.server.pause()
    for _ in range(10):  # before the store is found to be away, and after
        assert at_once(lambda: outage.one.get("/readyz")).status_code == 200
        time.sleep(0.1)
    assert_stands_in(outage.one, healthy)
    outage.server.resume()
    for process in (outage.one, outage.other):  # each finds out by itself
        wait_until(lambda process=process: process.get("/readyz").json()["status"] == "ready")
    written = outage.one.post("/reviews", json=REVIEW).raise_for_status()
    changed = prediction(ask(outage.other, **{READ_VERSION: written.headers[READ_VERSION]}))
    assert changed["rating"] != healthy["rating"]
    assert changed["missing_states"] == 0
    assert prediction(ask(outage.one)) == changed


def test_what_only_a_server_that_hangs_could_answer_holds_up_nothing_that_is_resident(outage: Outage) -> None:
    healthy = prediction(ask(outage.one))
    outage.server.pause()
    wait_until(lambda: STALE_SECONDS in ask(outage.one).headers)
    one = outage.one
    for _ in range(2):
        for asked in (
            lambda: one.get("/users/u0"),
            lambda: one.get("/items"),
            lambda: one.get("/candidate-sets"),
            lambda: one.put("/candidate-sets/some", json={"items": ["i1"]}),
            lambda: one.post("/rank", json={"user": "u0", "candidate_set": "some"}),
            lambda: one.post("/reviews", json=REVIEW),
            lambda: one.delete("/reviews/review-0", params={"user": "u0", "item": "i0"}),
            lambda: ask(one, **{READ_VERSION: "0f0f:99999999999999-0"}),
        ):
            answer = at_once(asked)
            assert answer.status_code == 503
            assert answer.json()["type"] == "urn:u-bert:problem:store-unavailable"
            assert prediction(at_once(lambda: ask(one))) == healthy


def test_a_rating_is_explained_without_its_texts_and_says_so_while_the_store_is_away(outage: Outage) -> None:
    def explained(**texts: Any) -> httpx.Response:
        return outage.one.post("/explain", json={"user": "u0", "item": "i1", **texts})

    outage.one.post("/reviews", json=REVIEW).raise_for_status()
    healthy = explained().raise_for_status().json()
    assert any(review["text"] for review in healthy["reviews"])
    assert not healthy["texts_unavailable"]
    outage.server.pause()
    wait_until(lambda: STALE_SECONDS in ask(outage.one).headers)
    answer = at_once(explained).raise_for_status()
    without = [{**review, "text": None, "token_spans": None} for review in healthy["reviews"]]
    assert answer.json() == {**healthy, "reviews": without, "texts_unavailable": True}
    assert float(answer.headers[STALE_SECONDS]) > LAG_S
    own = explained(user_texts=[{"text": "A good board."}]).raise_for_status().json()
    assert [review["text"] for review in own["reviews"] if review["text"]] == ["A good board."]


def test_a_server_without_memory_refuses_writes_deletes_all_the_same_and_predictions_stay_right(
    outage: Outage, corpus: Corpus
) -> None:
    healthy = prediction(ask(outage.one))
    outage.raw.config_set("maxmemory-policy", "noeviction")
    outage.raw.config_set("maxmemory", 1)
    refused = outage.one.post("/reviews", json=REVIEW)
    assert (refused.status_code, refused.json()["type"]) == (507, "urn:u-bert:problem:store-full")
    assert "out of memory" in refused.json()["detail"]
    assert prediction(ask(outage.one)) == prediction(ask(outage.other)) == healthy
    read = next(entry for entry in corpus.of_user("u0") if entry.item != "i1" and entry.rows)
    where = {"user": read.user, "item": read.item}
    removed = outage.one.delete(f"/reviews/{read.review_id}", params=where).raise_for_status()
    without = prediction(ask(outage.other, **{READ_VERSION: removed.headers[READ_VERSION]}))
    assert without["rating"] != healthy["rating"]
    assert prediction(ask(outage.one)) == without
    outage.raw.config_set("maxmemory", 0)
    outage.one.post("/reviews", json=REVIEW).raise_for_status()
    wait_until(lambda: prediction(ask(outage.other))["rating"] != without["rating"])


def test_a_revision_that_the_store_has_lost_is_refused_and_a_malformed_one_too(
    outage: Outage, tiny: TinyBundle
) -> None:
    version = tiny.bundle.manifest.namespace("fp32").version
    lost = ask(outage.one, **{READ_VERSION: f"{version}:99999999999999-0"})
    assert (lost.status_code, lost.json()["type"]) == (412, "urn:u-bert:problem:read-version-lost")
    assert ask(outage.one, **{READ_VERSION: "yesterday"}).status_code == 422


def test_the_store_is_asked_for_nothing_but_changes_once_all_is_resident(outage: Outage) -> None:
    def reads() -> int:
        stats = outage.raw.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("get", "mget", "hvals", "hgetall"))

    def ask_all() -> None:
        for user in range(8):
            prediction(ask(outage.one, user=f"u{user}"))

    ask_all()  # who has no reviews was not warmed
    before = reads()
    ask_all()
    assert reads() == before


def test_a_page_or_a_search_reads_no_resident_list_again_and_shows_what_another_process_has_just_written(
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


def test_metrics_tell_hits_misses_drops_bytes_and_age(outage: Outage) -> None:
    def metric(name: str) -> float:
        lines = outage.one.get("/metrics").raise_for_status().text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    wait_until_ready(outage.one)
    assert metric("ubert_residents_asked_total") == 0  # what warming reads nobody has asked for
    for user in ("u0", "newcomer"):
        prediction(ask(outage.one, user=user))
    assert metric('ubert_residents_asked_total{kind="lists",outcome="hit"}') == 3
    assert metric('ubert_residents_asked_total{kind="lists",outcome="miss"}') == 1
    assert metric("ubert_residents_bytes") > 10_000
    assert metric("ubert_residents_stale_seconds") == 0
    outage.one.post("/reviews", json=REVIEW).raise_for_status()
    assert metric("ubert_residents_dropped_total") >= 1
    outage.server.kill()
    wait_until(lambda: metric("ubert_residents_stale_seconds") > LAG_S)


@pytest.mark.parametrize("hangs", [True, False])
def test_a_check_from_before_a_failover_that_ends_after_it_finds_the_service_ready(
    tiny: TinyBundle, corpus: Corpus, redis_store: StateStore, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    """The store has failed the check, and the residents that stood in for it left when another server answered."""
    corpus.write(redis_store, tiny.bundle)
    forgotten, answered = threading.Event(), threading.Event()
    drop, changes = Residents.drop, redis_store.changes

    def dropping(residents: Residents, marks: frozenset[bytes] | None) -> None:
        drop(residents, marks)
        forgotten.set()

    def namespaces() -> list[Namespace]:
        monkeypatch.setattr(
            redis_store, "changes", lambda version, since: replace(changes(version, since), history="another server's")
        )
        assert forgotten.wait(PATIENCE_S)
        assert not hangs or answered.wait(PATIENCE_S)
        raise StoreUnavailableError("the former server is away")

    options = settings_of(tiny)
    with serving(options, redis_store) as client:
        wait_until_ready(client)
        monkeypatch.setattr(Residents, "drop", dropping)
        monkeypatch.setattr(redis_store, "namespaces", namespaces)
        answer = client.get("/readyz")
        answered.set()
    assert (answer.status_code, forgotten.is_set()) == (200, True), answer.text


def test_two_processes_over_one_directory_see_each_others_writes_at_once(
    tiny: TinyBundle, corpus: Corpus, lmdb_store: StateStore, tmp_path: Path
) -> None:
    corpus.write(lmdb_store, tiny.bundle)
    lmdb_store.close()
    arguments = ["--bundle", str(tiny.bundle.path), "--store", f"lmdb:{tmp_path / 'states'}", "--codec", "fp32"]
    arguments += ["--device", "cpu", "--threads", "1"]
    with ServeProcess(*arguments) as one, ServeProcess(*arguments) as other:
        for service in (one, other):
            wait_until_ready(service.client)
        before = prediction(ask(other.client))
        written = one.client.post("/reviews", json=REVIEW).raise_for_status().json()
        after = prediction(ask(other.client))
        where = {"user": REVIEW["user"], "item": REVIEW["item"]}
        one.client.delete(f"/reviews/{written['review_id']}", params=where).raise_for_status()
        assert after["rating"] != before["rating"]
        assert prediction(ask(other.client)) == before


def test_the_service_is_not_ready_before_it_is_warm_and_says_how_far_it_is(
    tiny: TinyBundle, corpus: Corpus, redis_store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.write(redis_store, tiny.bundle)
    go_on = threading.Event()
    read = redis_store.review_lists

    def slow(*arguments: Any, **named: Any) -> Any:
        assert go_on.wait(PATIENCE_S)
        return read(*arguments, **named)

    monkeypatch.setattr(redis_store, "review_lists", slow)
    served = ServedBundle.load(settings_of(tiny), redis_store)
    with running(create_app(settings_of(tiny), served)) as client:
        wait_until(lambda: "users and items" in client.get("/readyz").text)
        (reason,) = client.get("/readyz").json()["reasons"]
        assert reason["check"] == "residents"
        assert client.get("/healthz").status_code == 200
        go_on.set()
        wait_until_ready(client)


@pytest.mark.parametrize("max_bytes", [8_000, 16_000])
def test_where_memory_is_short_the_most_reviewed_are_warmed(
    tiny: TinyBundle,
    corpus: Corpus,
    runtime: OnnxRuntime,
    lmdb_store: StateStore,
    monkeypatch: pytest.MonkeyPatch,
    max_bytes: int,
) -> None:
    corpus.write(lmdb_store, tiny.bundle)
    replica = Replica(tiny=tiny, runtime=runtime, store=lmdb_store, max_bytes=max_bytes)
    keeper = ResidentsKeeper(
        replica.residents,
        store=lmdb_store,
        namespace=tiny.bundle.codec("fp32").namespace,
        max_bytes=max_bytes,
        max_lag_s=LAG_S,
        warm_s=PATIENCE_S,
    )
    most_reviewed = max({entry.user for entry in corpus.entries}, key=lambda user: len(corpus.of_user(user)))
    with keeper:
        wait_until(lambda: keeper.warming is None)
        monkeypatch.setattr(lmdb_store, "review_lists", lambda *_, **__: pytest.fail("it was not warmed"))
        (reviews,) = replica.residents.review_lists([most_reviewed], [])
    assert list(reviews) == corpus.of_user(most_reviewed)


def test_warming_ends_when_memory_is_full_and_nothing_has_been_displaced(
    tiny: TinyBundle, corpus: Corpus, redis_store: StateStore
) -> None:
    corpus.write(redis_store, tiny.bundle)
    some = settings_of(tiny, resident_bytes=30_000)
    with serving(some, redis_store) as client:
        wait_until_ready(client)
        text = client.get("/metrics").text
    (held,) = (float(line.split()[1]) for line in text.splitlines() if line.startswith("ubert_residents_bytes"))
    assert 20_000 < held <= 30_000
