"""The middleware, called directly: a client could not be made to act at the right moment."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from ubert_service.access.key_file import KeyFile
from ubert_service.errors import OverloadedError, UnauthenticatedError
from ubert_service.http.gate import QueueGate
from ubert_service.http.middleware import BodyLimit, RequestFrame, request_id_of, require_utf8
from ubert_service.observability.metrics import PrometheusMetrics
from ubert_service.observability.tracing import Untraced

MAX_BYTES = 10
TIMEOUT_S = 60.0


def scope_of(**headers: str) -> Scope:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    now = time.monotonic()
    state = {"arrived": now, "deadline": now + TIMEOUT_S}
    return {"type": "http", "method": "POST", "path": "/predict", "headers": named, "state": state}


def scope_in_app(**headers: str) -> Scope:
    """As of a request to an app that runs: with what its lifespan provides."""
    app = FastAPI()
    app.state.context = SimpleNamespace(
        settings=SimpleNamespace(request_timeout=TIMEOUT_S),
        metrics=PrometheusMetrics(),
        tracing=Untraced(),
        stopping=asyncio.Event(),
    )
    return {**scope_of(**headers), "app": app}


async def must_not_receive() -> Message:
    pytest.fail("the body was received")


async def discard(message: Message) -> None: ...


def refuse() -> None:
    raise OverloadedError("full", retry_after_s=6.2)


async def read_body(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass


def read_limited(receive: Receive, **headers: str) -> Coroutine[Any, Any, None]:
    """Read a body of at most ``MAX_BYTES``."""
    return BodyLimit(read_body, MAX_BYTES, TIMEOUT_S)(scope_of(**headers), receive, discard)


def test_a_body_whose_announced_length_is_too_large_is_refused_before_it_is_received() -> None:
    with pytest.raises(HTTPException, match="11 bytes") as refused:
        asyncio.run(read_limited(must_not_receive, content_length="11"))
    assert refused.value.status_code == 413


@pytest.mark.parametrize("headers", [{"content_length": str(MAX_BYTES)}, {}], ids=["announced", "in chunks"])
def test_a_body_of_exactly_the_limit_is_read(headers: dict[str, str]) -> None:
    parts = [{"type": "http.request", "body": b"x" * 5, "more_body": more} for more in (False, True)]

    async def receive() -> Message:
        return parts.pop()

    asyncio.run(read_limited(receive, **headers))
    assert parts == []


MANY = 60_000


@pytest.mark.parametrize("part_bytes", [97, 65_536])
@pytest.mark.parametrize(
    ("body", "is_read"),
    [
        (b"[" + b"0," * MANY, False),
        (b"[" * MANY, False),
        (b'{"' + b'":0,"' * MANY, False),
        (b'["' + rb"\"" * 3 + b'",' + b"[]," * MANY, False),
        (b'["' + rb"\\" * 5 + b'",' + b"{}," * MANY, False),
        (("[" + '"\u2205",' + "[" * MANY).encode("utf-16-le"), False),
        (b'{"text": "' + rb"[{,\",\\" * MANY + b'"}', True),
        (b"[" + b'"item",' * 11_000 + b"0]", True),
    ],
    ids=["values", "depth", "members", "after quotes", "after backslashes", "UTF-16", "one text", "a long ranking"],
)
def test_a_body_of_more_json_values_than_any_route_takes_is_refused_before_it_is_parsed(
    body: bytes, is_read: bool, part_bytes: int
) -> None:
    parts = iter(range(0, len(body), part_bytes))

    async def receive() -> Message:
        start = next(parts)
        more = start + part_bytes < len(body)
        return {"type": "http.request", "body": body[start : start + part_bytes], "more_body": more}

    limit = BodyLimit(read_body, 2 * len(body), TIMEOUT_S)(scope_of(content_type="application/json"), receive, discard)
    with nullcontext() if is_read else pytest.raises(HTTPException, match="50000 JSON values"):
        asyncio.run(limit)


@pytest.mark.parametrize(("number", "size", "small"), [(16, 100_000, 1_000), (2_072, 65_536, 0)])
def test_too_many_bodies_at_once_are_refused_and_a_small_one_beside_large_ones_is_read(
    number: int, size: int, small: int
) -> None:
    async def scenario() -> None:
        answered = asyncio.Event()

        async def answer_late(scope: Scope, receive: Receive, send: Send) -> None:
            await read_body(scope, receive, send)
            await answered.wait()

        limit = BodyLimit(answer_late, 100_000, TIMEOUT_S)

        def request(size: int) -> "asyncio.Task[None]":
            async def receive() -> Message:
                return {"type": "http.request", "body": b"x" * size}

            return asyncio.ensure_future(limit(scope_of(), receive, discard))

        async def let_tasks_run() -> None:
            for _ in range(100):
                await asyncio.sleep(0)

        held = [request(size) for _ in range(number)]
        await let_tasks_run()
        refused, small_one = request(size), request(small)
        await let_tasks_run()
        answered.set()
        with pytest.raises(HTTPException, match="bodies at once") as raised:
            await refused
        assert raised.value.status_code == 429
        await asyncio.gather(*held, small_one)
        await request(size)

    asyncio.run(scenario())


def test_a_query_that_is_not_percent_encoded_is_refused() -> None:
    """The framework reads its bytes as Latin-1."""
    with pytest.raises(RequestValidationError):
        require_utf8(Request({"type": "http", "raw_path": b"/users", "query_string": "prefix=ü".encode()}))


def test_cookies_are_removed_before_the_app_can_parse_them() -> None:
    """Some Pythons parse a quoted cookie in quadratic time: 60 KB would block the event loop for a minute."""
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(name for name, _ in scope["headers"])

    asyncio.run(RequestFrame(app)(scope_in_app(cookie="a=1", accept="*/*"), must_not_receive, discard))
    assert seen == [b"accept"]


@pytest.mark.parametrize(("given", "taken"), [("x" * 128, True), ("x" * 129, False), ("a-B_c.9", True), ("x\n", False)])
def test_a_request_id_is_accepted_only_if_it_is_short_and_safe_to_log(given: str, taken: bool) -> None:
    assert (request_id_of(scope_of(x_request_id=given)) == given) == taken


def test_an_error_after_the_start_of_the_answer_breaks_the_connection() -> None:
    sent: list[Message] = []

    async def fail_half_way(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half-way")

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(RuntimeError, match="half-way"):
        asyncio.run(RequestFrame(fail_half_way)(scope_in_app(), must_not_receive, send))
    assert [message["type"] for message in sent] == ["http.response.start"]


class _Keys:
    """Knows one key."""

    def authorise(self, authorization: str | None, needed: str) -> str:
        if (authorization, needed) != ("Bearer one", "read"):
            raise UnauthenticatedError("unknown")
        return "page"


@pytest.mark.parametrize(("key", "caller"), [("one", "page"), ("another", None)])
def test_a_logged_refusal_names_its_caller(key: str, caller: str | None, caplog: pytest.LogCaptureFixture) -> None:
    scope = scope_in_app(authorization=f"Bearer {key}")
    scope["app"].state.context.scheduler = SimpleNamespace(admission=SimpleNamespace(check=refuse))
    gate = QueueGate(scope["app"], cast("KeyFile", _Keys()))
    for _ in range(2):
        asyncio.run(gate(scope, must_not_receive, discard))
    (line,) = [record.args for record in caplog.records if record.name == "ubert_service.http.gate"]
    assert line == {"requests": 1, "caller": caller}


@pytest.mark.parametrize("stopping", [False, True])
def test_a_refusal_by_a_stopping_process_closes_the_connection(stopping: bool) -> None:
    """Otherwise the caller could send its next request over a connection that is about to be closed."""
    scope = scope_in_app()
    service = scope["app"].state.context
    service.scheduler = SimpleNamespace(admission=SimpleNamespace(check=refuse))
    if stopping:
        service.stopping.set()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(QueueGate(scope["app"])(scope, must_not_receive, send))
    headers = dict(sent[0]["headers"])
    assert (sent[0]["status"], headers[b"retry-after"]) == (429, b"7")
    assert headers.get(b"connection") == (b"close" if stopping else None)
