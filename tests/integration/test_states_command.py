"""`ubert states` over real stores: what it lists, finds, mends, removes and moves."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import redis
from click.testing import Result
from typer.testing import CliRunner

from support.store_contents import OTHER_VERSION, VERSION, namespace_of, review_of
from ubert_model.errors import ConfigError, CorruptStateError, InputError
from ubert_model.states import FinishedShard, ReviewEntry, make_codec, open_store
from ubert_model.states.keys import LmdbKeys, RedisKeys, Side
from ubert_model.states.records import pack_shard
from ubert_training.cli import make_app

REVIEWS = 40


@pytest.fixture(params=["lmdb", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"lmdb:{tmp_path / 'states'}" if request.param == "lmdb" else str(request.getfixturevalue("own_redis_url"))


class Reopened:
    """A store that is opened anew for every call: a process opens an LMDB directory once, and the command does too."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with closing(open_store(self._url)) as store:
                answer = getattr(store, name)(*arguments)
                return dict(answer) if name == "state_sizes" else answer

        return call


@pytest.fixture
def store(url: str) -> Reopened:
    """A namespace without fault."""
    opened = Reopened(url)
    opened.open_namespace(namespace_of())
    opened.put(VERSION, [(entry, state_of(entry)) for entry in entries()])
    return opened


def entries() -> list[ReviewEntry]:
    return [review_of(f"r{number}", f"u{number % 7}", f"i{number % 5}", timestamp=number) for number in range(REVIEWS)]


def state_of(entry: ReviewEntry, *, version: str = VERSION, tokens: int | None = None, state_dim: int = 8) -> bytes:
    values = np.ones((entry.rows if tokens is None else tokens, state_dim), dtype=np.float32)
    return make_codec(replace(namespace_of(version), state_dim=state_dim)).encode(values)


def states_command(*arguments: str, said: str = "") -> Result:
    return CliRunner().invoke(make_app(["states"]), ["states", *arguments], input=said, env={"COLUMNS": "240"})


@pytest.mark.usefixtures("store")
def test_a_sound_namespace_verifies(url: str) -> None:
    result = states_command("verify", "--store", url)
    assert result.exit_code == 0, result.output
    assert f"{REVIEWS} reviews checked, 0 problems" in result.output


def test_every_fault_is_found_and_what_loses_no_rating_is_mended(store: Reopened, url: str) -> None:
    lost, changed, foreign, misshapen, narrow = entries()[:5]
    store.delete_states(VERSION, [lost.review_id])
    whole = state_of(changed)
    damaged = [
        (changed, whole[:-1] + bytes([whole[-1] ^ 1])),
        (foreign, state_of(foreign, version=OTHER_VERSION)),
        (misshapen, state_of(misshapen, tokens=7)),
        (narrow, state_of(narrow, state_dim=7)),
    ]
    store.put(VERSION, damaged)
    orphan = review_of("orphan", "nobody", "nothing")
    write_unlisted(store, url, orphan)
    result = states_command("verify", "--store", url)
    assert result.exit_code == 1
    for line in ("6 problems", "without a state: 1", "damaged states: 4", "no list names: 1", "wrong checksum"):
        assert line in result.output
    mended = states_command("verify", "--store", url, "--repair")
    assert mended.exit_code == 1, "the removed states are still to be written"
    assert "5 reviews repaired" in mended.output
    gone = [entry.review_id for entry, _ in damaged]
    assert store.states(VERSION, [*gone, "orphan"]) == [None] * 5
    assert [len(found) for found in store.user_reviews(VERSION, ["u0"])] == [6], "a rating was lost"
    store.put(VERSION, [(entry, state_of(entry)) for entry in (lost, changed, foreign, misshapen, narrow)])
    assert states_command("verify", "--store", url).exit_code == 0


def test_a_review_in_one_list_only_is_found_from_either_side_and_written_to_both(store: Reopened, url: str) -> None:
    without_user, without_item = entries()[8:10]
    remove(
        url, RedisKeys(VERSION).reviews(Side.USER, without_user.user), LmdbKeys(VERSION).line(Side.USER, without_user)
    )
    remove(
        url, RedisKeys(VERSION).reviews(Side.ITEM, without_item.item), LmdbKeys(VERSION).line(Side.ITEM, without_item)
    )
    store.put_texts(VERSION, [(without_user.review_id, "kept")])
    found = states_command("verify", "--store", url)
    assert "one of two lists only" in found.output
    assert states_command("verify", "--store", url, "--repair").exit_code == 0
    assert states_command("verify", "--store", url).exit_code == 0
    assert without_user in store.user_reviews(VERSION, [without_user.user])[0]
    assert without_item in store.item_reviews(VERSION, [without_item.item])[0]
    assert store.texts(VERSION, [without_user.review_id]) == ["kept"]


