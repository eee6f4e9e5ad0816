"""What a request must pass before anything is read or computed for it: the length of the queue, and its key."""

import asyncio
import logging
import math
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ubert_model.errors import UbertError
from ubert_service.access.key_file import KeyFile
from ubert_service.access.keys import needed_scope
from ubert_service.context import ServiceContext
from ubert_service.errors import OverloadedError
from ubert_service.http.middleware import UNMATCHED, request_id_of
from ubert_service.http.problems import OVERLOADED, PreparedProblem, error_response
from ubert_service.telemetry import Telemetry

_TOLD_EVERY_S = 1.0
_QUEUES_NOTHING = frozenset({"/version", "/admin/promote"})

_log = logging.getLogger(__name__)


class QueueGate:
    """Refuses everyone (429) while as much work waits as may wait. Addresses that are open to all (health, metrics, the
    page) always pass, and so does a change of bundles: it may be what ends an overload.

    It stands outside of everything else: under an overload most of the work is in refusing, and what a refusal costs is
    taken from those who were let in. So a refusal is counted, and has no line of its own in the log and no span.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry, stopping: asyncio.Event) -> None:
        self._app = app
        self._telemetry = telemetry
        self._stopping = stopping
        self._problem = PreparedProblem(
            OVERLOADED, "as much work is waiting as may wait; try again when Retry-After has passed, and less often"
        )
        self._untold = 0
        self._told_at = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and may_queue(scope["method"], scope["path"]):
            context: ServiceContext = scope["app"].state.context
            try:
                context.scheduler.admission.check()
            except OverloadedError as error:
                await self._refuse(scope, send, retry_after_s=error.retry_after_s)
                return
        await self._app(scope, receive, send)

    async def _refuse(self, scope: Scope, send: Send, *, retry_after_s: float) -> None:
        began = time.monotonic()
        await self._problem.answer(
            send, request_id=request_id_of(scope), retry_after_s=retry_after_s, last=self._stopping.is_set()
        )
        now = time.monotonic()
        self._telemetry.request_answered(route=UNMATCHED, status=OVERLOADED.status, seconds=now - began)
        self._untold += 1
        if now >= self._told_at + _TOLD_EVERY_S:
            _log.warning(
                "refused %(requests)d requests: too much work is waiting; more replicas would let them in",
                {"requests": self._untold},
            )
            self._untold, self._told_at = 0, now


def may_queue(method: str, path: str) -> bool:
    """Whether a request may ask for work, so that it is refused where no more may wait."""
    return path not in _QUEUES_NOTHING and needed_scope(method, path) is not None


class KeyGate:
    """Refuses whoever may not ask (401, 403). Addresses that are open to all always pass."""

    def __init__(self, app: ASGIApp, keys: KeyFile) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "http" and (needed := needed_scope(scope["method"], scope["path"])) is not None:
                scope["state"]["caller"] = self._keys.authorise(Headers(scope=scope).get("Authorization"), needed)
        except UbertError as error:
            await error_response(error, scope)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
