"""What surrounds every request: its identifier, its line in the log, its size limit, and an answer whatever happens."""

import asyncio
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ubert_service.http.problems import INTERNAL, problem_response
from ubert_service.observability.tracing import Tracing
from ubert_service.telemetry import Telemetry

REQUEST_ID = "X-Request-ID"
UNMATCHED = "unmatched"
"""What stands for the route of a request that no route has answered."""
_REQUEST_ID = REQUEST_ID.lower().encode()
_CACHE_CONTROL = b"cache-control"
_PLAIN = "identity"
_LARGEST_AT_ONCE = 16
_SMALL_BYTES = 64 * 1024
"""As much as the server takes of a body that nobody asks for."""
_MOST_VALUES = 50_000
"""Values of a JSON body: four times those of the largest request that any route takes."""
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_SAFE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_log = logging.getLogger("ubert_service.requests")


def request_id_of(scope: Scope) -> str:
    """The identifier that the caller has given its request, if it is harmless; else a new one."""
    for name, value in scope["headers"]:
        if name == _REQUEST_ID and _SAFE_REQUEST_ID.fullmatch(given := value.decode("latin-1")):
            return str(given)
    return os.urandom(16).hex()


def require_json(headers: Headers) -> None:
    """Raise ``HTTPException`` (415) where the body is said to be anything but JSON."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise HTTPException(415, f"content type {media_type or 'absent'}; send application/json")


class RequestFrame:
    """Gives each request an identifier (the caller's ``X-Request-ID`` if it is harmless), logs and reports it, and
    answers an error that nothing else caught with a problem that tells the caller nothing but the identifier.
    Once the process is ``stopping``, it asks callers to send their next request over another connection. HEAD is
    answered wherever GET is: balancers and monitors ask so, for the status alone.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry, tracing: Tracing, stopping: asyncio.Event) -> None:
        self._app = app
        self._telemetry = telemetry
        self._tracing = tracing
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, method = request_id_of(scope), scope["method"]
        scope.setdefault("state", {}).update(request_id=request_id, arrived=time.monotonic())
        # None is read here, and the framework would take each apart: some Pythons need a minute for one of 60 KB.
        scope["headers"] = [header for header in scope["headers"] if header[0] != b"cookie"]
        if method == "HEAD":  # the server has a scope of its own, and by that leaves the body off
            scope = {**scope, "method": "GET"}
        with self._tracing.request(method=method, headers=Headers(scope=scope), request_id=request_id) as span:
            status: int | None = None

            async def send_framed(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    message["headers"] = [*message["headers"], *self._headers(request_id, message["headers"])]
                await send(message)

            started = time.perf_counter()
            try:
                await self._app(scope, receive, send_framed)
            except Exception:
                _log.exception("unforeseen error request_id=%(request_id)s", {"request_id": request_id})
                if status is not None:
                    raise  # half an answer is out: only a broken connection can tell the caller
                detail = "an unforeseen error; give the request_id to whoever runs this service"
                await problem_response(INTERNAL, detail, scope)(scope, receive, send_framed)
            finally:
                # By the route alone: an address may hold an identifier, which is neither a label nor for a log.
                route = getattr(scope.get("route"), "path_format", UNMATCHED)
                span.answered(route=route, status=status)
                self._report(scope, method, route, status, seconds=time.perf_counter() - started)

    def _headers(self, request_id: str, given: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        yield _REQUEST_ID, request_id.encode("ascii")
        # Reviews and what follows from them change at any time, and one that was removed must not live on in a cache.
        if all(name != _CACHE_CONTROL for name, _ in given):
            yield _CACHE_CONTROL, b"no-store"
        if self._stopping.is_set():
            yield b"connection", b"close"

    def _report(self, scope: Scope, method: str, route: str, status: int | None, *, seconds: float) -> None:
        self._telemetry.request_answered(route=route, status=status, seconds=seconds)
        _log.info(
            "%(method)s %(route)s %(status)s %(seconds).4f s request_id=%(request_id)s",
            {
                "method": method,
                "route": route,
                "status": status,
                "seconds": round(seconds, 6),
                "request_id": scope["state"]["request_id"],
                "caller": scope["state"].get("caller"),
            },
        )


class BodyLimit:
    """Refuses a body above ``max_bytes``: by its announced length if there is one, else when too much has come; one
    that takes longer than ``seconds`` to arrive; one that is compressed, which could be of any size; and one of more
    values than any route takes, which would be parsed for seconds in which nobody else is answered.

    Whoever sends many and ends none could fill the memory. So while the bodies of all requests that are not answered
    yet take as much as ``_LARGEST_AT_ONCE`` of that size, more of one that is not small is refused (429).
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._held = 0
        """Bytes of the bodies of all requests that are not answered yet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        announced, coding = headers.get("content-length", ""), headers.get("content-encoding", _PLAIN).strip().lower()
        read = 0
        complete = False
        values = _JsonValues()

        async def receive_limited() -> Message:
            nonlocal read, complete
            if complete:
                return await receive()  # the end of the connection, whenever that comes
            # Raised where a route reads the body, so that the handler of all HTTP errors answers.
            if coding != _PLAIN:
                raise HTTPException(
                    415, f"content encoding {coding!r}; send the body as it is", headers={"Accept-Encoding": _PLAIN}
                )
            if announced.isdecimal() and int(announced) > self._max_bytes:
                raise HTTPException(413, f"the body has {announced} bytes, at most {self._max_bytes} are read")
            message = await self._in_time(receive, scope["state"]["arrived"])
            body = message.get("body", b"")
            came = len(body)
            read += came
            self._held += came
            if read > self._max_bytes:
                raise HTTPException(413, f"the body has more than the {self._max_bytes} bytes that are read")
            if read > _SMALL_BYTES and self._held > _LARGEST_AT_ONCE * self._max_bytes:
                raise HTTPException(429, "too many large bodies are being read; try again, or send less at once")
            if values.count(body) > _MOST_VALUES:
                require_json(headers)
                raise HTTPException(413, f"the body has more than the {_MOST_VALUES} JSON values that are read")
            complete = not message.get("more_body", False)
            return message

        try:
            await self._app(scope, receive_limited, send)
        finally:
            self._held -= read

    async def _in_time(self, receive: Receive, arrived: float) -> Message:
        try:
            async with asyncio.timeout(arrived + self._seconds - time.monotonic()):
                return await receive()
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {self._seconds:g} s") from None


class _JsonValues:
    """Counts the values of a body as it comes, by what begins or parts them outside of strings: about as many."""

    def __init__(self) -> None:
        self._counted = 0
        self._in_string = False
        self._escape = b""

    def count(self, part: bytes) -> int:
        """How many there are with this part. Takes time in proportion to it, whatever stands in it."""
        unescaped = _ESCAPED.sub(b"", self._escape + part)
        self._escape = b"\\" if unescaped.endswith(b"\\") else b""
        pieces = unescaped.split(b'"')
        outside = b"".join(pieces[1 if self._in_string else 0 :: 2])
        self._in_string ^= len(pieces) % 2 == 0
        # In UTF-16 and UTF-32 a part of a letter may look like a quotation mark, but JSON's own marks have zero bytes.
        self._counted += part.count(b"\0") + sum(outside.count(mark) for mark in (b",", b"[", b"{"))
        return self._counted
