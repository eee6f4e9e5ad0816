"""HAProxy with our configuration before replicas that only answer: where a request goes, and every error of its own."""

import contextlib
import http.client
import json
import select
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
import pytest

from support.fleet import HOSTS
from support.haproxy import HaProxy, haproxy_path
from support.name_server import NameServer
from support.redis_server import free_port
from support.waiting import wait_until
from ubert_service.http.problems import MEDIA_TYPE, NOT_FOUND, Problem

pytestmark = pytest.mark.skipif(haproxy_path() is None, reason="HAProxy is not installed: apt-get install haproxy")

USERS = ["u1", "u2", "u3", "two words", "a+b", "a/b", "a&b=c", "ü", "用户", '"', "%41", "x" * 256]


class Replica(BaseHTTPRequestHandler):
    """Answers with its address; ``/dies`` closes the connection, ``/slow…`` takes 2 s unless the caller leaves."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet, else it waits for the acknowledgement of its head
    left: ClassVar[set[str]] = set()
    """The slow paths whose caller has left."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a health check reads no more than the status
            super().handle()

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/dies":
            self.close_connection = True
            return
        if self.path.startswith("/slow") and select.select([self.connection], [], [], 2.0)[0]:
            self.left.add(self.path)
            self.close_connection = True
            return
        host = str(self.connection.getsockname()[0]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(host)))
        self.end_headers()
        self.wfile.write(host)

    def do_POST(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def proxy_of(
    folder: Path, *, balance: str, hosts: Sequence[str] = HOSTS, changes: Sequence[tuple[str, str]] = ()
) -> Iterator[httpx.Client]:
    """A client of the proxy, with a replica at each of ``hosts``. ``changes``: as of :class:`HaProxy`."""
    port = free_port()
    with ExitStack() as stack:
        for host in hosts:
            server = stack.enter_context(ThreadingHTTPServer((host, port), Replica))
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        names = stack.enter_context(NameServer(HOSTS))
        proxy = HaProxy(folder, balance=balance, name_server_port=names.port, replica_port=port, changes=changes)
        address = stack.enter_context(proxy).address
        client = stack.enter_context(httpx.Client(base_url=address, timeout=30.0, trust_env=False))
        wait_until(lambda: accepts_connections(client))
        yield client


def accepts_connections(client: httpx.Client) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex((client.base_url.host, client.base_url.port)) == 0


@pytest.fixture(scope="module")
def by_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with proxy_of(tmp_path_factory.mktemp("proxy"), balance="by-user") as client:
        wait_until(lambda: {client.get("/version").text for _ in range(30)} == set(HOSTS))
        yield client


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """With timeouts of a second."""
    changes = [
        ("timeout server 60s", "timeout server 1s"),
        ("timeout http-request 15s", "timeout http-request 1s"),
    ]
    with proxy_of(tmp_path_factory.mktemp("impatient"), balance="any", changes=changes) as client:
        wait_until(lambda: client.get("/version").status_code == 200)
        yield client


def get_anew(client: httpx.Client, path: str) -> httpx.Response:
    """The answer to the first request of a connection. After it, HAProxy closes one whose replica dies, unanswered."""
    return httpx.get(client.base_url.join(path), trust_env=False, timeout=30.0)


def send(client: httpx.Client, head: bytes, body: bytes) -> httpx.Response:
    """The answer to a request of these bytes; the body is sent once the proxy has read the head."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=30.0) as connection:
        connection.sendall(head + b"\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


def assert_problem(answer: httpx.Response, name: str, *, status: int, retryable: bool = False) -> None:
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, MEDIA_TYPE)
    assert Problem.model_validate_json(answer.content).type == f"urn:u-bert:problem:{name}"
    assert answer.headers.get("Retry-After") == ("1" if retryable else None)


def test_every_request_of_a_user_goes_to_one_replica(by_user: httpx.Client) -> None:
    replicas = set()
    for user in USERS:
        pair = {"item": "i1", "user": user}
        answers = [
            by_user.post("/predict", json={"pairs": [pair, {"user": "u1", "item": "i2"}]}),
            by_user.post("/rank", json={"user": user, "candidates": ["i1"] * 10_000}),
            by_user.post("/explain", json={"user_texts": ["Cheap."], "pairs": [pair]}),
            by_user.post("/reviews", json={**pair, "rating": 5, "text": "a" * 60_000}),
            by_user.post("/reviews", json={"text": "a" * 30_000, **pair}),
            by_user.delete("/reviews/r1", params=pair),
            by_user.get(f"/users/{quote(user, safe='')}?limit=3"),
        ]
        (replica,) = {answer.text for answer in answers}
        replicas.add(replica)
    assert replicas == set(HOSTS)


@pytest.mark.parametrize(
    "request_of_nobody",
    [
        {"method": "GET", "url": "/items/i1"},
        {"method": "GET", "url": "/users?prefix=u1"},
        {"method": "POST", "url": "/reviews", "content": json.dumps({"text": "a" * 40_000, "user": "u1"})},
    ],
    ids=["none", "a prefix", "beyond what the proxy searches"],
)
def test_requests_whose_user_the_proxy_does_not_find_go_to_any_replica(
    by_user: httpx.Client, request_of_nobody: dict[str, Any]
) -> None:
    assert {by_user.request(**request_of_nobody).text for _ in range(30)} == set(HOSTS)


def test_the_proxys_own_errors_are_problems(impatient: httpx.Client) -> None:
    malformed = send(impatient, b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked", b"no length\r\n")
    assert_problem(malformed, "malformed-body", status=400)
    slow = send(impatient, b"POST /predict HTTP/1.1\r\nContent-Length: 2", b"{")
    assert_problem(slow, "body-too-slow", status=408)
    assert_problem(get_anew(impatient, "/dies"), "replica-lost", status=502, retryable=True)
    assert_problem(get_anew(impatient, "/slow"), "deadline-passed", status=504)


@pytest.mark.parametrize("address", ["/metrics", "/%6detrics", "/metrics?x=1"])
def test_the_metrics_of_a_replica_are_not_passed_on(by_user: httpx.Client, address: str) -> None:
    assert_problem(by_user.get(address), NOT_FOUND.name, status=NOT_FOUND.status)


def test_only_requests_that_fail_are_logged_and_without_their_address(tmp_path: Path) -> None:
    def logged() -> list[str]:
        return [line for line in (tmp_path / "any.log").read_text().splitlines() if " GET " in line]

    with proxy_of(tmp_path, balance="any") as client:
        wait_until(lambda: client.get("/version").status_code == 200)
        before = logged()  # while no replica was known to be ready
        client.get("/version").raise_for_status()
        assert get_anew(client, "/dies").status_code == 502
        wait_until(lambda: len(logged()) == len(before) + 1)
    assert " GET 502 " in logged()[-1]
    assert "/dies" not in logged()[-1]


def test_a_request_that_says_how_long_it_may_take_is_not_ended_by_the_proxy(impatient: httpx.Client) -> None:
    assert impatient.get("/slow", headers={"X-Request-Timeout": "1e1"}).status_code == 200


def test_a_replica_learns_that_a_caller_has_left(impatient: httpx.Client) -> None:
    with pytest.raises(httpx.ReadTimeout):
        impatient.get("/slow/left", headers={"X-Request-Timeout": "30"}, timeout=0.2)
    wait_until(lambda: "/slow/left" in Replica.left)


def test_while_no_replica_is_ready_the_proxy_answers_as_the_service_does(tmp_path: Path) -> None:
    with proxy_of(tmp_path, balance="any", hosts=()) as client:
        assert_problem(client.get("/version"), "not-ready", status=503, retryable=True)
