"""Replicas of the service as the compose file runs them: one store, one host name, HAProxy in front."""

import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from support.haproxy import HaProxy
from support.name_server import NameServer
from support.redis_server import free_port
from support.running_app import wait_until_ready
from support.serve_process import ServeProcess
from support.waiting import wait_until

HOSTS = ("127.0.0.11", "127.0.0.12", "127.0.0.13")
_BALANCES = ("any", "by-user")


class Fleet:
    """Three replicas on one port of three addresses. ``proxies``: a client of HAProxy for each balancing mode."""

    def __init__(self, directory: Path, arguments: Sequence[str], headers: Mapping[str, str]) -> None:
        self._directory = directory
        self._arguments = arguments
        self.headers = headers
        self._numbers = itertools.count()
        self.port = free_port()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            with ThreadPoolExecutor(len(HOSTS)) as threads:
                starts = [threads.submit(self._start, host) for host in HOSTS]
            self.replicas = [start.result() for start in starts if start.exception() is None]
            stack.callback(self._kill_all)
            for start in starts:
                start.result()  # raises what kept a replica from starting
            names = stack.enter_context(NameServer(HOSTS))
            self.proxies: dict[str, httpx.Client] = {}
            for balance in _BALANCES:
                proxy = HaProxy(self._directory, balance=balance, name_server_port=names.port, replica_port=self.port)
                address = stack.enter_context(proxy).address
                client = httpx.Client(base_url=address, headers=self.headers, timeout=30.0, trust_env=False)
                self.proxies[balance] = stack.enter_context(client)
                _wait_for_answers(client)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def restart_in_turn(self, arguments: Sequence[str]) -> None:
        """A rolling restart: each replica is terminated, and ready again before the next one's turn."""
        self._arguments = arguments
        for number, replica in enumerate(self.replicas):
            assert replica.terminate() == 0
            self.restart(number)

    def restart(self, number: int) -> None:
        """Replace a process that has ended."""
        self.replicas[number].__exit__(None, None, None)
        self.replicas[number] = self._start(HOSTS[number])

    def replica_that_answers(self, balance: str, path: str, body: Mapping[str, Any]) -> int:
        """Send a request through the proxy; returns the number of the replica that logs it."""
        request_id = f"asked-{next(self._numbers)}"
        answer = self.proxies[balance].post(path, json=body, headers={"X-Request-ID": request_id})
        assert answer.status_code == 200, answer.text

        def logged_by() -> list[int]:
            return [
                number
                for number, replica in enumerate(self.replicas)
                if any(line.rstrip().endswith(f"request_id={request_id}") for line in list(replica.log))
            ]

        wait_until(logged_by, or_fail=f"no replica has logged request {request_id}")
        return logged_by()[0]

    def _start(self, host: str) -> ServeProcess:
        with ExitStack() as stack:
            replica = stack.enter_context(ServeProcess(*self._arguments, "--host", host, port=self.port))
            replica.client.headers.update(self.headers)
            wait_until_ready(replica.client)
            stack.pop_all()
        return replica

    def _kill_all(self) -> None:
        for replica in self.replicas:
            replica.__exit__(None, None, None)


@dataclass(kw_only=True)
class LoadResults:
    """The answers to a load, each with the time of its request (monotonic seconds). ``failed`` describes any that was
    not a 200.
    """

    answers: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return self.answers_since(0.0)

    def answers_since(self, moment: float) -> list[dict[str, Any]]:
        return [body for asked_at, body in list(self.answers) if asked_at > moment]


@contextmanager
def load(fleet: Fleet, requests: Sequence[Mapping[str, Any]]) -> Iterator[LoadResults]:
    """While entered, two callers for each balancing mode repeat ``/predict``, each over one connection. What any
    of them raises is raised on exit.
    """
    results, ended = LoadResults(), threading.Event()

    def ask(address: httpx.URL) -> None:
        with httpx.Client(base_url=address, headers=fleet.headers, timeout=30.0, trust_env=False) as client:
            for body in itertools.cycle(requests):
                if ended.is_set():
                    return
                asked_at = time.monotonic()
                try:
                    answer = client.post("/predict", json=body)
                except httpx.HTTPError as error:
                    results.failed.append(repr(error))
                    continue
                if answer.status_code == 200:
                    results.answers.append((asked_at, answer.json()))
                else:
                    results.failed.append(f"{answer.status_code} {answer.text}")
                time.sleep(0.01)

    with ThreadPoolExecutor(2 * len(fleet.proxies)) as threads:
        callers = [threads.submit(ask, proxy.base_url) for proxy in fleet.proxies.values() for _ in range(2)]
        try:
            yield results
        finally:
            ended.set()
    for caller in callers:
        caller.result()


def _wait_for_answers(client: httpx.Client) -> None:
    """Wait until the proxy has found the replicas through the name server."""

    def answers() -> bool:
        try:
            return client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    wait_until(answers, or_fail="the proxy finds no replica")
