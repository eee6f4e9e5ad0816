"""What the tests themselves rest on: nothing outlives it, and no error in it is lost."""

import logging
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from support import fleet
from support.captured_log import captured_log


class Replica:
    """Stands in for a process."""

    running = 0

    def __init__(self, *_: str, port: int) -> None:
        self.client = SimpleNamespace(headers={}, port=port)

    def __enter__(self) -> "Replica":
        Replica.running += 1
        return self

    def __exit__(self, *_: object) -> None:
        Replica.running -= 1


@pytest.mark.parametrize("failing", range(3))
def test_a_fleet_of_which_a_replica_does_not_start_leaves_none_running(
    failing: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whichever it is."""
    asked: list[object] = []

    def wait_until_ready(client: object) -> None:
        asked.append(client)
        if len(asked) == failing + 1:
            raise RuntimeError("not ready")

    monkeypatch.setattr(fleet, "ServeProcess", Replica)
    monkeypatch.setattr(fleet, "wait_until_ready", wait_until_ready)
    with pytest.raises(RuntimeError, match="not ready"), fleet.Fleet(tmp_path, [], {}):
        pytest.fail("the fleet is up")
    assert (len(asked), Replica.running) == (3, 0)


def test_an_error_in_a_caller_of_a_fleet_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    class Client(httpx.Client):
        def post(self, *_: Any, **__: Any) -> httpx.Response:
            asked.set()
            return httpx.Response(200, text="no JSON")

    loaded: Any = SimpleNamespace(proxies={"any": httpx.Client(base_url="http://127.0.0.1:1")}, headers={})
    monkeypatch.setattr(httpx, "Client", Client)
    with pytest.raises(ValueError, match="Expecting value"), fleet.load(loaded, [{}]):
        assert asked.wait(60.0)


def test_capturing_a_log_leaves_every_level_as_it_was() -> None:
    loggers = [logging.getLogger(name) for name in ("", "httpx", "httpcore")]
    before = [logger.level for logger in loggers]
    with captured_log("text"):
        assert [logger.level for logger in loggers] == [logging.DEBUG, logging.WARNING, logging.WARNING]
    assert [logger.level for logger in loggers] == before
