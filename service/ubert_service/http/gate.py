"""The gates before any body is read or work is done: admission to the queue, and the API key or the host name."""

import ipaddress
import logging
import math
import time
from collections.abc import Iterable
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from ubert_model.errors import UbertError
from ubert_service.access.key_file import KeyFile
from ubert_service.access.keys import needed_scope
from ubert_service.context import ServiceContext
from ubert_service.errors import MisdirectedError, OverloadedError
from ubert_service.http.middleware import UNMATCHED, request_id_of
from ubert_service.http.problems import OVERLOADED, PreparedProblem, error_response

_LOG_INTERVAL_S = 1.0
_SHOWN_CHARACTERS = 256
_UNQUEUED_PATHS = frozenset({"/version", "/about", "/admin/promote"})

_log = logging.getLogger(__name__)


class QueueGate:
    """Refuses requests (429) while the queue admits no more. Paths open to all (health, metrics, the console) always
    pass. So does what needs no work: what runs is asked during an overload, and a promotion may be what ends it.

    It is the outermost layer: during an overload most of the work goes into refusals, at the cost of admitted requests.
    So a refusal is only counted; it has no span, and only one in a second is logged, with its caller: who asks for most
    is named most often.
    """

    def __init__(self, app: ASGIApp, keys: KeyFile | None = None) -> None:
        self._app = app
        self._keys = keys
        self._problem = PreparedProblem(
            OVERLOADED,
            "until some of it is done, no more is taken; try again when Retry-After has passed, and less often",
        )
        self._unlogged = 0
        self._logged_at = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and may_queue(scope["method"], scope["path"]):
            service: ServiceContext = scope["app"].state.context
            try:
                service.scheduler.admission.check()
            except OverloadedError as error:
                await self._refuse(service, scope, send, retry_after_s=error.retry_after_s)
                return
        await self._app(scope, receive, send)

    async def _refuse(self, service: ServiceContext, scope: Scope, send: Send, *, retry_after_s: float) -> None:
        began = time.monotonic()
        await self._problem.answer(
            send, request_id=request_id_of(scope), retry_after_s=retry_after_s, last=service.stopping.is_set()
        )
        now = time.monotonic()
        service.metrics.request_answered(route=UNMATCHED, status=OVERLOADED.status, seconds=now - began)
        self._unlogged += 1
        if now >= self._logged_at + _LOG_INTERVAL_S:
            _log.warning(
                "refused %(requests)d requests, the last of caller=%(caller)s: too much work is waiting; add replicas "
                "to serve them",
                {"requests": self._unlogged, "caller": self._caller(scope)},
            )
            self._unlogged, self._logged_at = 0, now

    def _caller(self, scope: Scope) -> str | None:
        needed = needed_scope(scope["method"], scope["path"])
        if self._keys is None or needed is None:
            return None
        with suppress(UbertError):  # it would be refused all the same
            return self._keys.authorise(Headers(scope=scope).get("Authorization"), needed)
        return None


def may_queue(method: str, path: str) -> bool:
    """May a request queue work, so that it is refused while the queue admits no more?"""
    return path not in _UNQUEUED_PATHS and needed_scope(method, path) is not None


class KeyGate:
    """Refuses requests whose API key does not allow them (401, 403). Paths open to all always pass."""

    def __init__(self, app: ASGIApp, keys: KeyFile, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._keys = keys
        self._refusal = _Refusal(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "http" and (needed := needed_scope(scope["method"], scope["path"])) is not None:
                scope["state"]["caller"] = self._keys.authorise(Headers(scope=scope).get("Authorization"), needed)
        except UbertError as error:
            await self._refusal.answer(error, scope, receive, send)
        else:
            await self._app(scope, receive, send)


class HostGate:
    """Refuses requests (421) by another host name than ``localhost`` and ``names``. Paths open to all always pass.

    For a service without API keys. A page from anywhere, whose name its owner lets point at this machine while it is
    open in a browser here (DNS rebinding), is of the service's own origin for that browser: it could read, write and
    remove reviews. It cannot choose the host that the browser names. An address is always answered: it points nowhere
    else.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._refusal = _Refusal(routes)
        self._names = frozenset(map(str.lower, names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and needed_scope(scope["method"], scope["path"]) is not None:
            host = Headers(scope=scope).get("Host", "")
            if not self._is_allowed(host):
                error = MisdirectedError(
                    f"the request is for {host[:_SHOWN_CHARACTERS]!r}; a service without API keys answers only to "
                    "localhost, addresses and the names of --allowed-hosts"
                )
                await self._refusal.answer(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_allowed(self, host: str) -> bool:
        name = _without_port(host).lower().removesuffix(".")
        if name in self._names or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return not name  # HTTP/1.0 may leave it out; browsers never do
        return True


class _Refusal:
    """Answers in place of the router, and notes the route that it would have called, for the log and the metrics."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._routes = list(routes)

    async def answer(self, error: UbertError, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = next((route for route in self._routes if route.matches(scope)[0] is Match.FULL), None)
        await error_response(error, scope)(scope, receive, send)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
