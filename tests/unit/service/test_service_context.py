"""Whoever waits for work is watched, so that it is withdrawn when nobody does any more."""

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

PATIENCE_S = 10.0


class Caller:
    """What comes from one is its ``end``; ``heard`` once that has been asked for."""

    def __init__(self, end: Message | HTTPException) -> None:
        self._end = end
        self.heard = asyncio.Event()

    async def receive(self) -> Message:
        self.heard.set()
        if isinstance(self._end, HTTPException):
            raise self._end
        return self._end


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

    def go_on() -> None:
        assert ended.wait(PATIENCE_S)

    try:
        yield asyncio.create_task(context.work(go_on))
    finally:
        ended.set()
        await scheduler.close()


def test_work_whose_caller_goes_is_withdrawn() -> None:
    async def course() -> None:
        async with work_for(Caller({"type": "http.disconnect"})) as work:
            with pytest.raises(CallerGoneError):
                await work

    asyncio.run(course())


def test_whoever_sends_a_body_that_breaks_a_limit_and_that_no_route_reads_has_not_gone() -> None:
    async def course() -> None:
        caller = Caller(HTTPException(413))
        async with work_for(caller) as work:
            await caller.heard.wait()
            await asyncio.sleep(0)
            work.cancel()  # as the server does when it ends
            with pytest.raises(asyncio.CancelledError):
                await work

    asyncio.run(course())
