"""Damaged data is repaired as far as the store itself can, and a copy or a repair that is killed loses nothing."""

import struct
import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from support.killed_writes import runs_through
from support.store_contents import VERSION, contents, namespace_of, review_of
from ubert_model.errors import CorruptStateError
from ubert_model.states import (
    FinishedShard,
    MaintenanceStore,
    NamespaceRepair,
    ReviewEntry,
    Side,
    check_namespace,
    checking,
    copy_namespace,
    lmdb_store,
    make_codec,
    open_store,
    repair_namespace,
)
from ubert_model.states.keys import LmdbKeys, RedisKeys
from ubert_model.states.lmdb_store import LmdbStore
from ubert_model.states.records import pack_line

# Of three users and two items, so that every list has other lines than the one that a test damages.
ENTRIES = [review_of(f"r{number}", f"u{number % 3}", f"i{number % 2}", timestamp=number) for number in range(12)]
TEXTS = [(entry.review_id, f"text of {entry.review_id}") for entry in ENTRIES[:-1]]
HARMED, OTHER = ENTRIES[4], ENTRIES[7]


@pytest.fixture(params=["lmdb", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"lmdb:{tmp_path / 'states'}" if request.param == "lmdb" else str(request.getfixturevalue("own_redis_url"))


@pytest.fixture
def store(url: str) -> Iterator[MaintenanceStore]:
    opened = open_store(url)
    fill(opened)
    yield opened
    opened.close()


@pytest.mark.parametrize("side", Side)
def test_a_damaged_line_comes_back_from_the_other_list(store: MaintenanceStore, url: str, side: Side) -> None:
    whole = contents(store, VERSION)
    since = store.changes(VERSION, None).revision
    damage(store, url, side, HARMED)
    with pytest.raises(CorruptStateError, match=r"ubert states verify --repair`, then `ubert precompute"):
        store.review_lists(VERSION, users=[HARMED.user], items=[HARMED.item])
    result = repair(store)
    assert (result.repaired, result.problems) == (1, 0)
    assert contents(store, VERSION) == whole
    assert store.changes(VERSION, since).marks != frozenset(), "whoever keeps a copy of the list was not told"


def test_a_review_of_which_no_line_is_left_is_missing_and_the_rest_of_its_lists_is_not(
    store: MaintenanceStore, url: str
) -> None:
    for side in Side:
        damage(store, url, side, HARMED)
    assert store.missing(VERSION, [HARMED]) == [False], "precompute alone would not write it again"
    result = repair(store)
    assert sorted(result.lost_lines) == [f"item {HARMED.item!r}", f"user {HARMED.user!r}"]
    assert store.missing(VERSION, ENTRIES) == [entry == HARMED for entry in ENTRIES]
    store.put(VERSION, [(HARMED, state_of(HARMED))])
    assert check_namespace(store, namespace_of()).problems == 0


def test_a_damaged_line_of_a_review_without_a_state_leaves_it_missing(store: MaintenanceStore, url: str) -> None:
    store.delete_states(VERSION, [HARMED.review_id])
    damage(store, url, Side.USER, HARMED)
    result = repair(store)
    assert (result.missing, result.lost_lines) == ([HARMED.review_id], [f"user {HARMED.user!r}"])
    assert store.missing(VERSION, [HARMED]) == [True]


def test_a_review_with_a_damaged_line_and_a_damaged_state_keeps_its_rating_in_both_lists(
    store: MaintenanceStore, url: str
) -> None:
    store.put(VERSION, [(HARMED, state_of(HARMED)[:-1])])
    damage(store, url, Side.ITEM, HARMED)
    result = repair(store)
    assert (result.repaired, result.missing, result.lost_lines) == (1, [HARMED.review_id], [])
    assert HARMED in store.user_reviews(VERSION, [HARMED.user])[0]
    assert HARMED in store.item_reviews(VERSION, [HARMED.item])[0]
    assert store.missing(VERSION, [HARMED]) == [True]


def test_after_a_repair_reviews_of_a_damaged_list_are_written_and_deleted_again(
    store: MaintenanceStore, url: str
) -> None:
    damage(store, url, Side.USER, HARMED)
    repair(store)
    new = review_of("new", HARMED.user, "i9", timestamp=99)
    store.put(VERSION, [(new, state_of(new))])
    store.delete(VERSION, [HARMED])
    listed = store.user_reviews(VERSION, [HARMED.user])[0]
    assert new in listed
    assert HARMED not in listed
    assert check_namespace(store, namespace_of()).problems == 0


def test_a_whole_line_of_an_unknown_format_is_no_damage_and_stays(store: MaintenanceStore, url: str) -> None:
    body = b"\x02" + pack_line(HARMED, Side.USER)[1:-4]
    newer = body + struct.pack("<I", zlib.crc32(body))
    damage(store, url, Side.USER, HARMED, newer)
    result = repair(store)
    assert [(one.side, one.entity) for one in result.unreadable] == [(Side.USER, HARMED.user)]
    assert result.problems == 1
    assert newer in store.lines(VERSION, Side.USER, HARMED.user).values()


def test_a_repair_killed_at_any_write_and_run_again_loses_no_line_and_no_text(
    store: MaintenanceStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(store, VERSION)
    for writes in count():
        fill(store)
        damage(store, url, Side.USER, HARMED)
        damage(store, url, Side.ITEM, OTHER)
        finished = runs_through(lambda: repair(store), writes, monkeypatch)
        repair(store)
        assert contents(store, VERSION) == whole, f"killed after {writes} writes"
        if finished:
            break
    assert writes >= 2


def test_a_copy_killed_at_any_write_and_run_again_brings_every_text(
    store: MaintenanceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_store(f"lmdb:{tmp_path / 'source'}")
    fill(source)
    for writes in count():
        store.drop_namespace(VERSION)
        store.open_namespace(namespace_of())
        # One is there in part, with a text that is another's, and one whole.
        store.put(VERSION, [(entry, state_of(entry)) for entry in (ENTRIES[-1], OTHER)])
        store.put_texts(VERSION, [(ENTRIES[-1].review_id, "another's"), (OTHER.review_id, "its own")])
        store.delete_states(VERSION, [ENTRIES[-1].review_id])
        copy = lambda: copy_namespace(source, store, VERSION, reviews_a_batch=5)  # noqa: E731
        finished = runs_through(copy, writes, monkeypatch)
        copy()
        assert contents(store, VERSION) == contents(source, VERSION) | {
            "texts": dict(TEXTS) | {ENTRIES[-1].review_id: None, OTHER.review_id: "its own"}
        }, f"killed after {writes} writes"
        if finished:
            break
    assert writes >= 3
    source.close()


def test_a_repair_killed_at_any_write_and_run_again_finds_what_one_list_lacks_of_a_damaged_state(
    store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for writes in count():
        fill(store)
        store.put(VERSION, [(HARMED, state_of(HARMED)[:-1])])
        lines = store.lines(VERSION, Side.USER, HARMED.user).items()
        store.remove_lines(VERSION, Side.USER, HARMED.user, [name for name, line in lines if b"r4" in line])
        finished = runs_through(lambda: repair(store), writes, monkeypatch)
        repair(store)
        assert HARMED in store.user_reviews(VERSION, [HARMED.user])[0], f"killed after {writes} writes"
        if finished:
            break
    assert writes >= 2


def test_a_drop_killed_at_any_write_claims_no_share_that_it_has_begun_to_remove_and_can_be_repeated(
    store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_store, "_KEYS_PER_DROP", 5)
    for writes in count():
        fill(store)
        store.finish_shard(VERSION, FinishedShard(corpus="c", shards=1, number=1, reviews=len(ENTRIES)))
        before = store.changes(VERSION, None).revision
        finished = runs_through(lambda: store.drop_namespace(VERSION), writes, monkeypatch)
        if any(store.missing(VERSION, ENTRIES)):
            assert store.finished_shards(VERSION) == [], f"killed after {writes} writes"
            assert not store.local or store.changes(VERSION, before).marks is None
        if any(store.states(VERSION, [entry.review_id for entry in ENTRIES])):
            assert store.namespaces() == [namespace_of()]
        if finished:
            break
    assert writes >= 3


def test_a_copy_passes_over_a_review_whose_state_is_lost(store: MaintenanceStore, tmp_path: Path) -> None:
    store.delete_states(VERSION, [HARMED.review_id])
    target = open_store(f"lmdb:{tmp_path / 'target'}")
    heard: list[int] = []
    assert copy_namespace(store, target, VERSION, users_a_batch=2, advance=heard.append) == len(ENTRIES) - 1
    assert heard == [2, 1]
    assert target.missing(VERSION, ENTRIES) == [entry == HARMED for entry in ENTRIES]
    target.close()


def test_every_list_and_state_is_checked_however_many_there_are(
    store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "ENTITIES_A_BATCH", 2)
    monkeypatch.setattr(checking, "STATES_A_BATCH", 3)
    monkeypatch.setattr(checking, "STATES_A_SCAN", 5)
    heard: list[int] = []
    assert check_namespace(store, namespace_of(), heard.append).problems == 0
    assert sum(heard) == len(ENTRIES)
    names = [entry.review_id for entry in ENTRIES]
    store.delete_states(VERSION, names)
    check = check_namespace(store, namespace_of())
    assert (check.reviews, sorted(check.missing)) == (len(ENTRIES), sorted(names))


def test_a_review_that_is_written_during_a_check_is_not_taken_for_one_that_no_list_names(
    store: MaintenanceStore,
) -> None:
    class WrittenMeanwhile:
        def __getattr__(self, name: str) -> Any:
            if name == "state_sizes":  # asked once the lists were read
                new = review_of("new")
                store.put(VERSION, [(new, state_of(new))])
            return getattr(store, name)

    assert check_namespace(WrittenMeanwhile(), namespace_of()).unlisted == []


def fill(store: MaintenanceStore) -> None:
    store.open_namespace(namespace_of())
    store.put(VERSION, [(entry, state_of(entry)) for entry in ENTRIES])
    store.put_texts(VERSION, TEXTS)


def state_of(entry: ReviewEntry) -> bytes:
    return make_codec(namespace_of()).encode(np.ones((entry.rows, 8), dtype=np.float32))


def repair(store: MaintenanceStore) -> NamespaceRepair:
    return repair_namespace(store, namespace_of(), check_namespace(store, namespace_of()))


def damage(store: MaintenanceStore, url: str, side: Side, entry: ReviewEntry, line: bytes = b"not a line") -> None:
    """Change one line behind the store's back."""
    if isinstance(store, LmdbStore):
        key = LmdbKeys(VERSION).line(side, entry)
        store._directory.transact(lambda transaction: transaction.put(key, line), write=True)
        return
    with redis.Redis.from_url(url) as client:
        client.hset(RedisKeys(VERSION).reviews(side, side.entity(entry)).decode(), entry.review_id, line)
