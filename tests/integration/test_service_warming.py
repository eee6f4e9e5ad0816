"""A service that fills its memory before it is ready, over a store with damage in it."""

import logging

import pytest
import redis

from support.app_settings import settings_for
from support.running_app import running, wait_until_ready
from support.tiny_bundle import Corpus, TinyBundle
from ubert_model.states import Side, StateStore
from ubert_model.states.keys import RedisKeys
from ubert_service.app import create_app
from ubert_service.serving.served import ServedBundle


def test_what_cannot_be_read_is_left_out_of_warming_and_told_once(
    tiny: TinyBundle,
    corpus: Corpus,
    redis_store: StateStore,
    own_redis_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    corpus.write(redis_store, tiny.bundle)
    version = tiny.bundle.manifest.namespace("fp32").version
    users, items = {entry.user for entry in corpus.entries}, {entry.item for entry in corpus.entries}
    newest_first = sorted(corpus.entries, key=lambda entry: entry.recency, reverse=True)
    of_damaged_state = next(entry for entry in newest_first if entry.tokens)
    of_damaged_line = next(entry for entry in corpus.entries if entry.user != of_damaged_state.user)
    redis_store.put(version, [(of_damaged_state, b"UBRS and nothing more")])
    with redis.Redis.from_url(own_redis_url) as client:
        of_user = RedisKeys(version).reviews(Side.USER, of_damaged_line.user).decode()
        client.hset(of_user, of_damaged_line.review_id, b"not a line")

    settings = settings_for(tiny.bundle)
    app = create_app(settings, ServedBundle.load(settings, redis_store))
    with caplog.at_level(logging.INFO), running(app) as client:
        wait_until_ready(client)
        whole_users = users - {of_damaged_state.user, of_damaged_line.user}
        reviewed = {(entry.user, entry.item) for entry in corpus.entries}
        pairs = {(user, item) for user in whole_users for item in items - {of_damaged_state.item}}
        asked = [{"user": user, "item": item} for user, item in sorted(pairs - reviewed)]
        before = resident_misses(client.get("/metrics").text)
        client.post("/predict", json={"pairs": asked}).raise_for_status()
        assert resident_misses(client.get("/metrics").text) == before, "something whole was not warmed"

    (told,) = (record.getMessage() for record in caplog.records if "left out" in record.getMessage())
    assert "3 users and items cannot be read" in told
    assert "verify --repair" in told
    assert f"residents: {len(users | items) - 3} of {len(users | items)} entities" in caplog.text
    assert "warming ended early" not in caplog.text


def resident_misses(metrics: str) -> list[str]:
    return [line for line in metrics.splitlines() if "residents_asked_total{" in line and '"miss"' in line]
