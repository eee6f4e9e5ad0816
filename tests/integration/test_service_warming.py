"""Warming of the cache from a store that holds damaged entries, or that fails."""

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from support.app_settings import settings_for
from support.metrics import metric
from support.running_app import running, wait_until_ready
from support.tiny_bundle import Corpus, TinyBundle
from support.waiting import wait_until
from ubert_model.errors import StoreUnavailableError
from ubert_model.review import Side
from ubert_model.states import Changes, MaintenanceStore
from ubert_model.states.keys import RedisKeys
from ubert_service.app import create_app
from ubert_service.resident import keeper
from ubert_service.serving.opened import OpenedBundle
from ubert_service.serving.readiness import obstacles_on_timeout
from ubert_service.serving.served import ServedBundle

TIMEOUT_S = 60.0


def test_entities_that_cannot_be_read_are_skipped_by_warming_and_logged_once(
    tiny: TinyBundle,
    corpus: Corpus,
    filled_redis_store: MaintenanceStore,
    own_redis_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    version = tiny.bundle.manifest.namespace("fp32").version
    users, items = {entry.user for entry in corpus.entries}, {entry.item for entry in corpus.entries}
    newest_first = sorted(corpus.entries, key=lambda entry: entry.recency, reverse=True)
    of_damaged_state = next(entry for entry in newest_first if entry.rows)
    of_damaged_entry = next(entry for entry in corpus.entries if entry.user != of_damaged_state.user)
    filled_redis_store.put(version, [(of_damaged_state, b"UBRS and nothing more")])
    with redis.Redis.from_url(own_redis_url) as client:
        of_user = RedisKeys(version).reviews(Side.USER, of_damaged_entry.user).decode()
        client.hset(of_user, of_damaged_entry.review_id, b"not an entry")

    settings = settings_for(tiny.bundle)
    app = create_app(settings, OpenedBundle.open(settings), filled_redis_store)
    with caplog.at_level(logging.INFO), running(app) as client:
        wait_until_ready(client)
        whole_users = users - {of_damaged_state.user, of_damaged_entry.user}
        reviewed = {(entry.user, entry.item) for entry in corpus.entries}
        pairs = {(user, item) for user in whole_users for item in items - {of_damaged_state.item}}
        undamaged = [{"user": user, "item": item} for user, item in sorted(pairs - reviewed)]
        before = metric(client, "ubert_residents_asked_total", outcome="miss")
        client.post("/predict", json={"pairs": undamaged}).raise_for_status()
        assert metric(client, "ubert_residents_asked_total", outcome="miss") == before, (
            "an undamaged entity was not warmed"
        )

    (logged,) = (record.getMessage() for record in caplog.records if "skipped" in record.getMessage())
    assert "3 users and items that cannot be read" in logged
    assert "verify --repair" in logged
    assert f"residents: loaded {len(users | items) - 3} of {len(users | items)} users and items" in caplog.text
    assert "warming ended early" not in caplog.text


def wait_until_warm(served: ServedBundle) -> None:
    wait_until(lambda: served.keeper.warming is None)


def warmed(served: ServedBundle) -> ServedBundle:
    """The same bundle, with its cache warm."""
    with served.keeper:
        wait_until_warm(served)
    return served


@pytest.mark.parametrize("method", ["namespaces", "list_lengths", "review_lists", "states"])
def test_warming_survives_temporary_failures_of_the_store(
    tiny: TinyBundle, filled_store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    settings = settings_for(tiny.bundle)
    expected = warmed(ServedBundle(OpenedBundle.open(settings), filled_store))
    served = ServedBundle(OpenedBundle.open(settings), filled_store)
    call, failures = getattr(filled_store, method), iter(2 * [StoreUnavailableError("it is loading its data")])

    def failing(*arguments: Any, **named: Any) -> Any:
        for failure in failures:
            raise failure
        return call(*arguments, **named)

    monkeypatch.setattr(filled_store, method, failing)
    warmed(served)
    assert served.residents.held_bytes == expected.residents.held_bytes > 0
    assert list(failures) == []


def test_while_nothing_is_resident_readiness_says_why_the_store_does_not_answer(
    tiny: TinyBundle, lmdb_store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ServedBundle(OpenedBundle.open(settings_for(tiny.bundle)), lmdb_store)

    def fail(*_: object) -> Changes:
        raise StoreUnavailableError("certificate has expired")

    (unknown,) = obstacles_on_timeout(served, "no answer")
    monkeypatch.setattr(lmdb_store, "changes", fail)
    served.residents.follower.poll()
    (known,) = obstacles_on_timeout(served, "no answer")
    assert (unknown.found, "overloaded" in unknown.remedy) == ("no answer", True)
    assert (known.found, "overloaded" in known.remedy) == ("certificate has expired", False)


@pytest.mark.parametrize(
    ("failure", "logged"),
    [(StoreUnavailableError("it refuses"), "WARNING"), (AttributeError("unexpected"), "Traceback")],
)
def test_over_a_failing_store_warming_ends_in_time_and_polling_begins(
    tiny: TinyBundle,
    filled_store: MaintenanceStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
    logged: str,
) -> None:
    served = ServedBundle(OpenedBundle.open(settings_for(tiny.bundle, warm_seconds=60.0)), filled_store)
    now = 0.0

    def failing(*_: Any, **__: Any) -> Any:
        nonlocal now
        now += 61.0
        raise failure

    changes, polled = filled_store.changes, threading.Event()

    def recorded(*arguments: Any) -> Any:
        polled.set()
        return changes(*arguments)

    monkeypatch.setattr(keeper, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(filled_store, "states", failing)
    with served.keeper:
        wait_until_warm(served)
        monkeypatch.setattr(filled_store, "changes", recorded)
        assert polled.wait(TIMEOUT_S)
    assert "warming ended early" in caplog.text
    assert str(failure) in caplog.text
    assert logged in caplog.text


@pytest.mark.parametrize(("resident_bytes", "batch_bytes"), [(1 << 24, 1_500), (36_000, 1 << 24)])
def test_warming_reads_in_small_batches_and_no_more_than_the_cache_can_hold(
    tiny: TinyBundle,
    corpus: Corpus,
    lmdb_store: MaintenanceStore,
    monkeypatch: pytest.MonkeyPatch,
    resident_bytes: int,
    batch_bytes: int,
) -> None:
    monkeypatch.setattr(keeper, "_LEAST_ENTITY_BYTES", 1)  # the entities of this corpus are smaller
    monkeypatch.setattr(keeper, "_BATCH_BYTES", batch_bytes)
    largest_batch = min(batch_bytes, resident_bytes / 4)
    corpus.write(lmdb_store, tiny.bundle)
    settings = settings_for(tiny.bundle, resident_bytes=resident_bytes)
    state_bytes = {name: states.nbytes for name, states in corpus.states.items()}
    list_lengths = Counter(name for entry in corpus.entries for name in (entry.user, entry.item))
    states, review_lists = lmdb_store.states, lmdb_store.review_lists
    states_read: list[list[int]] = []
    lengths_read: list[list[int]] = []

    def recorded_states(version: str, review_ids: Sequence[str]) -> Any:
        states_read.append([state_bytes[name] for name in review_ids])
        return states(version, review_ids)

    def recorded_lists(version: str, *, users: Sequence[str], items: Sequence[str]) -> Any:
        lengths_read.append([list_lengths[name] for name in (*users, *items)])
        return review_lists(version, users=users, items=items)

    monkeypatch.setattr(lmdb_store, "states", recorded_states)
    monkeypatch.setattr(lmdb_store, "review_lists", recorded_lists)
    residents = warmed(ServedBundle(OpenedBundle.open(settings), lmdb_store)).residents
    assert len(states_read) > 1
    assert all(sum(sizes) <= largest_batch or len(sizes) == 1 for sizes in states_read)
    assert all(keeper._ENTRY_BYTES * sum(lengths) <= largest_batch or len(lengths) == 1 for lengths in lengths_read)
    assert sum(map(sum, states_read)) <= resident_bytes
    assert 20_000 < residents.held_bytes <= resident_bytes
