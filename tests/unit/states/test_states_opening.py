"""Store URLs: what each one opens, what is refused, and what is printed of one."""

from pathlib import Path

import pytest

from ubert_model.errors import ConfigError, StoreError, StoreUnavailableError
from ubert_model.states import open_existing_store, open_store, url_or_content, without_password
from ubert_model.states.lmdb_store import LmdbStore
from ubert_model.states.redis_address import RedisAddress, Topology
from ubert_model.states.redis_pipelines import chunks
from ubert_model.states.redis_store import RedisStore


@pytest.mark.parametrize("slashes", ["", "//"])
def test_an_lmdb_url_creates_a_store_in_its_directory(tmp_path: Path, slashes: str) -> None:
    store = open_store(f"lmdb:{slashes}{tmp_path}/deep/states")
    assert isinstance(store, LmdbStore)
    assert (tmp_path / "deep" / "states" / "data.mdb").exists()
    store.close()


@pytest.mark.parametrize("slashes", ["", "//"])
def test_opening_an_existing_store_never_creates_one(tmp_path: Path, slashes: str) -> None:
    url = f"lmdb:{slashes}{tmp_path}/states"
    with pytest.raises(ConfigError, match=r"/states holds no state store.*ubert precompute --store"):
        open_existing_store(url)
    assert not list(tmp_path.iterdir())
    open_store(url).close()
    open_existing_store(url).close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://host:6379/0",
        "rediss://:secret@host",
        "unix:///run/redis.sock",
        "redis+cluster://host,[::1]:7001",
        "rediss+sentinel://:secret@host/states/0?ssl_cert_reqs=none&sentinel_password=other",
    ],
)
def test_a_redis_url_opens_a_store_without_connecting(url: str) -> None:
    store = open_store(url)
    assert isinstance(store, RedisStore)
    store.close()


def test_a_cluster_url_connects_to_the_cluster() -> None:
    store = open_store("redis+cluster://127.0.0.1:1")
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1 .*Cluster"):
        store.ping()


def test_an_address_holds_every_part_of_its_url() -> None:
    url = "rediss+sentinel://me:secret@one,two:7,[::1]/states/3?wait_replicas=2&patience=1.5&sentinel_password=p&db=4"
    address = RedisAddress.parse(url)
    assert address.topology is Topology.SENTINEL
    assert address.hosts == (("one", 26379), ("two", 7), ("::1", 26379))
    assert (address.service, address.wait_replicas, address.patience_s) == ("states", 2, 1.5)
    assert address.client_url == "rediss://me:secret@one:26379/3?db=4"
    assert address.sentinel_credentials == {"password": "p"}
    assert "secret" not in repr(address)
    assert address.display_name == "Redis at one:26379 and 2 more"


def test_a_password_may_hold_an_at_sign_and_the_host_may_be_omitted() -> None:
    address = RedisAddress.parse("redis://me:se@cret@one:7/0")
    assert (address.hosts, address.client_url) == ((("one", 7),), "redis://me:se@cret@one:7/0")
    assert RedisAddress.parse("redis://").hosts == (("localhost", 6379),)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://:secret@one,two/0", r"several servers.*redis\+cluster"),
        ("redis+sentinel://:secret@one", "add /NAME"),
        ("redis://:secret@one?wait_replicas=some", "wait_replicas=some"),
        ("redis://:secret@one?wait_replicas=1.5", "whole number"),
        ("redis://:secret@one?patience=-1", "patience=-1"),
        ("redis://:secret@one?patience=nan", "patience=nan"),
        ("redis://:sec[ret@one", "percent-escape"),
        ("redis+cluster://:secret@one,[::1", "percent-escape"),
    ],
)
def test_an_invalid_redis_url_is_refused_with_the_remedy(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as refusal:
        open_store(url)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "url", ["", "lmdb:", "lmdb://", "redis:", "redis:host", "postgres://u:secret@h/0", "secret@h", "/tmp/states"]
)
def test_an_unknown_url_is_refused_with_the_known_schemes(url: str) -> None:
    with pytest.raises(ConfigError, match=r"redis://.*redis\+cluster://.*lmdb:/path") as refusal:
        open_store(url)
    assert "secret" not in str(refusal.value)


def test_commands_are_cut_into_pipelines_of_bounded_length_and_size() -> None:
    small = [("GET", b"key")] * 25
    assert [len(chunk) for chunk in chunks(small, 10)] == [10, 10, 5]
    large = [("SET", b"key", bytes(30_000_000))] * 5 + [("SET", b"key", bytes(70_000_000))] * 2
    assert [len(chunk) for chunk in chunks(large, 10)] == [2, 2, 1, 1, 1]
    assert list(chunks([], 10)) == []


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis://me:secret@host:1/0", "redis://host:1/0"),
        ("rediss://:se@cret@host:6379/2?password=secret", "rediss://host:6379/2"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("lmdb:/states", "lmdb:/states"),
    ],
)
def test_a_printed_url_shows_no_credentials(url: str, printed: str) -> None:
    assert without_password(url) == printed


def test_a_file_may_hold_the_url(tmp_path: Path) -> None:
    file = tmp_path / "url"
    with pytest.raises(ConfigError, match="a file that holds the URL"):
        url_or_content(f"file:{file}")
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"file:{file}: the file is empty; write the URL of the store to it"):
        url_or_content(f"file:{file}")
    file.write_text("redis://:secret@host:1/0\n", encoding="utf-8")
    assert url_or_content(f"file:{file}") == "redis://:secret@host:1/0"
    assert url_or_content("lmdb:/states") == "lmdb:/states"


def test_no_store_is_created_in_a_directory_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "reviews.parquet").write_bytes(b"an import")
    with pytest.raises(StoreError, match=rf"{tmp_path} holds reviews.parquet and no state store: give a new directory"):
        open_store(f"lmdb:{tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["reviews.parquet"]


def test_a_file_is_refused_as_a_store(tmp_path: Path) -> None:
    (tmp_path / "split.parquet").write_bytes(b"a split")
    with pytest.raises(StoreError, match=r"split.parquet is a file and not a state store: give a directory"):
        open_store(f"lmdb:{tmp_path / 'split.parquet'}")


def test_a_store_is_created_on_an_empty_volume_and_after_a_first_start_was_killed(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "lock.mdb").touch()
    for _ in range(2):
        open_store(f"lmdb:{tmp_path}").close()
