"""A store behind sentinels, and a service on it: the primary is killed, and they continue with the promoted replica."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import httpx
import pytest
import redis

from support.app_settings import settings_for
from support.problems import problem_of
from support.redis_server import RedisServer, SentinelServer, free_port
from support.running_app import serving, wait_until_ready
from support.store_contents import VERSION, namespace_of, numbered_reviews
from support.tiny_bundle import Corpus, TinyBundle
from support.waiting import wait_until
from ubert_model.errors import StoreUnavailableError
from ubert_model.states import open_store

SILENT_MS = 5_000
"""Long enough to find the service degraded, and to have a review refused, even on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A primary, its replica, and the URL of a store that asks a sentinel for the current primary."""

    primary: RedisServer
    replica: RedisServer
    url: str


@pytest.fixture
def watched() -> Iterator[Watched]:
    with ExitStack() as stack:
        primary = stack.enter_context(RedisServer())
        replica = stack.enter_context(RedisServer("--replicaof", "127.0.0.1", str(primary.port)))
        with redis.Redis(port=replica.port) as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up")
        sentinel = stack.enter_context(SentinelServer(primary, silent_ms=SILENT_MS))
        with redis.Redis(port=sentinel.port) as client:
            wait_until(lambda: bool(client.sentinel_slaves(sentinel.SERVICE)))
        # Nothing listens at the first of the two addresses: one sentinel that answers is enough.
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}"
        yield Watched(primary=primary, replica=replica, url=f"redis+sentinel://{hosts}/{sentinel.SERVICE}/0")


def test_an_open_store_fails_over_to_the_replica_with_all_confirmed_writes(watched: Watched) -> None:
    reviews = numbered_reviews(300)
    with (
        closing(open_store(f"{watched.url}?wait_replicas=1")) as confirmed,
        closing(open_store(watched.url)) as store,
        closing(open_store(f"{watched.url}?patience=30")) as patient,
    ):
        confirmed.open_namespace(namespace_of())
        written = confirmed.put(VERSION, reviews)
        history = store.changes(VERSION, written).history
        watched.primary.kill()
        with pytest.raises(StoreUnavailableError, match="and 1 more cannot be reached"):
            store.put(VERSION, reviews)
        assert patient.put(VERSION, reviews[:1]) > written
        for one in (store, patient, confirmed):
            assert one.states(VERSION, [entry.review_id for entry, _ in reviews]) == [state for _, state in reviews]
            assert not any(one.missing(VERSION, [entry for entry, _ in reviews]))
        assert store.changes(VERSION, written).history != history


def test_the_service_is_degraded_until_the_replica_is_promoted_and_then_accepts_reviews(
    watched: Watched, tiny: TinyBundle, corpus: Corpus
) -> None:
    request = {"pairs": [{"user": "u0", "item": "i1"}]}
    review = {"user": "u0", "item": "i13", "rating": 1, "text": "A bad board.", "timestamp": 99}
    with closing(open_store(watched.url)) as store:
        corpus.write(store, tiny.bundle)
        with serving(settings_for(tiny.bundle, resident_lag=0.2), store) as client:
            wait_until_ready(client)
            healthy = client.post("/predict", json=request).json()["predictions"]
            watched.primary.kill()
            wait_until(lambda: "cannot be reached" in degraded(client))
            assert client.post("/predict", json=request).json()["predictions"] == healthy
            refused = client.post("/reviews", json=review)
            assert problem_of(refused) == (503, "store-unavailable")
            wait_until(lambda: degraded(client) == "")
            assert client.post("/predict", json=request).json()["predictions"] == healthy
            client.post("/reviews", json=review).raise_for_status()
            assert client.post("/predict", json=request).json()["predictions"] != healthy


def degraded(client: httpx.Client) -> str:
    """Why the service is degraded, by ``/readyz``; empty if it is not."""
    answer = client.get("/readyz")
    assert answer.is_success, answer.text
    return str(answer.json().get("detail", ""))
