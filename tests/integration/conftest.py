"""Fixtures for the integration suites."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import redis

from support.app_settings import settings_for
from support.running_app import serving
from support.tiny_bundle import Corpus, TinyBundle, changed_copy, random_corpus
from ubert_model.bundle import Bundle
from ubert_model.states import MaintenanceStore, open_store

REDIS_DATABASE = 7


@pytest.fixture(scope="session")
def other(tiny: TinyBundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that rates a star lower than ``tiny``, with another encoder digest, so with its own namespaces."""
    bias = replace(tiny.bundle.manifest.bias, mean=tiny.bundle.manifest.bias.mean - 1)
    path = tmp_path_factory.mktemp("other") / "bundle"
    return changed_copy(tiny.bundle, path, bias=bias, encoder_digest="another encoder")


@pytest.fixture(scope="session")
def corpus(tiny: TinyBundle) -> Corpus:
    """Some of its users and items are unknown to the model; from ``u8`` and ``i12`` on they have no reviews."""
    return random_corpus(tiny.model, users=8, items=12, reviews=48)


@pytest.fixture(params=["lmdb", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store, of each kind in turn."""
    return f"lmdb:{tmp_path / 'states'}" if request.param == "lmdb" else str(request.getfixturevalue("own_redis_url"))


@pytest.fixture
def lmdb_store(tmp_path: Path) -> Iterator[MaintenanceStore]:
    store = open_store(f"lmdb:{tmp_path / 'states'}")
    yield store
    store.close()


@pytest.fixture(scope="module")
def reader(tiny: TinyBundle, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service over the corpus, which no test may change."""
    store = open_store(f"lmdb:{tmp_path_factory.mktemp('read')}")
    corpus.write(store, tiny.bundle)
    with serving(settings_for(tiny.bundle), store) as client:
        yield client
    store.close()


@pytest.fixture
def own_redis_url(redis_url: str) -> Iterator[str]:
    """The URL of a database of the shared server, empty at the beginning of the test."""
    url = f"{redis_url.rpartition('/')[0]}/{REDIS_DATABASE}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def redis_store(own_redis_url: str) -> Iterator[MaintenanceStore]:
    store = open_store(own_redis_url)
    yield store
    store.close()
