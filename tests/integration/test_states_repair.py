"""Checks and repairs of damaged namespaces; repairs, copies and drops that are killed and run again."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from support.killed_writes import finishes_before_kill
from support.store_contents import VERSION, contents, item_reviews, namespace_of, review_of, user_reviews
from ubert_model.errors import CorruptStateError
from ubert_model.review import ReviewEntry, Side
from ubert_model.states import (
    FinishedShard,
    MaintenanceStore,
    NamespaceRepair,
    check_namespace,
    checking,
    copy_namespace,
    copying,
    lmdb_store,
    make_codec,
    open_store,
    repair_namespace,
)
from ubert_model.states.checking import listed_reviews
from ubert_model.states.keys import LmdbKeys, RedisKeys
from ubert_model.states.lmdb_store import LmdbStore
from ubert_model.states.records import pack_line

# Of three users and two items, so that every list has further lines besides the one that a test damages.
ENTRIES = [review_of(f"r{number}", f"u{number % 3}", f"i{number % 2}", timestamp=number) for number in range(12)]
TEXTS = [(entry.review_id, f"text of {entry.review_id}") for entry in ENTRIES[:-1]]
DAMAGED, OTHER = ENTRIES[4], ENTRIES[7]


@pytest.fixture
def store(store_url: str) -> Iterator[MaintenanceStore]:
    opened = open_store(store_url)
    fill(opened)
    yield opened
    opened.close()


@pytest.mark.parametrize("side", Side)
def test_a_damaged_line_is_restored_from_the_other_list(store: MaintenanceStore, store_url: str, side: Side) -> None:
    intact = contents(store, VERSION)
    since = store.changes(VERSION, None).revision
    damage(store, store_url, side, DAMAGED)
    with pytest.raises(CorruptStateError, match=r"ubert states verify --repair`, then `ubert precompute"):
        store.review_lists(VERSION, users=[DAMAGED.user], items=[DAMAGED.item])
    result = repair(store)
    assert (result.repaired, result.problems) == (1, 0)
    assert contents(store, VERSION) == intact
    assert store.changes(VERSION, since).marks != frozenset(), "the repair was not announced"


def test_a_review_that_lost_both_lines_is_missing_and_no_other_is(store: MaintenanceStore, store_url: str) -> None:
    for side in Side:
        damage(store, store_url, side, DAMAGED)
    assert store.missing(VERSION, [DAMAGED]) == [False]  # so precompute would not write it without a repair
    result = repair(store)
    assert sorted(result.lost_lines) == [f"item {DAMAGED.item!r}", f"user {DAMAGED.user!r}"]
    assert store.missing(VERSION, ENTRIES) == [entry == DAMAGED for entry in ENTRIES]
    store.put(VERSION, [(DAMAGED, state_of(DAMAGED))])
    assert check_namespace(store, namespace_of()).problems == 0


def test_a_review_with_a_damaged_line_and_no_state_stays_missing(store: MaintenanceStore, store_url: str) -> None:
    store.delete_states(VERSION, [DAMAGED.review_id])
    damage(store, store_url, Side.USER, DAMAGED)
    result = repair(store)
    assert (result.missing, result.lost_lines) == ([DAMAGED.review_id], [f"user {DAMAGED.user!r}"])
    assert store.missing(VERSION, [DAMAGED]) == [True]


def test_a_review_with_a_damaged_line_and_a_damaged_state_keeps_its_rating_in_both_lists(
    store: MaintenanceStore, store_url: str
) -> None:
    store.put(VERSION, [(DAMAGED, state_of(DAMAGED)[:-1])])
    damage(store, store_url, Side.ITEM, DAMAGED)
    result = repair(store)
    assert (result.repaired, result.missing, result.lost_lines) == (1, [DAMAGED.review_id], [])
    assert DAMAGED in user_reviews(store, VERSION, [DAMAGED.user])[0]
    assert DAMAGED in item_reviews(store, VERSION, [DAMAGED.item])[0]
    assert store.missing(VERSION, [DAMAGED]) == [True]


def test_reviews_are_put_into_and_deleted_from_a_repaired_list(store: MaintenanceStore, store_url: str) -> None:
    damage(store, store_url, Side.USER, DAMAGED)
    repair(store)
    new = review_of("new", DAMAGED.user, "i9", timestamp=99)
    store.put(VERSION, [(new, state_of(new))])
    store.delete(VERSION, [DAMAGED])
    listed = user_reviews(store, VERSION, [DAMAGED.user])[0]
    assert new in listed
    assert DAMAGED not in listed
    assert check_namespace(store, namespace_of()).problems == 0


def test_an_intact_line_of_an_unknown_format_is_reported_and_kept(store: MaintenanceStore, store_url: str) -> None:
    body = b"\x03" + pack_line(DAMAGED, Side.USER)[1:-4]
    newer = body + struct.pack("<I", zlib.crc32(body))
    damage(store, store_url, Side.USER, DAMAGED, newer)
    result = repair(store)
    assert [(one.side, one.entity) for one in result.unreadable] == [(Side.USER, DAMAGED.user)]
    assert result.problems == 1
    assert newer in store.lines(VERSION, Side.USER, DAMAGED.user).values()


def test_a_repair_killed_at_any_write_and_run_again_loses_no_line_or_text(
    store: MaintenanceStore, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    intact = contents(store, VERSION)
    for writes in count():
        fill(store)
        damage(store, store_url, Side.USER, DAMAGED)
        damage(store, store_url, Side.ITEM, OTHER)
        finished = finishes_before_kill(lambda: repair(store), writes, monkeypatch)
        repair(store)
        assert contents(store, VERSION) == intact, f"killed after {writes} writes"
        if finished:
            break
    assert writes >= 2


def test_a_copy_killed_at_any_write_and_run_again_copies_every_text(
    store: MaintenanceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_store(f"lmdb:{tmp_path / 'source'}")
    fill(source)
    monkeypatch.setattr(copying, "REVIEWS_A_BATCH", 5)
    for writes in count():
        store.drop_namespace(VERSION)
        store.open_namespace(namespace_of())
        # Of one review the target has a part, with an outdated text; another it has complete, with a text of its own.
        store.put(VERSION, [(entry, state_of(entry)) for entry in (ENTRIES[-1], OTHER)])
        store.put_texts(VERSION, [(ENTRIES[-1].review_id, "outdated"), (OTHER.review_id, "its own")])
        store.delete_states(VERSION, [ENTRIES[-1].review_id])
        copy = partial(copy_namespace, source, store, VERSION)
        finished = finishes_before_kill(copy, writes, monkeypatch)
        copy()
        assert contents(store, VERSION) == contents(source, VERSION) | {
            "texts": dict(TEXTS) | {ENTRIES[-1].review_id: None, OTHER.review_id: "its own"}
        }, f"killed after {writes} writes"
        if finished:
            break
    assert writes >= 3
    source.close()


def test_a_repair_killed_at_any_write_and_run_again_completes_the_lists_of_a_damaged_state(
    store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for writes in count():
        fill(store)
        store.put(VERSION, [(DAMAGED, state_of(DAMAGED)[:-1])])
        lines = store.lines(VERSION, Side.USER, DAMAGED.user).items()
        store.remove_lines(
            VERSION, Side.USER, DAMAGED.user, [name for name, line in lines if DAMAGED.review_id.encode() in line]
        )
        finished = finishes_before_kill(lambda: repair(store), writes, monkeypatch)
        repair(store)
        assert DAMAGED in user_reviews(store, VERSION, [DAMAGED.user])[0], f"killed after {writes} writes"
        if finished:
            break
    assert writes >= 2


def test_a_drop_killed_at_any_write_leaves_no_incomplete_shard_recorded_as_finished(
    store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_store, "_KEYS_PER_DROP", 5)
    for writes in count():
        fill(store)
        store.finish_shard(VERSION, FinishedShard(corpus="c", shards=1, number=1, reviews=len(ENTRIES)))
        before = store.changes(VERSION, None).revision
        finished = finishes_before_kill(lambda: store.drop_namespace(VERSION), writes, monkeypatch)
        if any(store.missing(VERSION, ENTRIES)):
            assert store.finished_shards(VERSION) == [], f"killed after {writes} writes"
            assert not store.local or store.changes(VERSION, before).marks is None
        if any(store.states(VERSION, [entry.review_id for entry in ENTRIES])):
            assert store.namespaces() == [namespace_of()], "what is left could not be dropped any more"
        if finished:
            break
    assert writes >= 3


def test_a_copy_skips_a_review_without_a_state(
    store: MaintenanceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "ENTITIES_A_BATCH", 2)
    store.delete_states(VERSION, [DAMAGED.review_id])
    target = open_store(f"lmdb:{tmp_path / 'target'}")
    advances: list[int] = []
    assert copy_namespace(store, target, VERSION, advance=advances.append) == len(ENTRIES) - 1
    assert advances == [2, 1, 2]
    assert target.missing(VERSION, ENTRIES) == [entry == DAMAGED for entry in ENTRIES]
    target.close()


def test_a_copy_leaves_a_trace_of_every_review_that_the_source_has_not_removed(
    store: MaintenanceStore, tmp_path: Path
) -> None:
    """Else precompute, which finds the shard finished, would take what was lost for removed, and never write it."""
    store.finish_shard(VERSION, FinishedShard(corpus="c", shards=1, number=1, reviews=len(ENTRIES)))
    store.delete(VERSION, [ENTRIES[0]])
    store.delete_states(VERSION, [DAMAGED.review_id, OTHER.review_id])
    for side, entry in ((Side.USER, OTHER), (Side.USER, ENTRIES[1]), (Side.ITEM, ENTRIES[2])):
        lines = store.lines(VERSION, side, side.entity(entry)).items()
        names = [name for name, line in lines if entry.review_id.encode() in line]
        store.remove_lines(VERSION, side, side.entity(entry), names)
    with closing(open_store(f"lmdb:{tmp_path / 'target'}")) as target:
        assert copy_namespace(store, target, VERSION) == len(ENTRIES) - 3
        assert copy_namespace(store, target, VERSION) == 0
        assert target.finished_shards(VERSION) == store.finished_shards(VERSION)
        expected = {entry.review_id for entry in ENTRIES[1:]}
        for side in Side:
            reviews = listed_reviews(target, VERSION, side, target.entities(VERSION, side))
            assert {entry.review_id for entry in reviews} == expected
        assert target.missing(VERSION, ENTRIES[1:]) == [entry in (DAMAGED, OTHER) for entry in ENTRIES[1:]]
        assert target.texts(VERSION, [DAMAGED.review_id]) == [f"text of {DAMAGED.review_id}"]


def test_a_review_that_is_deleted_while_its_copy_begins_is_not_listed_by_the_copy(
    store: MaintenanceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_store(f"lmdb:{tmp_path / 'target'}")) as target:
        missing = target.missing

        def delete_meanwhile(version: str, entries: Sequence[ReviewEntry]) -> list[bool]:
            store.delete(VERSION, [DAMAGED])
            return missing(version, entries)

        monkeypatch.setattr(target, "missing", delete_meanwhile)
        copy_namespace(store, target, VERSION)
        assert contents(target, VERSION) == contents(store, VERSION)


def test_a_check_reads_the_lists_and_states_of_every_batch(
    store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "ENTITIES_A_BATCH", 2)
    monkeypatch.setattr(checking, "STATES_A_BATCH", 3)
    monkeypatch.setattr(checking, "STATES_A_SCAN", 5)
    advances: list[int] = []
    assert check_namespace(store, namespace_of(), advances.append).problems == 0
    assert sum(advances) == len(ENTRIES)
    names = [entry.review_id for entry in ENTRIES]
    store.delete_states(VERSION, names)
    check = check_namespace(store, namespace_of())
    assert (check.reviews, sorted(check.missing)) == (len(ENTRIES), sorted(names))


def test_a_review_written_during_a_check_is_not_reported_as_unlisted(
    store: MaintenanceStore,
) -> None:
    class WrittenMeanwhile:
        def __getattr__(self, name: str) -> Any:
            if name == "state_sizes":  # called when the lists have been read
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


def damage(
    store: MaintenanceStore, store_url: str, side: Side, entry: ReviewEntry, line: bytes = b"not a line"
) -> None:
    """Replace one stored line, without announcing it."""
    if isinstance(store, LmdbStore):
        key = LmdbKeys(VERSION).line(side, entry)
        store._directory.transact(lambda transaction: transaction.put(key, line), write=True)
        return
    with redis.Redis.from_url(store_url) as client:
        client.hset(RedisKeys(VERSION).reviews(side, side.entity(entry)).decode(), entry.review_id, line)
