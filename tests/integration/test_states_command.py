"""`ubert states` on real stores: ls, verify, verify --repair, drop and copy."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import lmdb
import numpy as np
import pytest
import redis
from typer.testing import CliRunner, Result

from support.store_contents import OTHER_VERSION, VERSION, item_reviews, namespace_of, review_of, user_reviews
from ubert_model.errors import ConfigError, CorruptStateError, InputError
from ubert_model.review import ReviewEntry, Side
from ubert_model.states import FinishedShard, MaintenanceStore, make_codec, open_store
from ubert_model.states.keys import LmdbKeys, RedisKeys
from ubert_model.states.records import pack_shard
from ubert_training.cli import make_app

REVIEWS = 40


class Reopened:
    """A store that is open only during each call: a process may open an LMDB directory once, and the command does."""

    def __init__(self, store_url: str) -> None:
        self._url = store_url

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with closing(open_store(self._url)) as store:
                answer = getattr(store, name)(*arguments, **named)
                return iter([*answer]) if name == "state_sizes" else answer

        return call


@pytest.fixture
def store(store_url: str) -> MaintenanceStore:
    """With one intact namespace."""
    opened = cast("MaintenanceStore", Reopened(store_url))
    opened.open_namespace(namespace_of())
    opened.put(VERSION, [(entry, state_of(entry)) for entry in entries()])
    return opened


def entries() -> list[ReviewEntry]:
    return [review_of(f"r{number}", f"u{number % 7}", f"i{number % 5}", timestamp=number) for number in range(REVIEWS)]


def state_of(entry: ReviewEntry, *, version: str = VERSION, rows: int | None = None, state_dim: int = 8) -> bytes:
    values = np.ones((entry.rows if rows is None else rows, state_dim), dtype=np.float32)
    return make_codec(replace(namespace_of(version), state_dim=state_dim)).encode(values)


def states_command(*arguments: str) -> Result:
    return CliRunner().invoke(make_app(["states"]), ["states", *arguments], env={"COLUMNS": "240"})


@pytest.mark.usefixtures("store")
def test_verify_finds_no_problem_in_an_intact_namespace(store_url: str) -> None:
    result = states_command("verify", "--store", store_url)
    assert result.exit_code == 0, result.output
    assert f"{REVIEWS} reviews checked, 0 problems" in result.output


def test_verify_finds_missing_damaged_and_unlisted_states_and_repair_loses_no_rating(
    store: MaintenanceStore, store_url: str
) -> None:
    lost, changed, foreign, misshapen, narrow = entries()[:5]
    store.delete_states(VERSION, [lost.review_id])
    whole = state_of(changed)
    damaged = [
        (changed, whole[:-1] + bytes([whole[-1] ^ 1])),
        (foreign, state_of(foreign, version=OTHER_VERSION)),
        (misshapen, state_of(misshapen, rows=7)),
        (narrow, state_of(narrow, state_dim=7)),
    ]
    store.put(VERSION, damaged)
    write_unlisted(store, store_url, review_of("unlisted", "nobody", "nothing"))
    result = states_command("verify", "--store", store_url)
    assert result.exit_code == 1
    for line in ("6 problems", "without a state: 1", "damaged states: 4", "no list names: 1", "wrong checksum"):
        assert line in result.output
    repaired = states_command("verify", "--store", store_url, "--repair")
    assert repaired.exit_code == 1  # the removed states are still to be written
    assert "5 reviews repaired" in repaired.output
    removed = [entry.review_id for entry, _ in damaged]
    assert store.states(VERSION, [*removed, "unlisted"]) == [None] * 5
    assert [len(found) for found in user_reviews(store, VERSION, ["u0"])] == [6], "a rating was lost"
    store.put(VERSION, [(entry, state_of(entry)) for entry in (lost, changed, foreign, misshapen, narrow)])
    assert states_command("verify", "--store", store_url).exit_code == 0


def test_repair_adds_a_review_to_the_list_that_lacks_it(store: MaintenanceStore, store_url: str) -> None:
    without_user, without_item = entries()[8:10]
    remove_list(store_url, Side.USER, without_user)
    remove_list(store_url, Side.ITEM, without_item)
    store.put_texts(VERSION, [(without_user.review_id, "kept")])
    found = states_command("verify", "--store", store_url)
    assert "one of two lists only" in found.output
    assert states_command("verify", "--store", store_url, "--repair").exit_code == 0
    assert states_command("verify", "--store", store_url).exit_code == 0
    assert without_user in user_reviews(store, VERSION, [without_user.user])[0]
    assert without_item in item_reviews(store, VERSION, [without_item.item])[0]
    assert store.texts(VERSION, [without_user.review_id]) == ["kept"]


def test_verify_finds_a_damaged_text_and_repair_removes_it_alone(store: MaintenanceStore, store_url: str) -> None:
    damaged, *others = entries()
    store.put_texts(VERSION, [(entry.review_id, "a text") for entry in entries()])
    damage_text(store_url, damaged.review_id)
    found = states_command("verify", "--store", store_url)
    assert found.exit_code == 1
    assert "1 problems" in found.output
    assert f"damaged texts: 1\n    {damaged.review_id}" in found.output
    repaired = states_command("verify", "--store", store_url, "--repair")
    assert repaired.exit_code == 1  # the removed text is still to be written
    assert "`ubert precompute --texts` writes" in repaired.output
    assert store.texts(VERSION, [damaged.review_id]) == [None]
    assert set(store.texts(VERSION, [entry.review_id for entry in others])) == {"a text"}
    assert None not in store.states(VERSION, [entry.review_id for entry in entries()])
    assert states_command("verify", "--store", store_url).exit_code == 0


def test_verify_names_a_damaged_list_and_repair_restores_its_line(store: MaintenanceStore, store_url: str) -> None:
    entry = entries()[3]
    damage_line(store_url, Side.USER, entry)
    found = states_command("verify", "--store", store_url)
    assert found.exit_code == 1
    assert f"damaged line in the review list of user '{entry.user}'" in found.output
    assert "1 problems" in found.output
    assert states_command("verify", "--store", store_url, "--repair").exit_code == 0
    assert None not in store.states(VERSION, [entry.review_id for entry in entries()])
    assert entry in user_reviews(store, VERSION, [entry.user])[0]
    assert states_command("verify", "--store", store_url).exit_code == 0


def test_repair_reports_lost_lines_and_leaves_their_review_missing(store: MaintenanceStore, store_url: str) -> None:
    entry = entries()[3]
    for side in Side:
        damage_line(store_url, side, entry)
    repaired = states_command("verify", "--store", store_url, "--repair")
    assert repaired.exit_code == 1
    assert "no other list replaces: 2" in repaired.output
    assert f"user '{entry.user}'" in repaired.output
    assert store.missing(VERSION, entries()) == [one == entry for one in entries()]
    store.put(VERSION, [(entry, state_of(entry))])
    assert states_command("verify", "--store", store_url).exit_code == 0


def test_ls_prints_what_a_namespace_holds_and_its_finished_shards(store: MaintenanceStore, store_url: str) -> None:
    for number in (1, 3):
        store.finish_shard(VERSION, FinishedShard(corpus="c", shards=8, number=number, reviews=10))
    result = states_command("ls", "--store", store_url)
    assert result.exit_code == 0
    size = sum(len(state_of(entry)) for entry in entries())
    assert result.stdout.splitlines() == [
        f"{VERSION}  int8, D = 8, at most 128 tokens a review",
        "  encoder      encoder",
        f"  holds        {REVIEWS} reviews of 7 users on 5 items, {size / 1e6:,.1f} MB of states",
        "  precomputed  2 of 8 shards (1, 3), 20 reviews of corpus c",
    ]
    assert dict(store.state_sizes(VERSION)) == {entry.review_id: len(state_of(entry)) for entry in entries()}


def test_drop_needs_confirmation_and_removes_only_its_namespace(store: MaintenanceStore, store_url: str) -> None:
    store.open_namespace(namespace_of(OTHER_VERSION))
    refused = states_command("drop", "--store", store_url, "--namespace", VERSION)
    assert isinstance(refused.exception, ConfigError)  # there is no terminal to ask on
    ambiguous = states_command("drop", "--store", store_url, "--namespace", "", "--yes")
    assert isinstance(ambiguous.exception, InputError)
    done = states_command("drop", "--store", store_url, "--namespace", VERSION[:4], "--yes")
    assert f"{REVIEWS} states removed" in done.output
    assert [namespace.version for namespace in store.namespaces()] == [OTHER_VERSION]


def test_a_namespace_with_a_lease_is_dropped_only_with_force(store: MaintenanceStore, store_url: str) -> None:
    store.hold(VERSION, "shop-1/7/ab", 60.0)
    assert "held by      shop-1/7/ab" in states_command("ls", "--store", store_url).stdout
    refused = states_command("drop", "--store", store_url, "--namespace", VERSION, "--yes")
    assert isinstance(refused.exception, InputError)
    assert "shop-1/7/ab" in str(refused.exception)
    assert len([*store.state_sizes(VERSION)]) == REVIEWS
    assert states_command("drop", "--store", store_url, "--namespace", VERSION, "--yes", "--force").exit_code == 0
    assert store.namespaces() == []


def test_copy_copies_all_states_and_shards_and_a_second_copy_nothing(
    store: MaintenanceStore, store_url: str, tmp_path: Path
) -> None:
    store.finish_shard(VERSION, FinishedShard(corpus="c", shards=1, number=1, reviews=REVIEWS))
    arguments = ("copy", "--store", store_url, "--to", f"lmdb:{tmp_path / 'copy'}")
    assert f"{REVIEWS} reviews copied" in states_command(*arguments).output
    assert "0 reviews copied" in states_command(*arguments).output
    with closing(open_store(f"lmdb:{tmp_path / 'copy'}")) as target:
        assert dict(target.state_sizes(VERSION)) == dict(store.state_sizes(VERSION))
        assert target.finished_shards(VERSION) == store.finished_shards(VERSION)
    assert states_command("verify", "--store", f"lmdb:{tmp_path / 'copy'}").exit_code == 0


@pytest.mark.usefixtures("store")
def test_the_urls_may_stand_in_files(store_url: str, tmp_path: Path) -> None:
    for name, url in (("from", store_url), ("to", f"lmdb:{tmp_path / 'copy'}")):
        (tmp_path / name).write_text(f"{url}\n", encoding="utf-8")
    copied = states_command("copy", "--store", f"file:{tmp_path / 'from'}", "--to", f"file:{tmp_path / 'to'}")
    assert f"{REVIEWS} reviews copied" in copied.output
    assert states_command("verify", "--store", f"file:{tmp_path / 'to'}").exit_code == 0


def test_copy_adds_candidate_sets_and_replaces_none(store: MaintenanceStore, store_url: str, tmp_path: Path) -> None:
    store.put_candidates("spring", ["i1", "i0"])
    store.put_candidates("autumn", ["i2"])
    with closing(open_store(f"lmdb:{tmp_path / 'copy'}")) as target:
        target.put_candidates("autumn", ["i9"])
    copied = states_command("copy", "--store", store_url, "--to", f"lmdb:{tmp_path / 'copy'}")
    assert "1 candidate sets" in copied.output
    with closing(open_store(f"lmdb:{tmp_path / 'copy'}")) as target:
        assert {name: target.candidates(name) for name in target.candidate_sets()} == {
            "autumn": ["i9"],
            "spring": ["i1", "i0"],
        }


def test_a_damaged_namespace_description_or_shard_record_is_reported_and_written_again(
    store: MaintenanceStore, store_url: str
) -> None:
    shard = FinishedShard(corpus="c", shards=1, number=1, reviews=REVIEWS)
    store.finish_shard(VERSION, shard)
    keys = RedisKeys(VERSION)
    if store_url.startswith("lmdb"):
        change(store_url, LmdbKeys(VERSION).description, b"{")
        change(store_url, LmdbKeys(VERSION).shard(pack_shard(shard)), b"{")
    else:
        with redis.Redis.from_url(store_url) as client:
            client.hset(keys.NAMESPACES.decode(), VERSION, "{")
            client.srem(keys.shards.decode(), pack_shard(shard).decode())
            client.sadd(keys.shards.decode(), "{")
    error = states_command("ls", "--store", store_url).exception
    assert isinstance(error, CorruptStateError)
    assert f"namespace {VERSION} is damaged (b'{{'): run `ubert precompute` with its bundle" in str(error)
    store.open_namespace(namespace_of())
    assert store.namespaces() == [namespace_of()]
    with pytest.raises(CorruptStateError, match=rf"shard of namespace {VERSION} .* --restore-removed` to write it"):
        store.finished_shards(VERSION)
    store.finish_shard(VERSION, shard)
    assert store.finished_shards(VERSION) == [shard]


def test_ls_does_not_create_a_missing_lmdb_directory(tmp_path: Path) -> None:
    result = states_command("ls", "--store", f"lmdb:{tmp_path / 'nowhere'}")
    assert isinstance(result.exception, ConfigError)
    assert not (tmp_path / "nowhere").exists()


def write_unlisted(store: MaintenanceStore, store_url: str, entry: ReviewEntry) -> None:
    """A state without lines, as a writer leaves it that is killed between the two."""
    store.put(VERSION, [(entry, state_of(entry))])
    for side in Side:
        remove_list(store_url, side, entry)


def remove_list(store_url: str, side: Side, entry: ReviewEntry) -> None:
    """Remove the line of a review from one list: in Redis with the whole list, without an announcement in either."""
    if store_url.startswith("lmdb"):
        change(store_url, LmdbKeys(VERSION).line(side, entry), None)
        return
    with redis.Redis.from_url(store_url) as client:
        assert client.delete(RedisKeys(VERSION).reviews(side, side.entity(entry))) == 1


def damage_text(store_url: str, review_id: str) -> None:
    if store_url.startswith("lmdb"):
        change(store_url, LmdbKeys(VERSION).text(review_id), b"not a text")
        return
    with redis.Redis.from_url(store_url) as client:
        client.set(RedisKeys(VERSION).text(review_id), b"not a text")


def damage_line(store_url: str, side: Side, entry: ReviewEntry) -> None:
    if store_url.startswith("lmdb"):
        change(store_url, LmdbKeys(VERSION).line(side, entry), b"not a line")
        return
    with redis.Redis.from_url(store_url) as client:
        client.hset(RedisKeys(VERSION).reviews(side, side.entity(entry)).decode(), entry.review_id, b"not a line")


def change(store_url: str, key: bytes, value: bytes | None) -> None:
    """Replace the value of a key of an LMDB store, None: delete it."""
    with (
        lmdb.open(store_url.removeprefix("lmdb:"), map_size=1 << 30) as environment,
        environment.begin(write=True) as change,
    ):
        assert change.put(key, value) if value else change.delete(key)
