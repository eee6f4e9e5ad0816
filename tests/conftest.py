"""Fixtures of all suites."""

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from support.redis_server import RedisServer

if TYPE_CHECKING:
    from support.tiny_bundle import TinyBundle

# A law of hypothesis's own, that no example takes 200 ms, would be broken by whatever else the machine has to do.
# Its examples are the same in every run, as all else that is drawn here.
settings.register_profile("any machine", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

if "PYTEST_XDIST_WORKER" in os.environ:
    # A console of rich's is for good as wide as these say when it is made, on import; the controller sets them.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    # The workers share the cores: one thread of arithmetic each, and for each process that a test starts.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The demo comes first: it takes long, and has no use for the bundle that another worker writes meanwhile."""
    items.sort(key=lambda item: item.path.name != "test_demo.py")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> "TinyBundle":
    from support.tiny_bundle import shared_tiny_bundle  # imports torch, which many tests do without

    return shared_tiny_bundle(tmp_path_factory)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis server that all tests of a process share: never break it, start one of your own for that."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture
def logging_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For a test that runs a command in this process: what that does to logging ends with the test. Its handler would
    go on writing to a stream of the test that is closed by then.
    """
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", root.level)
    for name in ("logThreads", "logProcesses", "logMultiprocessing"):
        monkeypatch.setattr(logging, name, getattr(logging, name))
    yield
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler:  # pytest's own are of other classes
            root.removeHandler(handler)
