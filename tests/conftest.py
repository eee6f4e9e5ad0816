"""Fixtures for all suites."""

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from support.redis_server import RedisServer

if TYPE_CHECKING:
    from support.tiny_bundle import Corpus, TinyBundle

# Without a deadline: hypothesis's own, 200 ms an example, would fail on a busy machine. Its examples, like everything
# random in these tests, are the same in every run.
settings.register_profile("any machine", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Before any test imports it: the product's packages set this, too, but a test may import ONNX Runtime first.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Every service that tests ask runs on this machine, whatever proxy leads to others.
os.environ["no_proxy"] = "*"

if "PYTEST_XDIST_WORKER" in os.environ:
    # xdist's controller sets these, and a console of rich's takes its width from them for good, on import.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    # The workers share the cores: one arithmetic thread for each of them, and for each process that a test starts.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the demo first: it takes long, and does not need the bundle that another worker writes meanwhile."""
    items.sort(key=lambda item: item.path.name != "test_demo.py")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> "TinyBundle":
    from support.tiny_bundle import shared_tiny_bundle  # imports torch, which many tests do without

    return shared_tiny_bundle(tmp_path_factory)


@pytest.fixture(scope="session")
def corpus(tiny: "TinyBundle") -> "Corpus":
    """Some of its users and items are unknown to the model; from ``u8`` and ``i12`` on they have no reviews."""
    from support.tiny_bundle import random_corpus

    return random_corpus(tiny.model, users=8, items=12, reviews=48)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis server that all tests of a process share. A test that breaks a server must start its own."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture
def isolated_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a command that runs in the test's process does to logging: otherwise its handler would go on writing to
    a stream that is closed after the test.
    """
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", root.level)
    for name in ("logThreads", "logProcesses", "logMultiprocessing"):
        monkeypatch.setattr(logging, name, getattr(logging, name))
    yield
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler:  # pytest's own are of other classes
            root.removeHandler(handler)
