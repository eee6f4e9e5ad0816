from pathlib import Path

import pytest

from ubert_model.errors import ConfigError, StoreUnavailableError
from ubert_model.states import open_store, without_password
from ubert_model.states.lmdb_store import LmdbStore
from ubert_model.states.redis_store import RedisStore, _chunks


@pytest.mark.parametrize("slashes", ["", "//"])
def test_an_lmdb_url_names_its_directory(tmp_path: Path, slashes: str) -> None:
    store = open_store(f"lmdb:{slashes}{tmp_path}/deep/states")
    assert isinstance(store, LmdbStore)
    assert (tmp_path / "deep" / "states" / "data.mdb").exists()
    store.close()


@pytest.mark.parametrize("url", ["redis://host:6379/0", "rediss://:secret@host", "unix:///run/redis.sock"])
def test_a_redis_url_names_a_store_that_has_not_connected_yet(url: str) -> None:
    store = open_store(url)
    assert isinstance(store, RedisStore)
    store.close()


def test_a_cluster_url_goes_to_the_cluster() -> None:
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1 "):
        open_store("redis+cluster://127.0.0.1:1")


@pytest.mark.parametrize(
    "url", ["", "lmdb:", "lmdb://", "redis:", "redis:host", "postgres://u:secret@h/0", "/tmp/states"]
)
def test_an_unknown_url_is_refused_with_the_schemes_there_are(url: str) -> None:
    with pytest.raises(ConfigError, match=r"redis://.*redis\+cluster://.*lmdb:/path") as refusal:
        open_store(url)
    assert "secret" not in str(refusal.value)


def test_a_pipeline_never_exceeds_its_bounds() -> None:
    small = [("GET", b"key")] * 25
    assert [len(chunk) for chunk in _chunks(small, 10)] == [10, 10, 5]
    large = [("SET", b"key", bytes(30_000_000))] * 5 + [("SET", b"key", bytes(70_000_000))] * 2
    assert [len(chunk) for chunk in _chunks(large, 10)] == [2, 2, 1, 1, 1]
    assert list(_chunks([], 10)) == []


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("redis://me:secret@host:1/0", "redis://host:1/0"),
        ("rediss://:se@cret@host:6379/2?password=secret", "rediss://host:6379/2"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("lmdb:/states", "lmdb:/states"),
    ],
)
def test_a_printed_url_tells_the_place_and_no_secret(url: str, printed: str) -> None:
    assert without_password(url) == printed
