"""Stores on a Redis Cluster of three primaries with a replica each, while primaries are killed and slots migrate."""

import gc
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pytest

from support.app_settings import settings_for
from support.redis_cluster import ClusterServers, redis_cluster
from support.store_contents import VERSION, namespace_of, numbered_reviews, review_of, user_reviews
from support.tiny_bundle import Corpus, TinyBundle
from ubert_model.errors import StoreUnavailableError, UnconfirmedWriteError
from ubert_model.review import ReviewEntry, Side
from ubert_model.states import MaintenanceStore, open_store
from ubert_model.states.keys import RedisKeys
from ubert_service.reading.histories import Pair
from ubert_service.serving.opened import OpenedBundle
from ubert_service.serving.served import ServedBundle

FEED = RedisKeys(VERSION).changes
USERS = [f"u{number}" for number in range(8)]


@pytest.fixture(autouse=True)
def ignored_warnings_of_removed_nodes() -> Iterator[None]:
    """redis-py leaves connections to removed nodes to the garbage collector, whose ``ResourceWarning`` would fail
    whichever test it runs in. So it runs after each of these tests, and the warning is ignored.
    """
    gc.disable()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    gc.enable()


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterServers]:
    """Every test leaves it with all servers running, and every primary with a replica in sync."""
    with redis_cluster(primaries=3, replicas=1) as servers:
        yield servers


@dataclass(frozen=True, kw_only=True)
class Stores:
    """On one cluster: one with ``wait_replicas=1``, one without options, and one with ``patience=30``."""

    confirmed: MaintenanceStore
    plain: MaintenanceStore
    patient: MaintenanceStore

    @property
    def all(self) -> tuple[MaintenanceStore, ...]:
        return (self.confirmed, self.plain, self.patient)


@pytest.fixture
def stores(cluster: ClusterServers) -> Iterator[Stores]:
    cluster.empty()
    with ExitStack() as stack:
        opened = Stores(
            **{
                name: stack.enter_context(closing(open_store(cluster.url + options)))
                for name, options in (("confirmed", "?wait_replicas=1"), ("plain", ""), ("patient", "?patience=30"))
            }
        )
        for store in opened.all:
            store.open_namespace(namespace_of())
        yield opened


def names_of(reviews: list[tuple[ReviewEntry, bytes]]) -> list[str]:
    return [entry.review_id for entry, _ in reviews]


def assert_holds(store: MaintenanceStore, reviews: list[tuple[ReviewEntry, bytes]]) -> None:
    assert store.states(VERSION, names_of(reviews)) == [state for _, state in reviews]
    assert not any(store.missing(VERSION, [entry for entry, _ in reviews]))


def test_a_write_that_the_replica_does_not_confirm_raises_and_can_be_repeated(
    cluster: ClusterServers, stores: Stores
) -> None:
    stores.confirmed.put(VERSION, numbered_reviews(100))
    (replica,) = cluster.replicas_of(cluster.primary_of(FEED))
    replica.pause()
    with pytest.raises(UnconfirmedWriteError, match="0 of the 1 replicas"):
        stores.confirmed.put(VERSION, [(review_of("r"), b"s")])
    replica.resume()
    cluster.wait_until_replicated()
    stores.confirmed.put(VERSION, [(review_of("r"), b"s")])
    assert_holds(stores.plain, [*numbered_reviews(100), (review_of("r"), b"s")])


def test_confirmed_writes_survive_a_failover_and_a_patient_store_waits_for_it(
    cluster: ClusterServers, stores: Stores
) -> None:
    reviews = numbered_reviews(500)
    idle = open_store(f"{cluster.url}?wait_replicas=1")
    idle.put(VERSION, reviews)
    written = stores.confirmed.put(VERSION, reviews)
    primary = cluster.primary_of(FEED)
    (replica,) = (cluster.clients[server] for server in cluster.replicas_of(primary))
    replica.config_set("cluster-replica-no-failover", "yes")  # until a store without patience has failed
    primary.kill()
    with pytest.raises(StoreUnavailableError):
        stores.plain.put(VERSION, reviews)
    replica.config_set("cluster-replica-no-failover", "no")
    later = [(review_of("later"), b"s")]
    stores.patient.put(VERSION, later)
    assert cluster.primary_of(FEED) is not primary
    for store in stores.all:
        assert_holds(store, [*reviews, *later])
        assert store.changes(VERSION, written).marks
    # No replica is left to confirm a write until the killed server runs again, as one.
    with pytest.raises(UnconfirmedWriteError):
        stores.confirmed.put(VERSION, later)
    primary.start()
    cluster.wait_until_replicated()
    for store in (stores.confirmed, idle):  # the idle one still takes the restarted server for the primary
        store.put(VERSION, later)
    idle.close()


