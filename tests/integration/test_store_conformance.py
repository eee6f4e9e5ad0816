"""Every promise of the ``StateStore`` protocol, held by every store against its real engine."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import redis

from support.redis_cluster import redis_cluster
from support.store_contents import OTHER_VERSION, VERSION, contents, namespace_of, numbered_reviews, review_of, state_of
from ubert_model.errors import ForeignStateError, InputError, StoreError
from ubert_model.states import (
    FinishedShard,
    MaintenanceStore,
    Revision,
    Side,
    StateStore,
    copy_namespace,
    entity_mark,
    lmdb_store,
    open_store,
    redis_store,
    state_mark,
)
from ubert_model.states.lmdb_store import LmdbStore

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
    own_database = f"{request.getfixturevalue('redis_url')[:-1]}15"
    with redis.Redis.from_url(own_database) as client:
        client.flushdb()
    return own_database


@pytest.fixture
def store(store_url: str) -> Iterator[MaintenanceStore]:
    opened = open_store(store_url)
    opened.open_namespace(namespace_of())
    yield opened
    opened.close()


def test_what_was_put_is_read_back(store: StateStore) -> None:
    entry = review_of("r1", "ann", "lamp", timestamp=1_400_000_000, rating=3.5)
    store.put(VERSION, [(entry, b"\0state\xff")])
    assert store.states(VERSION, ["r1"]) == [b"\0state\xff"]
    assert store.user_reviews(VERSION, ["ann"]) == [[entry]]
    assert store.item_reviews(VERSION, ["lamp"]) == [[entry]]


def test_answers_come_in_the_order_of_the_question(store: StateStore) -> None:
    store.put(VERSION, numbered_reviews(200))
    asked = ["r7", "absent", "r199", "r7", "r0"]
    assert store.states(VERSION, asked) == [state_of("r7"), None, state_of("r199"), state_of("r7"), state_of("r0")]
    lists = store.user_reviews(VERSION, ["u3", "nobody", "u0", "u3"])
    assert [len(entries) for entries in lists] == [50, 0, 50, 50]
    assert lists[0] == lists[3]


def test_both_sides_lists_come_in_one_call_as_they_come_apart(store: StateStore) -> None:
    store.put(VERSION, numbered_reviews(200))
    users, items = ["u3", "nobody", "u0"], ["i96", "i0", "nothing", "i0"]
    together = store.review_lists(VERSION, users=users, items=items)
    assert together == (store.user_reviews(VERSION, users), store.item_reviews(VERSION, items))
    assert [len(entries) for entries in together[0]] == [50, 0, 50]
    assert store.review_lists(VERSION, users=[], items=[]) == ([], [])


def test_a_list_is_newest_first_and_equal_times_are_ordered_by_identifier(store: StateStore) -> None:
    times = {"b": 5, "a": 5, "c": 9, "d": 0, "e": -3, "ä": 5}
    store.put(VERSION, [(review_of(name, timestamp=time), b"s") for name, time in times.items()])
    for entries in (store.user_reviews(VERSION, ["u"])[0], store.item_reviews(VERSION, ["i"])[0]):
        assert [entry.review_id for entry in entries] == ["c", "ä", "b", "a", "d", "e"]


def test_putting_twice_is_putting_once_and_the_last_value_stays(store: StateStore) -> None:
    reviews = numbered_reviews(120)
    store.put(VERSION, reviews)
    store.put(VERSION, reviews)
    assert len(store.user_reviews(VERSION, ["u0"])[0]) == 50
    store.put(VERSION, [(review_of("r0", "u0", "i0", timestamp=77), b"new")])
    assert store.states(VERSION, ["r0"]) == [b"new"]
    assert [e.timestamp for e in store.user_reviews(VERSION, ["u0"])[0] if e.review_id == "r0"] == [77]


def test_a_deleted_review_is_gone_from_both_lists_and_the_states(store: StateStore) -> None:
    kept, gone = review_of("kept"), review_of("gone")
    store.put(VERSION, [(kept, b"k"), (gone, b"g")])
    store.delete(VERSION, [gone, review_of("never written", "nobody", "nothing")])
    assert store.states(VERSION, ["kept", "gone"]) == [b"k", None]
    assert store.user_reviews(VERSION, ["u"]) == [[kept]]
    assert store.item_reviews(VERSION, ["i"]) == [[kept]]
    assert store.missing(VERSION, [kept, gone]) == [False, True]


def test_an_entity_whose_last_review_is_deleted_is_no_longer_listed(store: StateStore) -> None:
    entry = review_of("r", "ann", "lamp")
    store.put(VERSION, [(entry, b"s")])
    store.delete(VERSION, [entry])
    assert store.users(VERSION) == []
    assert store.items(VERSION) == []


def test_a_review_with_any_part_absent_is_missing(store: StateStore) -> None:
    written = review_of("r", "ann", "lamp")
    store.put(VERSION, [(written, b"s")])
    asked = [written, review_of("r", "bob", "lamp"), review_of("r", "ann", "vase"), review_of("q", "ann", "lamp")]
    assert store.missing(VERSION, asked) == [False, True, True, True]


def test_users_and_items_are_listed_in_order(store: StateStore) -> None:
    store.put(VERSION, numbered_reviews(2_500))
    assert store.users(VERSION) == sorted(f"u{number}" for number in range(50))
    assert store.items(VERSION) == sorted(f"i{number}" for number in range(97))


def test_every_identifier_survives_and_stays_apart(store: StateStore) -> None:
    reviews = [(review_of(name, f"{name}"[::-1], name), name.encode()) for name in AWKWARD]
    store.put(VERSION, reviews)
    assert store.states(VERSION, AWKWARD) == [name.encode() for name in AWKWARD]
    assert store.items(VERSION) == sorted(AWKWARD)
    assert store.users(VERSION) == sorted({name[::-1] for name in AWKWARD})
    assert store.item_reviews(VERSION, AWKWARD) == [[entry] for entry, _ in reviews]
    assert store.missing(VERSION, [entry for entry, _ in reviews]) == [False] * len(reviews)


@pytest.mark.parametrize("identifier", ["", "x" * 257, "\ud800"])
def test_a_batch_with_an_impossible_identifier_is_refused_whole(store: StateStore, identifier: str) -> None:
    with pytest.raises(InputError, match="identifier"):
        store.put(VERSION, [(review_of("fine"), b"s"), (review_of("r", user=identifier), b"s")])
    assert store.states(VERSION, ["fine"]) == [None]
    for ask in (store.states, store.user_reviews, store.item_reviews):
        with pytest.raises(InputError, match="identifier"):
            ask(VERSION, [identifier])


def test_a_state_too_large_to_serve_is_refused_before_anything_is_written(store: StateStore) -> None:
    largest = 16 * 1024 * 1024
    with pytest.raises(StoreError, match=r"'big' has 16777217 bytes"):
        store.put(VERSION, [(review_of("fine"), b"s"), (review_of("big"), bytes(largest + 1))])
    assert store.states(VERSION, ["fine"]) == [None]
    store.put(VERSION, [(review_of("big"), bytes(largest))])
    assert store.states(VERSION, ["big"]) == [bytes(largest)]


def test_five_thousand_reviews_travel_in_one_call(store: StateStore) -> None:
    reviews = numbered_reviews(5_000, size=1_000)
    entries = [entry for entry, _ in reviews]
    assert store.missing(VERSION, entries) == [True] * 5_000
    store.put(VERSION, reviews)
    assert store.missing(VERSION, entries) == [False] * 5_000
    assert store.states(VERSION, [entry.review_id for entry in entries]) == [state for _, state in reviews]
    listed = store.user_reviews(VERSION, [f"u{number}" for number in range(100)])
    assert [entry for entries in listed for entry in sorted(entries, key=lambda e: e.recency)] == entries


def test_threads_never_receive_each_others_answers(store: StateStore) -> None:
    reviews = numbered_reviews(400)
    store.put(VERSION, reviews)

    def ask(first: int) -> bool:
        asked = reviews[first : first + 20]
        return store.states(VERSION, [entry.review_id for entry, _ in asked]) == [state for _, state in asked]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(0, 400, 2)))


def test_empty_questions_have_empty_answers(store: StateStore) -> None:
    store.put(VERSION, [])
    store.delete(VERSION, [])
    assert store.missing(VERSION, []) == []
    assert store.states(VERSION, []) == []
    assert store.user_reviews(VERSION, []) == []
    assert store.item_reviews(VERSION, []) == []
    assert store.users(VERSION) == []
    assert store.items(VERSION) == []


def test_namespaces_are_listed_by_version_and_may_be_opened_again(store: StateStore) -> None:
    others = [namespace_of(version) for version in (OTHER_VERSION, "0" * 16, "00112233445566ab")]
    for namespace in (*others, *others):
        store.open_namespace(namespace)
    assert store.namespaces() == sorted([namespace_of(), *others], key=lambda namespace: namespace.version)


def test_a_version_taken_by_another_description_is_refused(store: StateStore) -> None:
    with pytest.raises(ForeignStateError, match=VERSION):
        store.open_namespace(namespace_of(encoder_digest="another"))
    assert store.namespaces() == [namespace_of()]


def marks(*names: tuple[str, str, str]) -> frozenset[bytes]:
    """Of reviews, each by its identifier, its user and its item."""
    return frozenset(
        mark
        for review_id, user, item in names
        for mark in (state_mark(review_id), entity_mark(Side.USER, user), entity_mark(Side.ITEM, item))
    )


def end_of(store: StateStore) -> Revision:
    revision = store.changes(VERSION, None).revision
    assert revision is not None
    return revision


def test_who_follows_the_changes_learns_of_every_write_once_and_in_order(store: StateStore) -> None:
    start = end_of(store)
    assert store.changes(VERSION, start).marks == frozenset()
    gone = review_of("gone", "ann", "lamp")
    written = store.put(VERSION, [(gone, b"s"), (review_of("kept", "bob", "lamp"), b"s")])
    removed = store.delete(VERSION, [gone])
    assert start < written < removed
    both = store.changes(VERSION, start)
    assert both.marks == marks(("gone", "ann", "lamp"), ("kept", "bob", "lamp"))
    assert both.revision == removed
    assert store.changes(VERSION, written).marks == marks(("gone", "ann", "lamp"))
    assert store.changes(VERSION, removed).marks == frozenset()


def test_changes_of_another_version_are_none_of_this_one(store: StateStore) -> None:
    store.open_namespace(namespace_of(OTHER_VERSION))
    store.put(VERSION, [(review_of("r"), b"s")])
    start = end_of(store)
    store.put(OTHER_VERSION, [(review_of("r"), b"s")])
    store.delete(OTHER_VERSION, [review_of("r")])
    assert store.changes(VERSION, start).marks == frozenset()


def test_changes_that_can_no_longer_be_told_are_told_as_everything(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (lmdb_store, redis_store):
        monkeypatch.setattr(module, "REMEMBERED_CHANGES", 20)
    start = end_of(store)
    for number in range(20 + 200):  # a server cuts its stream in blocks of a hundred
        last = store.put(VERSION, [(review_of(f"r{number % 3}"), b"s")])
    assert store.changes(VERSION, start).marks is None
    assert store.changes(VERSION, start).revision == last
    assert store.changes(VERSION, last).marks == frozenset()


def test_a_part_of_the_changes_is_never_told_as_all_of_them(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "_CHANGES_PER_READ", 3)
    start = end_of(store)
    names = [("r", f"u{number}", f"i{number}") for number in range(5)]
    for name in names:
        last = store.put(VERSION, [(review_of(*name), b"s")])
    told = store.changes(VERSION, start)
    assert told.revision == last
    assert told.marks in (None, marks(*names))


def test_the_oldest_change_that_is_remembered_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "REMEMBERED_CHANGES", 5)
    store = open_store(f"lmdb:{tmp_path}/states")
    store.open_namespace(namespace_of())
    names = [(f"r{number}", f"u{number}", f"i{number}") for number in range(9)]
    revisions = [store.put(VERSION, [(review_of(*name), b"s")]) for name in names]
    for place, revision in enumerate(revisions):
        assert store.changes(VERSION, revision).marks in (None, marks(*names[place + 1 :]))
    assert store.changes(VERSION, revisions[3]).marks == marks(*names[4:])
    store.close()


def test_who_follows_a_dropped_namespace_is_told_to_forget_everything(store: StateStore) -> None:
    store.put(VERSION, [(review_of("r"), b"s")])
    before = end_of(store)
    store.drop_namespace(VERSION)
    assert store.changes(VERSION, before).marks is None
    store.open_namespace(namespace_of())
    for number in range(3):
        store.put(VERSION, [(review_of(f"r{number}"), b"s")])
    assert store.changes(VERSION, before).marks is None


def test_a_revision_survives_being_written_down(store: StateStore) -> None:
    revision = store.put(VERSION, [(review_of("r"), b"s")])
    assert Revision.parse(str(revision)) == revision
    for malformed in ("", "7", "7-", "-7-7", "7-7-7", "7-7\n", "٣-٣"):
        with pytest.raises(InputError, match="revision"):
            Revision.parse(malformed)


def test_every_list_is_named_with_its_length(store: StateStore) -> None:
    store.put(VERSION, numbered_reviews(2_500, reviews_a_user=2))
    lengths = list(store.list_lengths(VERSION))
    assert {(side, entity) for side, entity, _ in lengths} == {
        *((Side.USER, f"u{number}") for number in range(1_250)),
        *((Side.ITEM, f"i{number}") for number in range(97)),
    }
    assert {length for side, _, length in lengths if side is Side.USER} == {2}
    assert {length for side, _, length in lengths if side is Side.ITEM} == {25, 26}


def test_versions_never_see_each_other(store: StateStore) -> None:
    store.open_namespace(namespace_of(OTHER_VERSION))
    store.put(VERSION, [(review_of("r", "ann"), b"mine")])
    store.put(OTHER_VERSION, [(review_of("r", "bob"), b"theirs")])
    assert store.states(VERSION, ["r"]) == [b"mine"]
    assert store.states(OTHER_VERSION, ["r"]) == [b"theirs"]
    assert store.users(VERSION) == ["ann"]
    assert store.user_reviews(VERSION, ["bob"]) == [[]]


def test_a_namespace_is_held_until_it_is_released_or_the_time_is_over(store: StateStore) -> None:
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


def test_whoever_holds_a_namespace_removes_what_killed_processes_have_held(tmp_path: Path) -> None:
    """A server forgets it by itself."""
    store = LmdbStore(tmp_path)

    def kept() -> int:
        return int(store._directory.transact(lambda transaction: transaction.stat()["entries"]))

    store.hold(VERSION, "killed/7", -1.0)
    before = kept()
    store.hold(VERSION, "shop/7", 60.0)
    assert kept() == before
    assert store.holders(VERSION) == ["shop/7"]
    store.close()


def test_dropping_a_namespace_leaves_nothing_of_it_and_all_of_the_others(store: StateStore) -> None:
    reviews = numbered_reviews(3_500)
    store.put(VERSION, reviews)
    store.open_namespace(namespace_of(OTHER_VERSION))
    store.put(OTHER_VERSION, [(review_of("other"), b"s")])
    assert store.drop_namespace(VERSION) == 3_500
    assert store.namespaces() == [namespace_of(OTHER_VERSION)]
    assert store.users(VERSION) == []
    assert store.items(VERSION) == []
    assert store.missing(VERSION, [entry for entry, _ in reviews]) == [True] * 3_500
    assert store.drop_namespace(VERSION) == 0
    assert store.states(OTHER_VERSION, ["other"]) == [b"s"]
    assert store.drop_namespace(OTHER_VERSION) == 1
    assert store.namespaces() == []


@pytest.mark.parametrize("version", ["*", "?" * 16, "0011223344556[67]aa", ""])
def test_a_pattern_is_never_taken_for_a_version(store: StateStore, version: str) -> None:
    store.put(VERSION, [(review_of("r"), b"s")])
    for act in (store.drop_namespace, store.users, store.items):
        with pytest.raises(InputError, match="version"):
            act(version)
    assert store.states(VERSION, ["r"]) == [b"s"]


def test_a_store_opened_again_holds_what_was_written(store: StateStore, store_url: str) -> None:
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


def test_every_state_is_told_with_its_size_also_over_several_pages(store: StateStore) -> None:
    reviews = numbered_reviews(25_000, size=40)
    awkward = [(review_of(name, "v"), b"12345") for name in AWKWARD]
    for start in range(0, len(reviews), 5_000):
        store.put(VERSION, reviews[start : start + 5_000])
    store.put(VERSION, awkward)
    store.open_namespace(namespace_of(OTHER_VERSION))
    store.put(OTHER_VERSION, [(review_of("other"), b"s")])
    expected = {entry.review_id: len(state) for entry, state in (*reviews, *awkward)}
    assert dict(store.state_sizes(VERSION)) == expected
    assert dict(store.state_sizes("0" * 16)) == {}


def test_states_are_deleted_and_their_lines_stay(store: StateStore) -> None:
    entry = review_of("r")
    store.put(VERSION, [(entry, b"s")])
    store.delete_states(VERSION, ["r", "never written"])
    assert store.states(VERSION, ["r"]) == [None]
    assert store.user_reviews(VERSION, ["u"]) == [[entry]]
    assert store.missing(VERSION, [entry]) == [True]


def test_a_shard_that_ends_twice_is_kept_once_and_goes_with_its_namespace(store: StateStore) -> None:
    shards = [FinishedShard(corpus="c", shards=8, number=number, reviews=number) for number in (8, 3, 3)]
    for shard in shards:
        store.finish_shard(VERSION, shard)
    assert store.finished_shards(VERSION) == [shards[1], shards[0]]
    assert store.users(VERSION) == store.items(VERSION) == []
    assert store.finished_shards(OTHER_VERSION) == []
    store.drop_namespace(VERSION)
    assert store.finished_shards(VERSION) == []


def test_a_share_of_a_namespace_that_was_dropped_meanwhile_is_not_called_whole(store: StateStore) -> None:
    store.put(VERSION, [(review_of("before"), b"s")])
    store.drop_namespace(VERSION)
    store.put(VERSION, [(review_of("after"), b"s")])
    with pytest.raises(StoreError, match="run the command again"):
        store.finish_shard(VERSION, FinishedShard(corpus="c", shards=1, number=1, reviews=2))
    store.open_namespace(namespace_of())
    assert store.finished_shards(VERSION) == []


def test_a_namespace_is_copied_whole_and_a_copy_cut_short_goes_on(store: StateStore, tmp_path: Path) -> None:
    reviews = numbered_reviews(300)
    store.put(VERSION, reviews)
    store.open_namespace(namespace_of(OTHER_VERSION))
    target = open_store(f"lmdb:{tmp_path}/copy")
    try:
        target.put(VERSION, reviews[:40])
        assert copy_namespace(store, target, VERSION, users_a_batch=2, reviews_a_batch=7) == 260
        assert copy_namespace(store, target, VERSION) == 0
        assert target.namespaces() == [namespace_of()]
        assert target.states(VERSION, [entry.review_id for entry, _ in reviews]) == [state for _, state in reviews]
        for side in ("user", "item"):
            entities = getattr(store, f"{side}s")(VERSION)
            assert getattr(target, f"{side}s")(VERSION) == entities
            ask = f"{side}_reviews"
            assert getattr(target, ask)(VERSION, entities) == getattr(store, ask)(VERSION, entities)
        with pytest.raises(InputError, match="0000000000000000"):
            copy_namespace(store, target, "0" * 16)
    finally:
        target.close()


def test_a_namespace_is_held_while_it_is_copied_and_a_drop_by_force_is_told(
    store: MaintenanceStore, tmp_path: Path
) -> None:
    with closing(open_store(f"lmdb:{tmp_path}/source")) as source:
        source.open_namespace(namespace_of())
        source.put(VERSION, numbered_reviews(6, reviews_a_user=2))
        held: list[list[str]] = []
        assert (
            copy_namespace(
                source, store, VERSION, users_a_batch=1, advance=lambda _: held.append(store.holders(VERSION))
            )
            == 6
        )
        (holder,), *others = held
        assert others == [[holder]] * 2, "one holder, from the first batch to the last"
        assert store.holders(VERSION) == []
        with pytest.raises(StoreError, match="run the command again"):
            copy_namespace(source, store, VERSION, users_a_batch=1, advance=lambda _: store.drop_namespace(VERSION))
        assert store.holders(VERSION) == []
        copy_namespace(source, store, VERSION)
        assert contents(store, VERSION) == contents(source, VERSION)


def test_a_source_is_held_while_it_is_copied_and_one_that_goes_all_the_same_is_told(
    store: MaintenanceStore, tmp_path: Path
) -> None:
    store.put(VERSION, numbered_reviews(6, reviews_a_user=2))
    with closing(open_store(f"lmdb:{tmp_path}/target")) as target:
        held: list[list[str]] = []
        copy_namespace(store, target, VERSION, users_a_batch=1, advance=lambda _: held.append(store.holders(VERSION)))
        (holder,), *others = held
        assert others == [[holder]] * 2, "one holder, from the first batch to the last"
        assert store.holders(VERSION) == []
        target.drop_namespace(VERSION)
        with pytest.raises(StoreError, match=r"gone from the source .* reviews may be missing"):
            copy_namespace(store, target, VERSION, users_a_batch=1, advance=lambda _: store.drop_namespace(VERSION))
        assert target.users(VERSION) == ["u0"]


@pytest.mark.parametrize("name", AWKWARD)
def test_a_text_is_kept_apart_from_every_other_and_goes_with_its_review(store: StateStore, name: str) -> None:
    entry = review_of(name)
    store.put(VERSION, [(entry, b"state"), (review_of("other"), b"state")])
    store.put_texts(VERSION, [(name, "Größe: 🙂\n"), ("other", "")])
    assert store.texts(VERSION, ["absent", name, "other"]) == [None, "Größe: 🙂\n", ""]
    assert store.texts(OTHER_VERSION, [name]) == [None]
    store.delete(VERSION, [entry])
    assert store.texts(VERSION, [name, "other"]) == [None, ""]


def test_a_review_that_is_put_again_has_no_text_until_it_is_given_one(store: StateStore) -> None:
    store.put(VERSION, [(review_of("r1"), b"state")])
    store.put_texts(VERSION, [("r1", "old words")])
    store.put(VERSION, [(review_of("r1"), b"new state")])
    assert store.texts(VERSION, ["r1"]) == [None]


def test_reviews_are_put_with_their_texts_and_whoever_is_given_none_has_none(store: MaintenanceStore) -> None:
    reviews = numbered_reviews(3)
    store.put(VERSION, reviews, [("r0", "old"), ("r1", "old")])
    assert store.texts(VERSION, ["r0", "r1", "r2"]) == ["old", "old", None]
    store.put(VERSION, reviews, [("r1", "new"), ("r2", "")])
    assert store.texts(VERSION, ["r0", "r1", "r2"]) == [None, "new", ""]
    assert not any(store.missing(VERSION, [entry for entry, _ in reviews]))


def test_texts_are_deleted_and_their_states_and_lines_stay(store: MaintenanceStore) -> None:
    reviews = [(review_of(name), b"state") for name in ("r", "s")]
    store.put(VERSION, reviews, [("r", "of r"), ("s", "of s")])
    store.delete_texts(VERSION, ["r", "never written"])
    assert store.texts(VERSION, ["r", "s"]) == [None, "of s"]
    assert store.missing(VERSION, [entry for entry, _ in reviews]) == [False, False]


def test_lines_are_written_and_removed_apart_from_states_and_texts(store: MaintenanceStore) -> None:
    gone, kept = review_of("gone", "x:{y}", "lamp", timestamp=2), review_of("kept", "x:{y}", "sofa", timestamp=1)
    store.put(VERSION, [(gone, b"g"), (kept, b"k")], [("gone", "words")])
    (name,) = (name for name, line in store.lines(VERSION, Side.USER, gone.user).items() if b"gone" in line)
    start = store.changes(VERSION, None).revision
    removed = store.remove_lines(VERSION, Side.USER, gone.user, [name])
    told = store.changes(VERSION, start)
    assert (told.revision, told.marks) == (removed, {entity_mark(Side.USER, gone.user)})
    assert store.review_lists(VERSION, users=[gone.user], items=["lamp"]) == ([[kept]], [[gone]])
    assert store.missing(VERSION, [gone, kept]) == [True, False]
    written = store.put_lines(VERSION, [gone])
    told = store.changes(VERSION, removed)
    assert told.revision == written
    assert told.marks is not None
    assert {entity_mark(side, side.entity(gone)) for side in Side} <= told.marks
    assert store.user_reviews(VERSION, [gone.user]) == [[gone, kept]]
    assert store.states(VERSION, ["gone", "kept"]) == [b"g", b"k"]
    assert store.texts(VERSION, ["gone"]) == ["words"]
    assert store.lines(VERSION, Side.ITEM, "nothing") == {}


def test_dropping_a_namespace_drops_its_texts_and_copying_one_copies_them(store: StateStore, tmp_path: Path) -> None:
    store.put(VERSION, numbered_reviews(3))
    store.put_texts(VERSION, [("r0", "first"), ("r2", "third")])
    target = open_store(f"lmdb:{tmp_path}/target")
    copy_namespace(store, target, VERSION)
    assert target.texts(VERSION, ["r0", "r1", "r2"]) == ["first", None, "third"]
    target.close()
    store.drop_namespace(VERSION)
    assert store.texts(VERSION, ["r0", "r2"]) == [None, None]


def test_candidate_sets_are_replaced_listed_and_removed_and_are_of_no_namespace(store: StateStore) -> None:
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


def test_a_claim_stands_until_it_is_ended_or_no_write_can_be_cut_short(store: StateStore) -> None:
    first = None if store.local else b"ann on lamp"
    assert store.claim(VERSION, "r", b"ann on lamp") is None
    assert store.claim(VERSION, "r", b"ann on lamp") == first
    assert store.claim(VERSION, "r", b"bob on lamp") == first
    assert store.claimant(VERSION, "r") == first
    assert store.claimant(VERSION, "another") is None
    store.unclaim(VERSION, "r")
    assert store.claimant(VERSION, "r") is None
