"""What surrounds every request: its id, its log line, its size limits, and an answer even to unforeseen errors."""

import asyncio
import logging
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ubert_service.context import ServiceContext
from ubert_service.http.problems import INTERNAL, problem_response
from ubert_service.schemas import REQUEST_TIMEOUT, RequestSeconds

REQUEST_ID = "X-Request-ID"
_PROBED = frozenset({"/healthz", "/readyz", "/metrics"})
UNMATCHED = "unmatched"
"""The route reported for a request that no route has answered."""
_REQUEST_ID = REQUEST_ID.lower().encode()
_CACHE_CONTROL = b"cache-control"
_PLAIN = "identity"
_CHUNKED = "chunked"
_LARGEST_BODIES_AT_ONCE = 16
_SMALL_BYTES = 64 * 1024
"""As much of a body as the server buffers before any route reads it."""
_SMALL_BODIES_BYTES = 128 * 1024 * 1024
"""What small bodies may take beyond the bound of the large ones: 2,000 of the largest small ones."""
_MOST_VALUES = 50_000
"""JSON values in a body: four times as many as the largest valid request of any route has."""
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_REQUEST_SECONDS: TypeAdapter[float] = TypeAdapter(RequestSeconds)
_SAFE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_log = logging.getLogger("ubert_service.requests")


def request_id_of(scope: Scope) -> str:
    """The ``X-Request-ID`` that the caller sent, if it is safe to log; else a new id."""
    for name, value in scope["headers"]:
        if name == _REQUEST_ID and _SAFE_REQUEST_ID.fullmatch(given := value.decode("latin-1")):
            return str(given)
    return os.urandom(16).hex()


