"""What a route works with: the served bundle, the threads that may work for requests, and whom to report to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import Depends, HTTPException, Request

from ubert_service.engine import Prediction
from ubert_service.histories import EVERY_REVIEW, Pair, ReviewFilter
from ubert_service.metrics import PrometheusMetrics
from ubert_service.served import Obstacle, ServedBundle

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ServiceContext:
    """One for each running app. ``working`` and ``checking`` bound the threads of requests and of health checks:
    apart, so that readiness is told even while every working thread waits for a store that does not answer.
    """

    served: ServedBundle
    metrics: PrometheusMetrics
    working: CapacityLimiter
    checking: CapacityLimiter
    store_kind: str
    """Scheme of the store's URL, of which the rest may hold a password."""

    async def work(self, work: Callable[[], T]) -> T:
        """Run blocking work of a request in a thread, when its turn comes."""
        return await anyio.to_thread.run_sync(work, limiter=self.working)

    async def predict(self, pairs: Sequence[Pair], readable: ReviewFilter = EVERY_REVIEW) -> list[Prediction]:
        """A prediction for each pair, in order."""
        predictions = await self.work(lambda: self.served.engine.score(pairs, readable))
        for prediction in predictions:
            self.metrics.predicted(basis=prediction.basis, missing_states=prediction.missing_states)
        return predictions

    async def obstacles(self) -> list[Obstacle]:
        """What keeps the service from serving, checked in a thread of its own."""
        obstacles = await anyio.to_thread.run_sync(self.served.obstacles, limiter=self.checking)
        self.metrics.readiness_checked(ready=not obstacles)
        return obstacles


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