def test_a_damaged_text_is_found_and_removed_and_no_other_is(store: Reopened, url: str) -> None:
    harmed, *others = entries()
    store.put_texts(VERSION, [(entry.review_id, "a text") for entry in entries()])
    overwrite(url, RedisKeys(VERSION).text(harmed.review_id), LmdbKeys(VERSION).text(harmed.review_id))
    found = states_command("verify", "--store", url)
    assert found.exit_code == 1
    assert "1 problems" in found.output
    assert f"damaged texts: 1\n    {harmed.review_id}" in found.output
    mended = states_command("verify", "--store", url, "--repair")
    assert mended.exit_code == 1, "the text is still to be written"
    assert "`ubert precompute --texts` writes" in mended.output
    assert store.texts(VERSION, [harmed.review_id]) == [None]
    assert set(store.texts(VERSION, [entry.review_id for entry in others])) == {"a text"}
    assert None not in store.states(VERSION, [entry.review_id for entry in entries()])
    assert states_command("verify", "--store", url).exit_code == 0


def test_a_damaged_list_is_named_and_no_state_is_taken_for_unlisted(store: Reopened, url: str) -> None:
    entry = entries()[3]
    damage(url, Side.USER, entry)
    found = states_command("verify", "--store", url)
    assert found.exit_code == 1
    assert f"damaged line in the review list of user '{entry.user}'" in found.output
    assert "1 problems" in found.output
    assert states_command("verify", "--store", url, "--repair").exit_code == 0
    assert None not in store.states(VERSION, [entry.review_id for entry in entries()])
    assert entry in store.user_reviews(VERSION, [entry.user])[0]
    assert states_command("verify", "--store", url).exit_code == 0


def test_what_a_repair_cannot_restore_is_told_and_is_missing_for_precompute(store: Reopened, url: str) -> None:
    entry = entries()[3]
    for side in Side:
        damage(url, side, entry)
    mended = states_command("verify", "--store", url, "--repair")
    assert mended.exit_code == 1
    assert "no other list replaces: 2" in mended.output
    assert f"user '{entry.user}'" in mended.output
    assert store.missing(VERSION, entries()) == [one == entry for one in entries()]
    store.put(VERSION, [(entry, state_of(entry))])
    assert states_command("verify", "--store", url).exit_code == 0


def test_ls_tells_what_a_namespace_holds_and_which_shards_are_done(store: Reopened, url: str) -> None:
    for number in (1, 3):
        store.finish_shard(VERSION, FinishedShard(corpus="c", shards=8, number=number, reviews=10))
    result = states_command("ls", "--store", url)
    assert result.exit_code == 0
    size = sum(len(state_of(entry)) for entry in entries())
    assert result.stdout.splitlines() == [
        f"{VERSION}  int8, D = 8, at most 128 tokens a review",
        "  encoder      encoder",
        f"  holds        {REVIEWS} reviews of 7 users on 5 items, {size / 1e6:,.1f} MB of states",
        "  precomputed  2 of 8 shards (1, 3), 20 reviews of corpus c",
    ]
    assert store.state_sizes(VERSION) == {entry.review_id: len(state_of(entry)) for entry in entries()}


def test_dropping_asks_first_and_removes_only_its_namespace(store: Reopened, url: str) -> None:
    store.open_namespace(namespace_of(OTHER_VERSION))
    refused = states_command("drop", "--store", url, "--namespace", VERSION)
    assert isinstance(refused.exception, ConfigError), "nobody was there to ask"
    ambiguous = states_command("drop", "--store", url, "--namespace", "", "--yes")
    assert isinstance(ambiguous.exception, InputError)
    done = states_command("drop", "--store", url, "--namespace", VERSION[:4], "--yes")
    assert f"{REVIEWS} states removed" in done.output
    assert [namespace.version for namespace in store.namespaces()] == [OTHER_VERSION]


def test_a_namespace_that_a_service_reads_is_dropped_by_force_alone(store: Reopened, url: str) -> None:
    store.hold(VERSION, "shop-1/7/ab", 60.0)
    assert "held by      shop-1/7/ab" in states_command("ls", "--store", url).stdout
    refused = states_command("drop", "--store", url, "--namespace", VERSION, "--yes")
    assert isinstance(refused.exception, InputError)
    assert "shop-1/7/ab" in str(refused.exception)
    assert len(store.state_sizes(VERSION)) == REVIEWS
    assert states_command("drop", "--store", url, "--namespace", VERSION, "--yes", "--force").exit_code == 0
    assert store.namespaces() == []


