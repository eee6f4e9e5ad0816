"""The contract of ``StateStore`` and ``MaintenanceStore``, for every store over its real engine."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import pytest
import redis

from support.killed_writes import finishes_before_kill
from support.processes import running
from support.redis_cluster import redis_cluster
from support.store_contents import (
    OTHER_VERSION,
    VERSION,
    contents,
    item_reviews,
    namespace_of,
    numbered_reviews,
    review_of,
    state_of,
    user_reviews,
)
from ubert_model.errors import ForeignStateError, InputError, ReviewNameTakenError, StoreError
from ubert_model.review import Side
from ubert_model.states import (
    FinishedShard,
    MaintenanceStore,
    Revision,
    copy_namespace,
    copying,
    entity_mark,
    lmdb_store,
    open_store,
    redis_store,
    state_mark,
)
from ubert_model.states.leases import LEASE_S

AWKWARD = ["a:b", "{x}", "}{", "%7B", "ä", "a\u0308", "日本語", "a b\n", "\0", "\0\0", "*", "u?", "🙂" * 64, "x" * 256]


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    with redis_cluster() as cluster:
        yield cluster.url


@pytest.fixture(params=["redis", "redis+cluster", "lmdb"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    if request.param == "lmdb":
        return f"lmdb:{tmp_path}/states"
    if request.param == "redis+cluster":
        url: str = request.getfixturevalue("cluster_url")
        with redis.RedisCluster.from_url(url.replace("redis+cluster", "redis").partition(",")[0]) as cluster:
            cluster.flushall(target_nodes=redis.RedisCluster.PRIMARIES)
        return url
    return str(request.getfixturevalue("own_redis_url"))


@pytest.fixture
def store(store_url: str) -> Iterator[MaintenanceStore]:
    opened = open_store(store_url)
    opened.open_namespace(namespace_of())
    yield opened
    opened.close()


def test_a_review_that_was_put_is_read_back(store: MaintenanceStore) -> None:
    entry = review_of("r1", "ann", "lamp", timestamp=1_400_000_000, rating=3.5)
    store.put(VERSION, [(entry, b"\0state\xff")])
    assert store.states(VERSION, ["r1"]) == [b"\0state\xff"]
    assert user_reviews(store, VERSION, ["ann"]) == [[entry]]
    assert item_reviews(store, VERSION, ["lamp"]) == [[entry]]


def test_results_are_in_the_order_of_the_arguments(store: MaintenanceStore) -> None:
    store.put(VERSION, numbered_reviews(200))
    names = ["r7", "absent", "r199", "r7", "r0"]
    assert store.states(VERSION, names) == [state_of("r7"), None, state_of("r199"), state_of("r7"), state_of("r0")]
    lists = user_reviews(store, VERSION, ["u3", "nobody", "u0", "u3"])
    assert [len(entries) for entries in lists] == [50, 0, 50, 50]
    assert lists[0] == lists[3]


def test_lists_of_both_sides_read_together_are_those_of_each_side_alone(store: MaintenanceStore) -> None:
    store.put(VERSION, numbered_reviews(200))
    users, items = ["u3", "nobody", "u0"], ["i96", "i0", "nothing", "i0"]
    together = store.review_lists(VERSION, users=users, items=items)
    assert together == (user_reviews(store, VERSION, users), item_reviews(store, VERSION, items))
    assert [len(entries) for entries in together[0]] == [50, 0, 50]
    assert store.review_lists(VERSION, users=[], items=[]) == ([], [])


def test_a_list_is_newest_first_and_equal_times_are_ordered_by_identifier(store: MaintenanceStore) -> None:
    times = {"b": 5, "a": 5, "c": 9, "d": 0, "e": -3, "ä": 5}
    store.put(VERSION, [(review_of(name, timestamp=time), b"s") for name, time in times.items()])
    for entries in (user_reviews(store, VERSION, ["u"])[0], item_reviews(store, VERSION, ["i"])[0]):
        assert [entry.review_id for entry in entries] == ["c", "ä", "b", "a", "d", "e"]


def test_put_is_idempotent_and_the_last_value_wins(store: MaintenanceStore) -> None:
    reviews = numbered_reviews(120)
    store.put(VERSION, reviews)
    store.put(VERSION, reviews)
    assert len(user_reviews(store, VERSION, ["u0"])[0]) == 50
    store.put(VERSION, [(review_of("r0", "u0", "i0", timestamp=77), b"new")])
    assert store.states(VERSION, ["r0"]) == [b"new"]
    assert [e.timestamp for e in user_reviews(store, VERSION, ["u0"])[0] if e.review_id == "r0"] == [77]


def test_a_deleted_review_is_gone_from_both_lists_and_the_states(store: MaintenanceStore) -> None:
    kept, deleted = review_of("kept"), review_of("deleted")
    store.put(VERSION, [(kept, b"k"), (deleted, b"d")])
    store.delete(VERSION, [deleted, review_of("never written", "nobody", "nothing")])
    assert store.states(VERSION, ["kept", "deleted"]) == [b"k", None]
    assert user_reviews(store, VERSION, ["u"]) == [[kept]]
    assert item_reviews(store, VERSION, ["i"]) == [[kept]]
    assert store.missing(VERSION, [kept, deleted]) == [False, True]


def test_an_entity_whose_last_review_is_deleted_is_no_longer_listed(store: MaintenanceStore) -> None:
    entry = review_of("r", "ann", "lamp")
    store.put(VERSION, [(entry, b"s")])
    store.delete(VERSION, [entry])
    assert store.entities(VERSION, Side.USER) == []
    assert store.entities(VERSION, Side.ITEM) == []


def test_a_review_with_any_part_absent_is_missing(store: MaintenanceStore) -> None:
    written = review_of("r", "ann", "lamp")
    store.put(VERSION, [(written, b"s")])
    others = [review_of("r", "bob", "lamp"), review_of("r", "ann", "vase"), review_of("q", "ann", "lamp")]
    assert store.missing(VERSION, [written, *others]) == [False, True, True, True]


def test_users_and_items_are_listed_in_order(store: MaintenanceStore) -> None:
    store.put(VERSION, numbered_reviews(2_500))
    assert store.entities(VERSION, Side.USER) == sorted(f"u{number}" for number in range(50))
    assert store.entities(VERSION, Side.ITEM) == sorted(f"i{number}" for number in range(97))


def test_awkward_identifiers_are_preserved_and_never_confused(store: MaintenanceStore) -> None:
    reviews = [(review_of(name, f"{name}"[::-1], name), name.encode()) for name in AWKWARD]
    store.put(VERSION, reviews)
    assert store.states(VERSION, AWKWARD) == [name.encode() for name in AWKWARD]
    assert store.entities(VERSION, Side.ITEM) == sorted(AWKWARD)
    assert store.entities(VERSION, Side.USER) == sorted({name[::-1] for name in AWKWARD})
    assert item_reviews(store, VERSION, AWKWARD) == [[entry] for entry, _ in reviews]
    assert store.missing(VERSION, [entry for entry, _ in reviews]) == [False] * len(reviews)


@pytest.mark.parametrize("identifier", ["", "x" * 257, "\ud800"])
def test_a_batch_with_an_invalid_identifier_is_refused_as_a_whole(store: MaintenanceStore, identifier: str) -> None:
    with pytest.raises(InputError, match="identifier"):
        store.put(VERSION, [(review_of("fine"), b"s"), (review_of("r", user=identifier), b"s")])
    assert store.states(VERSION, ["fine"]) == [None]
    for read in (store.states, partial(user_reviews, store), partial(item_reviews, store)):
        with pytest.raises(InputError, match="identifier"):
            read(VERSION, [identifier])


def test_a_batch_with_a_state_above_16_mib_is_refused_as_a_whole(store: MaintenanceStore) -> None:
    largest = 16 * 1024 * 1024
    with pytest.raises(StoreError, match=r"'big' has 16777217 bytes"):
        store.put(VERSION, [(review_of("fine"), b"s"), (review_of("big"), bytes(largest + 1))])
    assert store.states(VERSION, ["fine"]) == [None]
    assert store.entities(VERSION, Side.USER) == []
    store.put(VERSION, [(review_of("big"), bytes(largest))])
    assert store.states(VERSION, ["big"]) == [bytes(largest)]


def test_five_thousand_reviews_are_written_in_one_call_and_read_in_one(store: MaintenanceStore) -> None:
    reviews = numbered_reviews(5_000, size=1_000)
    entries = [entry for entry, _ in reviews]
    assert store.missing(VERSION, entries) == [True] * 5_000
    store.put(VERSION, reviews)
    assert store.missing(VERSION, entries) == [False] * 5_000
    assert store.states(VERSION, [entry.review_id for entry in entries]) == [state for _, state in reviews]
    listed = user_reviews(store, VERSION, [f"u{number}" for number in range(100)])
    assert [entry for entries in listed for entry in sorted(entries, key=lambda e: e.recency)] == entries


def test_threads_never_receive_each_others_results(store: MaintenanceStore) -> None:
    reviews = numbered_reviews(400)
    store.put(VERSION, reviews)

    def are_own(first: int) -> bool:
        own = reviews[first : first + 20]
        return store.states(VERSION, [entry.review_id for entry, _ in own]) == [state for _, state in own]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(are_own, range(0, 400, 2)))


def test_empty_arguments_give_empty_results(store: MaintenanceStore) -> None:
    store.put(VERSION, [])
    store.delete(VERSION, [])
    assert store.missing(VERSION, []) == []
    assert store.states(VERSION, []) == []
    assert user_reviews(store, VERSION, []) == []
    assert item_reviews(store, VERSION, []) == []
    assert store.entities(VERSION, Side.USER) == []
    assert store.entities(VERSION, Side.ITEM) == []


def test_namespaces_are_listed_by_version_and_may_be_opened_again(store: MaintenanceStore) -> None:
    others = [namespace_of(version) for version in (OTHER_VERSION, "0" * 16, "00112233445566ab")]
    for namespace in (*others, *others):
        store.open_namespace(namespace)
    assert store.namespaces() == sorted([namespace_of(), *others], key=lambda namespace: namespace.version)


def test_a_version_taken_by_another_description_is_refused(store: MaintenanceStore) -> None:
    with pytest.raises(ForeignStateError, match=VERSION):
        store.open_namespace(namespace_of(encoder_digest="another"))
    assert store.namespaces() == [namespace_of()]


def marks(*names: tuple[str, str, str]) -> frozenset[bytes]:
    """The marks of reviews, each given by its identifier, user and item."""
    return frozenset(
        mark
        for review_id, user, item in names
        for mark in (state_mark(review_id), entity_mark(Side.USER, user), entity_mark(Side.ITEM, item))
    )


def latest_revision(store: MaintenanceStore) -> Revision:
    revision = store.changes(VERSION, None).revision
    assert revision is not None
    return revision


def test_changes_are_those_of_every_write_after_the_given_revision(store: MaintenanceStore) -> None:
    start = latest_revision(store)
    assert store.changes(VERSION, start).marks == frozenset()
    review = review_of("r", "ann", "lamp")
    written = store.put(VERSION, [(review, b"s"), (review_of("q", "bob", "lamp"), b"s")])
    deleted = store.delete(VERSION, [review])
    assert start < written < deleted
    both = store.changes(VERSION, start)
    assert both.marks == marks(("r", "ann", "lamp"), ("q", "bob", "lamp"))
    assert both.revision == deleted
    assert store.changes(VERSION, written).marks == marks(("r", "ann", "lamp"))
    assert store.changes(VERSION, deleted).marks == frozenset()


def test_changes_of_another_version_are_not_included(store: MaintenanceStore) -> None:
    store.open_namespace(namespace_of(OTHER_VERSION))
    store.put(VERSION, [(review_of("r"), b"s")])
    start = latest_revision(store)
    store.put(OTHER_VERSION, [(review_of("r"), b"s")])
    store.delete(OTHER_VERSION, [review_of("r")])
    assert store.changes(VERSION, start).marks == frozenset()


def test_anything_may_have_changed_since_a_revision_older_than_the_remembered_changes(
    store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (lmdb_store, redis_store):
        monkeypatch.setattr(module, "REMEMBERED_CHANGES", 20)
    start = latest_revision(store)
    for number in range(20 + 200):  # Redis trims its stream in blocks of a hundred
        last = store.put(VERSION, [(review_of(f"r{number % 3}"), b"s")])
    assert store.changes(VERSION, start).marks is None
    assert store.changes(VERSION, start).revision == last
    assert store.changes(VERSION, last).marks == frozenset()


def test_changes_beyond_one_read_are_complete(store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "_CHANGES_PER_READ", 3)
    start = latest_revision(store)
    names = [("r", f"u{number}", f"i{number}") for number in range(5)]
    for name in names:
        last = store.put(VERSION, [(review_of(*name), b"s")])
    changes = store.changes(VERSION, start)
    assert changes.revision == last
    assert changes.marks == marks(*names)


def test_anything_may_have_changed_since_a_revision_before_a_drop(store: MaintenanceStore) -> None:
    store.put(VERSION, [(review_of("r"), b"s")])
    before = latest_revision(store)
    store.drop_namespace(VERSION)
    assert store.changes(VERSION, before).marks is None
    store.open_namespace(namespace_of())
    for number in range(3):
        store.put(VERSION, [(review_of(f"r{number}"), b"s")])
    assert store.changes(VERSION, before).marks is None


def test_a_revision_is_parsed_from_its_str_and_malformed_text_is_refused(store: MaintenanceStore) -> None:
    revision = store.put(VERSION, [(review_of("r"), b"s")])
    assert Revision.parse(str(revision)) == revision
    for malformed in ("", "7", "7-", "-7-7", "7-7-7", "7-7\n", "٣-٣"):
        with pytest.raises(InputError, match="revision"):
            Revision.parse(malformed)


def test_list_lengths_yields_every_list_with_its_length(store: MaintenanceStore) -> None:
    store.put(VERSION, numbered_reviews(2_500, reviews_a_user=2))
    lengths = list(store.list_lengths(VERSION))
    assert {(side, entity) for side, entity, _ in lengths} == {
        *((Side.USER, f"u{number}") for number in range(1_250)),
        *((Side.ITEM, f"i{number}") for number in range(97)),
    }
    assert {length for side, _, length in lengths if side is Side.USER} == {2}
    assert {length for side, _, length in lengths if side is Side.ITEM} == {25, 26}


def test_versions_are_isolated_from_each_other(store: MaintenanceStore) -> None:
    store.open_namespace(namespace_of(OTHER_VERSION))
    store.put(VERSION, [(review_of("r", "ann"), b"mine")])
    store.put(OTHER_VERSION, [(review_of("r", "bob"), b"theirs")])
    assert store.states(VERSION, ["r"]) == [b"mine"]
    assert store.states(OTHER_VERSION, ["r"]) == [b"theirs"]
    assert store.entities(VERSION, Side.USER) == ["ann"]
    assert user_reviews(store, VERSION, ["bob"]) == [[]]


def test_a_lease_lasts_until_it_is_released_or_expires(store: MaintenanceStore) -> None:
    store.hold(VERSION, "shop-1/7", 60.0)
    store.hold(VERSION, "shop-2/7", 0.05)
    store.hold(OTHER_VERSION, "a:b {c}", 60.0)
    assert store.holders(OTHER_VERSION) == ["a:b {c}"]
    time.sleep(0.1)
    assert store.holders(VERSION) == ["shop-1/7"]
    store.hold(VERSION, "shop-2/7", 60.0)
    assert store.holders(VERSION) == ["shop-1/7", "shop-2/7"]
    for _ in range(2):
        store.release(VERSION, "shop-1/7")
        assert store.holders(VERSION) == ["shop-2/7"]
    assert [namespace.version for namespace in store.namespaces()] == [VERSION]


def test_dropping_a_namespace_removes_all_of_it_and_nothing_of_another(store: MaintenanceStore) -> None:
    reviews = numbered_reviews(3_500)
    store.put(VERSION, reviews)
    store.open_namespace(namespace_of(OTHER_VERSION))
    store.put(OTHER_VERSION, [(review_of("other"), b"s")])
    assert store.drop_namespace(VERSION) == 3_500
    assert store.namespaces() == [namespace_of(OTHER_VERSION)]
    assert store.entities(VERSION, Side.USER) == []
    assert store.entities(VERSION, Side.ITEM) == []
    assert store.missing(VERSION, [entry for entry, _ in reviews]) == [True] * 3_500
    assert store.drop_namespace(VERSION) == 0
    assert store.states(OTHER_VERSION, ["other"]) == [b"s"]
    assert store.drop_namespace(OTHER_VERSION) == 1
    assert store.namespaces() == []


@pytest.mark.parametrize("version", ["*", "?" * 16, "0011223344556[67]aa", ""])
def test_a_pattern_is_never_taken_for_a_version(store: MaintenanceStore, version: str) -> None:
    store.put(VERSION, [(review_of("r"), b"s")])
    for act in (store.drop_namespace, partial(store.entities, side=Side.USER), partial(store.entities, side=Side.ITEM)):
        with pytest.raises(InputError, match="version"):
            act(version)
    assert store.states(VERSION, ["r"]) == [b"s"]


def test_a_reopened_store_holds_what_was_written(store: MaintenanceStore, store_url: str) -> None:
    store.put(VERSION, [(review_of("r"), b"s")])
    store.close()
    store.close()
    again = open_store(store_url)
    try:
        again.ping()
        assert again.namespaces() == [namespace_of()]
        assert again.states(VERSION, ["r"]) == [b"s"]
    finally:
        again.close()


def test_state_sizes_yields_every_state_over_several_pages(
    store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_store, "_KEYS_PER_SCAN", 1_000)  # as many as Redis' pages have
    reviews = numbered_reviews(2_500, size=40)
    awkward = [(review_of(name, "v"), b"12345") for name in AWKWARD]
    store.put(VERSION, [*reviews, *awkward])
    store.open_namespace(namespace_of(OTHER_VERSION))
    store.put(OTHER_VERSION, [(review_of("other"), b"s")])
    expected = {entry.review_id: len(state) for entry, state in (*reviews, *awkward)}
    assert dict(store.state_sizes(VERSION)) == expected
    assert dict(store.state_sizes("0" * 16)) == {}


def test_delete_states_keeps_the_lines(store: MaintenanceStore) -> None:
    entry = review_of("r")
    store.put(VERSION, [(entry, b"s")])
    store.delete_states(VERSION, ["r", "never written"])
    assert store.states(VERSION, ["r"]) == [None]
    assert user_reviews(store, VERSION, ["u"]) == [[entry]]
    assert store.missing(VERSION, [entry]) == [True]


def test_a_shard_finished_twice_is_recorded_once_and_dropped_with_its_namespace(store: MaintenanceStore) -> None:
    shards = [FinishedShard(corpus="c", shards=8, number=number, reviews=number) for number in (8, 3, 3)]
    for shard in shards:
        store.finish_shard(VERSION, shard)
    assert store.finished_shards(VERSION) == [shards[1], shards[0]]
    assert store.entities(VERSION, Side.USER) == store.entities(VERSION, Side.ITEM) == []
    assert store.finished_shards(OTHER_VERSION) == []
    store.drop_namespace(VERSION)
    assert store.finished_shards(VERSION) == []


def test_a_shard_of_a_namespace_that_was_dropped_meanwhile_cannot_be_finished(store: MaintenanceStore) -> None:
    store.put(VERSION, [(review_of("before"), b"s")])
    store.drop_namespace(VERSION)
    store.put(VERSION, [(review_of("after"), b"s")])
    with pytest.raises(StoreError, match="run the command again"):
        store.finish_shard(VERSION, FinishedShard(corpus="c", shards=1, number=1, reviews=2))
    store.open_namespace(namespace_of())
    assert store.finished_shards(VERSION) == []


def test_an_interrupted_copy_is_completed(
    store: MaintenanceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "ENTITIES_A_BATCH", 2)
    monkeypatch.setattr(copying, "REVIEWS_A_BATCH", 7)
    reviews = numbered_reviews(300)
    store.put(VERSION, reviews)
    store.open_namespace(namespace_of(OTHER_VERSION))
    target = open_store(f"lmdb:{tmp_path}/copy")
    try:
        target.put(VERSION, reviews[:40])
        assert copy_namespace(store, target, VERSION) == 260
        assert copy_namespace(store, target, VERSION) == 0
        assert target.namespaces() == [namespace_of()]
        assert target.states(VERSION, [entry.review_id for entry, _ in reviews]) == [state for _, state in reviews]
        assert contents(target, VERSION) == contents(store, VERSION)
        with pytest.raises(InputError, match="0000000000000000"):
            copy_namespace(store, target, "0" * 16)
    finally:
        target.close()


def assert_held_during_copy(held: MaintenanceStore, source: MaintenanceStore, target: MaintenanceStore) -> None:
    """Copy six reviews of three users on six items; ``held`` is the store whose lease is checked."""
    holders: list[list[str]] = []
    leases: list[float] = []
    hold = held.hold

    def note_holders(_: int) -> None:
        holders.append(held.holders(VERSION))

    def noted_hold(version: str, holder: str, seconds: float) -> None:
        leases.append(seconds)
        hold(version, holder, seconds)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(held, "hold", noted_hold)
        assert copy_namespace(source, target, VERSION, advance=note_holders) == 6
    assert leases == [LEASE_S] * 9
    (holder,), *others = holders
    assert others == [[holder]] * 8  # the same holder from the first batch to the last
    assert held.holders(VERSION) == []


def test_a_copy_holds_its_target_and_raises_if_that_is_dropped_nevertheless(
    store: MaintenanceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "ENTITIES_A_BATCH", 1)
    with closing(open_store(f"lmdb:{tmp_path}/source")) as source:
        source.open_namespace(namespace_of())
        source.put(VERSION, numbered_reviews(6, reviews_a_user=2))
        assert_held_during_copy(store, source, store)
        with pytest.raises(StoreError, match="run the command again"):
            copy_namespace(source, store, VERSION, advance=lambda _: store.drop_namespace(VERSION))
        assert store.holders(VERSION) == []
        copy_namespace(source, store, VERSION)
        assert contents(store, VERSION) == contents(source, VERSION)


def test_a_copy_holds_its_source_and_raises_if_that_is_dropped_nevertheless(
    store: MaintenanceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "ENTITIES_A_BATCH", 1)
    store.put(VERSION, numbered_reviews(6, reviews_a_user=2))
    with closing(open_store(f"lmdb:{tmp_path}/target")) as target:
        assert_held_during_copy(store, store, target)
        target.drop_namespace(VERSION)
        with pytest.raises(StoreError, match=r"gone from the source .* reviews may be missing"):
            copy_namespace(store, target, VERSION, advance=lambda _: store.drop_namespace(VERSION))
        assert target.entities(VERSION, Side.USER) == ["u0"]


@pytest.mark.parametrize("name", AWKWARD)
def test_a_text_is_stored_by_identifier_and_deleted_with_its_review(store: MaintenanceStore, name: str) -> None:
    entry = review_of(name)
    store.put(VERSION, [(entry, b"state"), (review_of("other"), b"state")])
    store.put_texts(VERSION, [(name, "Größe: 🙂\n"), ("other", "")])
    assert store.texts(VERSION, ["absent", name, "other"]) == [None, "Größe: 🙂\n", ""]
    assert store.texts(OTHER_VERSION, [name]) == [None]
    store.delete(VERSION, [entry])
    assert store.texts(VERSION, [name, "other"]) == [None, ""]


def test_put_stores_the_texts_given_and_removes_those_of_the_other_reviews_it_writes(store: MaintenanceStore) -> None:
    reviews = numbered_reviews(3)
    store.put(VERSION, reviews, [("r1", "old")])
    store.put_texts(VERSION, [("r0", "old")])
    assert store.texts(VERSION, ["r0", "r1", "r2"]) == ["old", "old", None]
    store.put(VERSION, reviews, [("r1", "new"), ("r2", "")])
    assert store.texts(VERSION, ["r0", "r1", "r2"]) == [None, "new", ""]
    assert not any(store.missing(VERSION, [entry for entry, _ in reviews]))


def test_delete_texts_keeps_states_and_lines(store: MaintenanceStore) -> None:
    reviews = [(review_of(name), b"state") for name in ("r", "s")]
    store.put(VERSION, reviews, [("r", "of r"), ("s", "of s")])
    store.delete_texts(VERSION, ["r", "never written"])
    assert store.texts(VERSION, ["r", "s"]) == [None, "of s"]
    assert store.missing(VERSION, [entry for entry, _ in reviews]) == [False, False]


def test_put_lines_and_remove_lines_change_only_lists_and_are_announced(store: MaintenanceStore) -> None:
    cut, kept = review_of("cut", "x:{y}", "lamp", timestamp=2), review_of("kept", "x:{y}", "sofa", timestamp=1)
    store.put(VERSION, [(cut, b"c"), (kept, b"k")], [("cut", "words")])
    (name,) = (name for name, line in store.lines(VERSION, Side.USER, cut.user).items() if b"cut" in line)
    start = latest_revision(store)
    removed = store.remove_lines(VERSION, Side.USER, cut.user, [name])
    changes = store.changes(VERSION, start)
    assert (changes.revision, changes.marks) == (removed, frozenset({entity_mark(Side.USER, cut.user)}))
    assert store.review_lists(VERSION, users=[cut.user], items=["lamp"]) == ([[kept]], [[cut]])
    assert store.missing(VERSION, [cut, kept]) == [True, False]
    written = store.put_lines(VERSION, [cut])
    changes = store.changes(VERSION, removed)
    assert changes.revision == written
    assert changes.marks is not None
    assert {entity_mark(side, side.entity(cut)) for side in Side} <= changes.marks
    assert user_reviews(store, VERSION, [cut.user]) == [[cut, kept]]
    assert store.states(VERSION, ["cut", "kept"]) == [b"c", b"k"]
    assert store.texts(VERSION, ["cut"]) == ["words"]
    assert store.lines(VERSION, Side.ITEM, "nothing") == {}


def test_marks_are_announced_without_a_write(store: MaintenanceStore) -> None:
    store.put(VERSION, numbered_reviews(1))
    start, mark = latest_revision(store), entity_mark(Side.USER, "u")
    announced = store.announce(VERSION, [mark])
    changes = store.changes(VERSION, start)
    assert (changes.revision, changes.marks) == (announced, frozenset({mark}))


def test_texts_are_copied_and_dropped_with_their_namespace(store: MaintenanceStore, tmp_path: Path) -> None:
    store.put(VERSION, numbered_reviews(3))
    store.put_texts(VERSION, [("r0", "first"), ("r2", "third")])
    target = open_store(f"lmdb:{tmp_path}/target")
    copy_namespace(store, target, VERSION)
    assert target.texts(VERSION, ["r0", "r1", "r2"]) == ["first", None, "third"]
    target.close()
    store.drop_namespace(VERSION)
    assert store.texts(VERSION, ["r0", "r2"]) == [None, None]


def test_candidate_sets_are_replaced_listed_and_deleted_and_belong_to_no_namespace(store: MaintenanceStore) -> None:
    assert (store.candidate_sets(), store.candidates("spring"), store.delete_candidates("spring")) == ([], None, False)
    store.put_candidates("spring", ["a"])
    store.put_candidates("spring", AWKWARD)
    store.put_candidates("autumn", ["b"])
    store.put_candidates("\x04", ["c"])
    assert store.candidate_sets() == ["\x04", "autumn", "spring"]
    assert store.candidates("spring") == AWKWARD
    assert [namespace.version for namespace in store.namespaces()] == [VERSION]
    store.drop_namespace(VERSION)
    assert store.candidates("autumn") == ["b"]
    assert store.delete_candidates("autumn")
    assert store.candidate_sets() == ["\x04", "spring"]


def test_a_new_review_is_written_as_by_put_and_may_be_sent_twice(store: MaintenanceStore, tmp_path: Path) -> None:
    entry = review_of("r", "ann", "lamp")
    store.put_new(VERSION, entry, b"first", [("r", "words")])
    store.put_new(VERSION, entry, b"state")
    with closing(open_store(f"lmdb:{tmp_path}/other")) as other:
        other.open_namespace(namespace_of())
        other.put(VERSION, [(entry, b"state")])
        assert contents(store, VERSION) == contents(other, VERSION)


@pytest.mark.parametrize("pair", [("bob", "lamp"), ("ann", "desk"), ("bob", "desk")])
def test_a_new_review_under_the_id_of_another_pair_is_refused_and_nothing_changes(
    store: MaintenanceStore, pair: tuple[str, str]
) -> None:
    taken = review_of("r", "ann", "lamp")
    store.put(VERSION, [(taken, b"state")], [("r", "words")])
    before = contents(store, VERSION)
    for _ in range(2):
        with pytest.raises(ReviewNameTakenError, match="'r' already names"):
            store.put_new(VERSION, review_of("r", *pair), b"another", [("r", "others")])
    assert contents(store, VERSION) == before
    store.delete(VERSION, [taken])
    store.put_new(VERSION, review_of("r", *pair), b"another")
    assert store.states(VERSION, ["r"]) == [b"another"]


@pytest.mark.parametrize("deleted", [False, True])
def test_a_new_review_that_was_cut_short_or_deleted_in_part_is_of_its_pair_alone(
    store: MaintenanceStore, deleted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_or_delete() -> None:
        if deleted:
            store.delete(VERSION, [entry])
        else:
            store.put_new(VERSION, entry, b"state", [(entry.review_id, "words")])

    ends, writes = False, 0
    while not ends:
        entry, others = review_of(f"r{writes}", "ann", "lamp"), review_of(f"r{writes}", "bob", "lamp")
        if deleted:
            store.put(VERSION, [(entry, b"state")])
        ends = finishes_before_kill(write_or_delete, writes, monkeypatch)
        writes += 1
        winners = []
        for one in (others, entry):
            with suppress(ReviewNameTakenError):
                store.put_new(VERSION, one, one.user.encode())
                winners.append(one)
        (winner,) = winners
        assert store.states(VERSION, [winner.review_id]) == [winner.user.encode()]
        (of_lamp,) = item_reviews(store, VERSION, ["lamp"])
        assert [review for review in of_lamp if review.review_id == winner.review_id] == [winner]


# Waits for a line, then writes each id for a pair of its own, and prints which ids it got.
NAMING = """
import sys
from support.store_contents import VERSION, review_of
from ubert_model.errors import ReviewNameTakenError
from ubert_model.states import open_store
store = open_store(sys.argv[1])
store.ping()
print(flush=True)
sys.stdin.readline()
for number in range(40):
    try:
        store.put_new(VERSION, review_of(f"r{number}", sys.argv[2], "lamp"), sys.argv[2].encode())
        print(f"r{number}", end=" ")
    except ReviewNameTakenError:
        pass
"""


def test_of_two_processes_that_write_one_id_for_two_pairs_one_wins(store: MaintenanceStore, store_url: str) -> None:
    import_path = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    with ExitStack() as stack:
        writers = {
            user: stack.enter_context(
                running([sys.executable, "-c", NAMING, store_url, user], stdin=subprocess.PIPE, env=import_path)
            )
            for user in ("ann", "bob")
        }
        for writer in writers.values():
            assert writer.stdout is not None
            writer.stdout.readline()
        for writer in writers.values():
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        won = {user: writer.communicate(timeout=60)[0].split() for user, writer in writers.items()}
    names = [f"r{number}" for number in range(40)]
    assert sorted(won["ann"] + won["bob"]) == sorted(names)
    winner_of = {name: user for user in won for name in won[user]}
    assert store.states(VERSION, names) == [winner_of[name].encode() for name in names]
    (of_lamp,) = item_reviews(store, VERSION, ["lamp"])
    assert {review.review_id: review.user for review in of_lamp} == winner_of
