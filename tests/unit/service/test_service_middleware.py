"""What surrounds a request, asked directly: what no client can be made to do at the right moment."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from ubert_service.errors import OverloadedError
from ubert_service.http.gate import QueueGate
from ubert_service.http.middleware import BodyLimit, RequestFrame, request_id_of
from ubert_service.observability.metrics import PrometheusMetrics
from ubert_service.observability.tracing import Untraced

MAX_BYTES = 10
PATIENCE_S = 60.0


def scope_of(**headers: str) -> Scope:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    state = {"arrived": time.monotonic()}
    return {"type": "http", "method": "POST", "path": "/predict", "headers": named, "state": state}


async def no_body() -> Message:
    pytest.fail("the body was asked for")


async def into_nothing(message: Message) -> None: ...


async def read_a_body(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass


def limited(receive: Receive, **headers: str) -> Coroutine[Any, Any, None]:
    return BodyLimit(read_a_body, MAX_BYTES, PATIENCE_S)(scope_of(**headers), receive, into_nothing)


def test_a_body_that_is_announced_as_too_large_is_refused_before_any_of_it_has_come() -> None:
    with pytest.raises(HTTPException, match="11 bytes") as refused:
        asyncio.run(limited(no_body, content_length="11"))
    assert refused.value.status_code == 413


@pytest.mark.parametrize("headers", [{"content_length": str(MAX_BYTES)}, {}], ids=["announced", "in chunks"])
def test_a_body_of_just_as_much_as_may_come_is_read(headers: dict[str, str]) -> None:
    parts = [{"type": "http.request", "body": b"x" * 5, "more_body": more} for more in (False, True)]

    async def receive() -> Message:
        return parts.pop()

    asyncio.run(limited(receive, **headers))
    assert parts == []


FLOOD = 60_000


@pytest.mark.parametrize("part_bytes", [97, 65_536])
@pytest.mark.parametrize(
    ("body", "is_read"),
    [
        (b"[" + b"0," * FLOOD, False),
        (b"[" * FLOOD, False),
        (b'{"' + b'":0,"' * FLOOD, False),
        (b'["' + rb"\"" * 3 + b'",' + b"[]," * FLOOD, False),
        (b'["' + rb"\\" * 5 + b'",' + b"{}," * FLOOD, False),
        (("[" + '"\u2205",' + "[" * FLOOD).encode("utf-16-le"), False),
        (b'{"text": "' + rb"[{,\",\\" * FLOOD + b'"}', True),
        (b"[" + b'"item",' * 11_000 + b"0]", True),
    ],
    ids=["values", "depth", "members", "after quotes", "after backslashes", "UTF-16", "a text", "a long ranking"],
)
def test_a_body_of_more_values_than_any_route_takes_is_refused_before_it_is_parsed(
    body: bytes, is_read: bool, part_bytes: int
) -> None:
    parts = iter(range(0, len(body), part_bytes))

    async def receive() -> Message:
        start = next(parts)
        more = start + part_bytes < len(body)
        return {"type": "http.request", "body": body[start : start + part_bytes], "more_body": more}

    limit = BodyLimit(read_a_body, 2 * len(body), PATIENCE_S)(
        scope_of(content_type="application/json"), receive, into_nothing
    )
    with nullcontext() if is_read else pytest.raises(HTTPException, match="50000 JSON values"):
        asyncio.run(limit)


def test_large_bodies_of_unanswered_requests_do_not_fill_the_memory_and_small_ones_are_read() -> None:
    large, small = 100_000, 1_000

    async def course() -> None:
        answered = asyncio.Event()

        async def answer_late(scope: Scope, receive: Receive, send: Send) -> None:
            await read_a_body(scope, receive, send)
            await answered.wait()

        limit = BodyLimit(answer_late, large, PATIENCE_S)

        def request(size: int) -> "asyncio.Task[None]":
            async def receive() -> Message:
                return {"type": "http.request", "body": b"x" * size}

            return asyncio.ensure_future(limit(scope_of(), receive, into_nothing))

        async def settled() -> None:
            for _ in range(100):
                await asyncio.sleep(0)

        held = [request(large) for _ in range(16)]
        await settled()
        refused, small_one = request(large), request(small)
        await settled()
        answered.set()
        with pytest.raises(HTTPException, match="large bodies") as raised:
            await refused
        assert raised.value.status_code == 429
        await asyncio.gather(*held, small_one)
        await request(large)

    asyncio.run(course())


def test_a_cookie_which_nothing_here_reads_is_not_taken_apart() -> None:
    """Some Pythons take time by the square of what is quoted in it: 60 KB would keep everybody for a minute."""
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(name for name, _ in scope["headers"])

    frame = RequestFrame(app, PrometheusMetrics(), Untraced(), asyncio.Event())
    asyncio.run(frame(scope_of(cookie="a=1", accept="*/*"), no_body, into_nothing))
    assert seen == [b"accept"]


@pytest.mark.parametrize(("given", "taken"), [("x" * 128, True), ("x" * 129, False), ("a-B_c.9", True), ("x\n", False)])
def test_a_request_id_is_taken_if_it_is_short_and_harmless(given: str, taken: bool) -> None:
    assert (request_id_of(scope_of(x_request_id=given)) == given) == taken


def test_after_half_an_answer_an_error_breaks_the_connection() -> None:
    sent: list[Message] = []

    async def breaking(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half-way")

    async def send(message: Message) -> None:
        sent.append(message)

    frame = RequestFrame(breaking, PrometheusMetrics(), Untraced(), asyncio.Event())
    with pytest.raises(RuntimeError, match="half-way"):
        asyncio.run(frame(scope_of(), no_body, send))
    assert [message["type"] for message in sent] == ["http.response.start"]


@pytest.mark.parametrize("stopping", [False, True])
def test_who_is_refused_by_a_process_that_ends_is_sent_to_another(stopping: bool) -> None:
    """Else a caller could send its next request over a connection that is about to be closed."""

    def check() -> None:
        raise OverloadedError("full", retry_after_s=6.2)

    app = FastAPI()
    app.state.context = SimpleNamespace(scheduler=SimpleNamespace(admission=SimpleNamespace(check=check)))
    told = asyncio.Event()
    if stopping:
        told.set()
    started: list[Message] = []

    async def send(message: Message) -> None:
        started.append(message)

    gate = QueueGate(app, PrometheusMetrics(), told)
    asyncio.run(gate({**scope_of(), "app": app}, no_body, send))
    headers = dict(started[0]["headers"])
    assert (started[0]["status"], headers[b"retry-after"]) == (429, b"7")
    assert headers.get(b"connection") == (b"close" if stopping else None)
