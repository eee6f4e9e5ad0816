"""A real HAProxy with the configuration that ships, and a test's addresses in place of the containers'."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.compose import ROOT
from support.redis_server import free_port


def haproxy_path() -> str | None:
    """``TEST_HAPROXY`` if it is set: `.ci/run` sets it, so that tests fail without a proxy rather than skip."""
    return os.environ.get("TEST_HAPROXY") or shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")


class HaProxy:
    """Started on entry, killed on exit. ``balance`` is a backend of the configuration.

    A name server at ``name_server_port`` gives the replicas' addresses; all listen on ``replica_port``. ``changes``
    are further texts of the configuration, each with the one to take its place.
    """

    def __init__(
        self,
        directory: Path,
        *,
        balance: str,
        name_server_port: int,
        replica_port: int,
        changes: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._directory = directory
        self._balance = balance
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._configuration = _replaced(
            (ROOT / "docker" / "haproxy.cfg").read_text(encoding="utf-8"),
            {
                "bind :8000": f"bind 127.0.0.1:{port}",
                "service:8000": f"service:{replica_port}",
                "127.0.0.11:53": f"127.0.0.1:{name_server_port}",
                **dict(changes),
            },
        )

    def __enter__(self) -> Self:
        executable = haproxy_path()
        assert executable is not None
        configuration = self._directory / f"{self._balance}.cfg"
        configuration.write_text(self._configuration, encoding="utf-8")
        with (self._directory / f"{self._balance}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [executable, "-db", "-f", configuration],
                env={**os.environ, "UBERT_BALANCE": self._balance},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(timeout=60)


def _replaced(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        assert old in text, f"{old} is not in the configuration"
        text = text.replace(old, new)
    return text
