"""Fixtures for the integration suites."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import redis

from support.app_settings import settings_for
from support.running_app import serving
from support.tiny_bundle import Corpus, TinyBundle, changed_copy
from ubert_model.bundle import Bundle
from ubert_model.states import MaintenanceStore, open_store
from ubert_service.serving.opened import OpenedBundle
from ubert_service.serving.served import ServedBundle

REDIS_DATABASE = 7


@pytest.fixture(scope="session")
def other(tiny: TinyBundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that rates a star lower than ``tiny``, with another encoder digest, so with its own namespaces."""
    bias = replace(tiny.bundle.manifest.bias, mean=tiny.bundle.manifest.bias.mean - 1)
    path = tmp_path_factory.mktemp("other") / "bundle"
    return changed_copy(tiny.bundle, path, bias=bias, encoder_digest="another encoder")


@pytest.fixture(params=["lmdb", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store, of each kind in turn."""
    return f"lmdb:{tmp_path / 'states'}" if request.param == "lmdb" else str(request.getfixturevalue("own_redis_url"))


@pytest.fixture
def lmdb_store(tmp_path: Path) -> Iterator[MaintenanceStore]:
    store = open_store(f"lmdb:{tmp_path / 'states'}")
    yield store
    store.close()


@pytest.fixture
def filled_store(tiny: TinyBundle, corpus: Corpus, lmdb_store: MaintenanceStore) -> MaintenanceStore:
    """``lmdb_store`` with the corpus."""
    corpus.write(lmdb_store, tiny.bundle)
    return lmdb_store


@pytest.fixture
def served(tiny: TinyBundle, filled_store: MaintenanceStore) -> ServedBundle:
    """The bundle over a store of the test's own, with the corpus."""
    return ServedBundle(OpenedBundle.open(settings_for(tiny.bundle)), filled_store)


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


@pytest.fixture
def filled_redis_store(tiny: TinyBundle, corpus: Corpus, redis_store: MaintenanceStore) -> MaintenanceStore:
    """``redis_store`` with the corpus."""
    corpus.write(redis_store, tiny.bundle)
    return redis_store