def test_a_copy_moves_everything_and_a_second_one_nothing(store: Reopened, url: str, tmp_path: Path) -> None:
    store.finish_shard(VERSION, FinishedShard(corpus="c", shards=1, number=1, reviews=REVIEWS))
    arguments = ("copy", "--store", url, "--to", f"lmdb:{tmp_path / 'copy'}")
    assert f"{REVIEWS} reviews copied" in states_command(*arguments).output
    assert "0 reviews copied" in states_command(*arguments).output
    with closing(open_store(f"lmdb:{tmp_path / 'copy'}")) as target:
        assert dict(target.state_sizes(VERSION)) == store.state_sizes(VERSION)
        assert target.finished_shards(VERSION) == store.finished_shards(VERSION)
    assert states_command("verify", "--store", f"lmdb:{tmp_path / 'copy'}").exit_code == 0


def test_a_copy_takes_the_candidate_sets_along_and_replaces_none(store: Reopened, url: str, tmp_path: Path) -> None:
    store.put_candidates("spring", ["i1", "i0"])
    store.put_candidates("autumn", ["i2"])
    with closing(open_store(f"lmdb:{tmp_path / 'copy'}")) as target:
        target.put_candidates("autumn", ["its own"])
    copied = states_command("copy", "--store", url, "--to", f"lmdb:{tmp_path / 'copy'}")
    assert "1 candidate sets" in copied.output
    with closing(open_store(f"lmdb:{tmp_path / 'copy'}")) as target:
        assert {name: target.candidates(name) for name in target.candidate_sets()} == {
            "autumn": ["its own"],
            "spring": ["i1", "i0"],
        }


def test_a_damaged_description_or_record_of_a_shard_is_told_with_the_remedy_and_written_anew(
    store: Reopened, url: str
) -> None:
    shard = FinishedShard(corpus="c", shards=1, number=1, reviews=REVIEWS)
    store.finish_shard(VERSION, shard)
    keys = RedisKeys(VERSION)
    if url.startswith("lmdb"):
        change(url, LmdbKeys(VERSION).description, b"{")
        change(url, LmdbKeys(VERSION).shard(pack_shard(shard)), b"{")
    else:
        with redis.Redis.from_url(url) as client:
            client.hset(keys.NAMESPACES.decode(), VERSION, "{")
            client.srem(keys.shards.decode(), pack_shard(shard).decode())
            client.sadd(keys.shards.decode(), "{")
    told = states_command("ls", "--store", url).exception
    assert isinstance(told, CorruptStateError)
    assert f"namespace {VERSION} is damaged (b'{{'): run `ubert precompute` with its bundle" in str(told)
    store.open_namespace(namespace_of())
    assert store.namespaces() == [namespace_of()]
    with pytest.raises(CorruptStateError, match=rf"shard of namespace {VERSION} .* --restore-removed` to write it"):
        store.finished_shards(VERSION)
    store.finish_shard(VERSION, shard)
    assert store.finished_shards(VERSION) == [shard]


def test_looking_at_a_directory_that_is_not_there_does_not_make_it(tmp_path: Path) -> None:
    result = states_command("ls", "--store", f"lmdb:{tmp_path / 'nowhere'}")
    assert isinstance(result.exception, ConfigError)
    assert not (tmp_path / "nowhere").exists()


def write_unlisted(store: Reopened, url: str, entry: ReviewEntry) -> None:
    """What a writer leaves that is killed between a state and its lines."""
    store.put(VERSION, [(entry, state_of(entry))])
    for side in Side:
        remove(url, RedisKeys(VERSION).reviews(side, side.entity(entry)), LmdbKeys(VERSION).line(side, entry))


def remove(url: str, redis_key: bytes, lmdb_key: bytes) -> None:
    """Take one key out of the engine behind the store's back."""
    if url.startswith("lmdb"):
        change(url, lmdb_key, None)
        return
    with redis.Redis.from_url(url) as client:
        assert client.delete(redis_key) == 1


def overwrite(url: str, redis_key: bytes, lmdb_key: bytes) -> None:
    if url.startswith("lmdb"):
        change(url, lmdb_key, b"not a text")
        return
    with redis.Redis.from_url(url) as client:
        client.set(redis_key, b"not a text")


def damage(url: str, side: Side, entry: ReviewEntry) -> None:
    if url.startswith("lmdb"):
        change(url, LmdbKeys(VERSION).line(side, entry), b"not a line")
        return
    with redis.Redis.from_url(url) as client:
        client.hset(RedisKeys(VERSION).reviews(side, side.entity(entry)).decode(), entry.review_id, b"not a line")


def change(url: str, key: bytes, value: bytes | None) -> None:
    with lmdb.open(url.removeprefix("lmdb:"), map_size=1 << 30) as environment, environment.begin(write=True) as change:
        assert change.put(key, value) if value else change.delete(key)
