"""The work of a request is withdrawn once its caller disconnects."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from ubert_service.context import RequestContext, ServiceContext
from ubert_service.errors import CallerGoneError
from ubert_service.observability.metrics import PrometheusMetrics
from ubert_service.observability.tracing import Untraced
from ubert_service.serving.bundles import Roles
from ubert_service.work.admission import WaitingLimits
from ubert_service.work.scheduler import BatchLimits, Scheduler

TIMEOUT_S = 60.0


class Caller:
    """Sends one message, or fails; ``received`` is set once that has been asked for."""

    def __init__(self, message: Message | HTTPException) -> None:
        self._message = message
        self.received = asyncio.Event()

    async def receive(self) -> Message:
        self.received.set()
        if isinstance(self._message, HTTPException):
            raise self._message
        return self._message


@asynccontextmanager
async def work_for(caller: Caller) -> AsyncIterator["asyncio.Task[None]"]:
    """Work that does not end before the test does."""
    ended = threading.Event()
    scheduler = Scheduler(
        waiting=WaitingLimits(requests=1, tokens=1),
        batches=BatchLimits(tokens=1, wait=0.0),
        workers=1,
        telemetry=PrometheusMetrics(),
    )
    context = RequestContext(
        service=cast("ServiceContext", SimpleNamespace(scheduler=scheduler, tracing=Untraced())),
        request=Request({"type": "http"}, caller.receive),
        roles=cast("Roles", None),
        deadline=math.inf,
    )

    def wait_for_the_end() -> None:
        assert ended.wait(TIMEOUT_S)

    try:
        yield asyncio.create_task(context.work(wait_for_the_end))
    finally:
        ended.set()
        await scheduler.close()


def test_work_whose_caller_disconnects_is_withdrawn() -> None:
    async def scenario() -> None:
        async with work_for(Caller({"type": "http.disconnect"})) as work:
            with pytest.raises(CallerGoneError):
                await work

    asyncio.run(scenario())


def test_an_unread_body_that_breaks_a_limit_does_not_count_as_a_disconnect() -> None:
    async def scenario() -> None:
        caller = Caller(HTTPException(413))
        async with work_for(caller) as work:
            await caller.received.wait()
            await asyncio.sleep(0)
            work.cancel()  # as the server does when it stops
            with pytest.raises(asyncio.CancelledError):
                await work

    asyncio.run(scenario())