@pytest.mark.parametrize("finished", [False, True])
def test_a_migrating_slot_is_read_and_written_wherever_its_keys_are(
    cluster: ClusterServers, stores: Stores, finished: bool
) -> None:
    reviews = numbered_reviews(50)
    start = stores.plain.put(VERSION, reviews)
    for store in stores.all:
        assert_holds(store, reviews)  # so that its client knows where the slots were
    moving = [FEED, RedisKeys(VERSION).reviews(Side.USER, "u0"), RedisKeys(VERSION).state("r7")]
    sources = [cluster.primary_of(key) for key in moving]
    targets = [next(one for one in cluster.owners() if one is not source) for source in sources]
    for key, target in zip(moving, targets, strict=True):
        source = cluster.begin_move(key, target)
        assert cluster.migrate_keys(key, source, target) > 0
        if finished:
            cluster.finish_move(key, source, target)
    for number, store in enumerate(stores.all):
        assert_holds(store, reviews)
        assert len(user_reviews(store, VERSION, ["u0"])[0]) == 50 + number
        later = (review_of("r7", "u0", "i7", timestamp=7), b"new %d" % number)
        end = store.put(VERSION, [later, (review_of(f"n{number}", "u0"), b"s")])
        assert store.states(VERSION, ["r7"]) == [later[1]]
        assert store.changes(VERSION, start).revision == end
        reviews[7] = later
    for key, source, target in zip(moving, sources, targets, strict=True):
        cluster.finish_move(key, source, target)
    for store in stores.all:
        assert_holds(store, reviews)
        assert store.changes(VERSION, start).revision == end


def test_keys_that_moved_to_a_server_without_slots_are_unavailable_until_their_slot_follows() -> None:
    with redis_cluster(primaries=1) as cluster, closing(open_store(cluster.url)) as store:
        store.open_namespace(namespace_of())
        store.put(VERSION, numbered_reviews(3))
        with cluster.extra_server() as target:
            source = cluster.begin_move(FEED, target)
            cluster.migrate_keys(FEED, source, target)
            with pytest.raises(StoreUnavailableError, match="ahead of its slot"):
                store.put(VERSION, numbered_reviews(1))
            cluster.finish_move(FEED, source, target)
            store.put(VERSION, numbered_reviews(1))
            assert_holds(store, numbered_reviews(3))


def test_residents_are_read_again_after_a_failover_that_lost_a_write(
    cluster: ClusterServers, tiny: TinyBundle, corpus: Corpus
) -> None:
    cluster.empty()
    with closing(open_store(cluster.url)) as store:
        corpus.write(store, tiny.bundle)
        resident, fresh = (
            ServedBundle(OpenedBundle.open(settings), store)
            for settings in (settings_for(tiny.bundle, resident_lag=0), settings_for(tiny.bundle, resident_bytes=0))
        )
        keys = RedisKeys(fresh.namespace.version)
        feed = cluster.primary_of(keys.changes)
        lost = next(user for user in USERS if cluster.primary_of(keys.reviews(Side.USER, user)) is not feed)
        pairs = [Pair(lost, item) for item in ("i0", "i1", "i2")]
        before = resident.engine.score(pairs)
        primary = cluster.primary_of(keys.reviews(Side.USER, lost))
        cluster.cut_off_replicas(primary)
        store.delete(fresh.namespace.version, corpus.of_user(lost)[:1])
        after = resident.engine.score(pairs)
        assert after == fresh.engine.score(pairs) != before
        primary.kill()
        cluster.wait_for_failover(primary, keys.reviews(Side.USER, lost))
        primary.start()
        cluster.wait_until_replicated()
        assert resident.engine.score(pairs) == fresh.engine.score(pairs) != after
