"""What a route works with: the served bundle, and the threads that may work for requests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import Depends, HTTPException, Request

from ubert_service.served import ServedBundle

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ServiceContext:
    """One for each running app. ``scoring`` and ``checking`` bound the threads of requests and of health checks:
    apart, so that readiness is told even while every scoring thread waits for a store that does not answer.
    """

    served: ServedBundle
    scoring: CapacityLimiter
    checking: CapacityLimiter

    async def score(self, work: Callable[[], T]) -> T:
        """Run blocking work of a request in a thread, when its turn comes."""
        return await anyio.to_thread.run_sync(work, limiter=self.scoring)

    async def check(self, work: Callable[[], T]) -> T:
        """Run a blocking check in a thread of its own."""
        return await anyio.to_thread.run_sync(work, limiter=self.checking)


def _context(request: Request) -> ServiceContext:
    context: ServiceContext = request.app.state.context
    return context


def _json_body(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise HTTPException(415, f"content type {media_type or 'absent'}; send application/json")


Context = Annotated[ServiceContext, Depends(_context)]
JSON_BODY = Depends(_json_body)