def require_json(headers: Headers) -> None:
    """Raise ``HTTPException`` (415) unless the content type is JSON."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise HTTPException(415, f"content type {media_type or 'absent'}; send application/json")


def require_known_parameters(request: Request, known: Collection[str]) -> None:
    """Raise ``RequestValidationError`` for the first query parameter of another name."""
    unknown = next((name for name in request.query_params if name not in known), None)
    if unknown is not None:
        message = f"unknown; known here: {', '.join(known) or 'none'}"
        raise RequestValidationError([{"type": "unknown_parameter", "loc": ("query", unknown), "msg": message}])


def require_utf8(request: Request) -> None:
    """Raise ``RequestValidationError`` unless the path and the query are percent-encoded UTF-8.

    The server decodes any other bytes to U+FFFD or as Latin-1, and so to the name of another user, item or review.
    """
    for place, encoded in (("path", request.scope["raw_path"]), ("query", request.scope["query_string"])):
        if not _is_encoded_utf8(encoded):
            raise RequestValidationError([{"type": "not_utf8", "loc": (place,), "msg": "send percent-encoded UTF-8"}])


def _is_encoded_utf8(encoded: bytes) -> bool:
    try:
        unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        return False
    return encoded.isascii()


class RequestFrame:
    """Gives each request an id and a deadline, logs and reports it, and answers an error that nothing else caught with
    a problem that discloses only that id. Once the process is ``stopping``, it asks callers to use another connection
    for their next request. HEAD is answered wherever GET is: balancers and monitors send it to get the status alone.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        service: ServiceContext = scope["app"].state.context
        request_id, method, arrived = request_id_of(scope), scope["method"], time.monotonic()
        # No route reads cookies, but the framework would parse them: some Pythons need a minute for one of 60 KB.
        scope["headers"] = [header for header in scope["headers"] if header[0] != b"cookie"]
        headers = Headers(scope=scope)
        deadline = arrived + _seconds_allowed(headers, default=service.settings.request_timeout)
        scope.setdefault("state", {}).update(request_id=request_id, arrived=arrived, deadline=deadline)
        if method == "HEAD":  # the server keeps the original scope, by which it leaves out the body
            scope = {**scope, "method": "GET"}
        with service.tracing.request(method=method, headers=headers, request_id=request_id) as answered:
            status: int | None = None

            async def send_framed(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    message["headers"] = [*message["headers"], *_framing(message["headers"], request_id, service)]
                await send(message)

            try:
                await self._app(scope, receive, send_framed)
            except Exception:
                _log.exception("unforeseen error request_id=%(request_id)s", {"request_id": request_id})
                if status is not None:
                    raise  # part of an answer was sent: only a broken connection can tell the caller
                detail = "an unforeseen error; report the request_id to whoever runs this service"
                await problem_response(INTERNAL, detail, scope)(scope, receive, send_framed)
            finally:
                # The route, not the path: a path may hold an identifier, which belongs in no label and no log.
                route = getattr(scope.get("route"), "path_format", UNMATCHED)
                seconds = time.monotonic() - arrived
                answered(route, status)
                caller = scope["state"].get("caller")
                service.metrics.request_answered(route=route, status=status, seconds=seconds)
                if caller is not None:
                    service.metrics.caller_answered(caller)
                _log.log(
                    # Probes that succeed come every second from each balancer, and would be most of the log.
                    logging.DEBUG if route in _PROBED and status == HTTPStatus.OK else logging.INFO,
                    "%(method)s %(route)s %(status)s %(seconds).4f s caller=%(caller)s request_id=%(request_id)s",
                    {
                        "method": method,
                        "route": route,
                        "status": status,
                        "seconds": round(seconds, 6),
                        "request_id": request_id,
                        "caller": caller,
                    },
                )


def _seconds_allowed(headers: Headers, *, default: float) -> float:
    """The ``X-Request-Timeout`` of a request, or else ``default``; an invalid one is for the route to refuse."""
    try:
        return _REQUEST_SECONDS.validate_python(headers[REQUEST_TIMEOUT])
    except (KeyError, ValidationError):
        return default


def _framing(
    given: Iterable[tuple[bytes, bytes]], request_id: str, service: ServiceContext
) -> Iterator[tuple[bytes, bytes]]:
    """The headers that every answer gets beside those ``given``."""
    yield _REQUEST_ID, request_id.encode("ascii")
    # Reviews and ratings change at any time, and a removed review must not live on in a cache.
    if all(name != _CACHE_CONTROL for name, _ in given):
        yield _CACHE_CONTROL, b"no-store"
    if service.stopping.is_set():
        yield b"connection", b"close"


class BodyLimit:
    """Refuses a body that is larger than ``max_bytes``, by its announced length or else once too much has arrived; that
    takes longer than ``seconds`` to arrive, or beyond the deadline of its request; that is compressed, and so could be
    of any size; or that has more JSON values than any route takes, since to parse them would block the event loop for
    seconds.

    Many bodies that never end could fill the memory. So while the bodies of all unanswered requests together exceed
    ``_LARGEST_BODIES_AT_ONCE`` times ``max_bytes``, further bytes of any but a small body are refused (429); while they
    exceed it by more than ``_SMALL_BODIES_BYTES``, those of small ones, too.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._held = 0
        """Body bytes of all unanswered requests."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "")
        codings = _codings(headers, "content-encoding", _PLAIN) + _codings(headers, "transfer-encoding", _CHUNKED)
        read = 0
        complete = False
        values = _JsonValues()

        async def receive_limited() -> Message:
            nonlocal read, complete
            if complete:
                return await receive()  # waits for the disconnect
            # Raised while a route reads the body, so that the handler of HTTP errors answers.
            if codings:
                detail = f"a body encoded by {', '.join(codings)}; send it uncompressed"
                raise HTTPException(415, detail, headers={"Accept-Encoding": _PLAIN})
            if announced.isdecimal() and int(announced) > self._max_bytes:
                raise HTTPException(413, f"the body has {announced} bytes; at most {self._max_bytes} are allowed")
            message = await self._in_time(receive, scope["state"])
            body = message.get("body", b"")
            read += len(body)
            self._held += len(body)
            if read > self._max_bytes:
                raise HTTPException(413, f"the body has more than the {self._max_bytes} bytes allowed")
            reserve = 0 if read > _SMALL_BYTES else _SMALL_BODIES_BYTES
            if self._held > _LARGEST_BODIES_AT_ONCE * self._max_bytes + reserve:
                raise HTTPException(429, "too many bodies at once; try again later, or send smaller ones")
            if values.count(body) > _MOST_VALUES:
                require_json(headers)
                raise HTTPException(413, f"the body has more than the {_MOST_VALUES} JSON values allowed")
            complete = not message.get("more_body", False)
            return message

        try:
            await self._app(scope, receive_limited, send)
        finally:
            self._held -= read

    async def _in_time(self, receive: Receive, request: Mapping[str, float]) -> Message:
        """``request``: when it ``arrived``, and its ``deadline``."""
        limit, deadline = request["arrived"] + self._seconds, request["deadline"]
        try:
            async with asyncio.timeout(min(limit, deadline) - time.monotonic()):
                return await receive()
        except TimeoutError:
            if deadline < limit:
                raise HTTPException(504, f"the body did not arrive within the {REQUEST_TIMEOUT}") from None
            raise HTTPException(408, f"the body did not arrive within {self._seconds:g} s") from None


def _codings(headers: Headers, name: str, plain: str) -> list[str]:
    """The codings that a header names, other than ``plain``."""
    names = (coding.strip().lower() for line in headers.getlist(name) for coding in line.split(","))
    return [coding for coding in names if coding not in {"", plain}]


class _JsonValues:
    """Estimates the number of JSON values of a body as it arrives: commas and opening brackets outside strings."""

    def __init__(self) -> None:
        self._counted = 0
        self._in_string = False
        self._escape = b""

    def count(self, part: bytes) -> int:
        """The count with this part included. Takes time linear in its length, whatever its content."""
        unescaped = _ESCAPED.sub(b"", self._escape + part)
        self._escape = b"\\" if unescaped.endswith(b"\\") else b""
        pieces = unescaped.split(b'"')
        outside = b"".join(pieces[1 if self._in_string else 0 :: 2])
        self._in_string ^= len(pieces) % 2 == 0
        # In UTF-16 and UTF-32, half a letter may look like a quotation mark; but JSON's punctuation has zero bytes.
        self._counted += part.count(b"\0") + sum(outside.count(mark) for mark in (b",", b"[", b"{"))
        return self._counted
