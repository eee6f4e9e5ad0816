"""What a route works with: the served bundle, the queue that all blocking work goes through, and whom to report to."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ubert_service.errors import CallerGoneError
from ubert_service.explaining.explain import Explanation
from ubert_service.explaining.listed import LISTED_UNREAD
from ubert_service.observability.metrics import PrometheusMetrics
from ubert_service.observability.tracing import Tracing
from ubert_service.reading.histories import EVERY_REVIEW, Pair, Reading
from ubert_service.schemas import LEAST_SCORED, RatingRequest
from ubert_service.scoring.engine import Prediction
from ubert_service.scoring.scoring_lane import ScoringLane, most_tokens
from ubert_service.serving.bundles import Bundles, Roles
from ubert_service.serving.readiness import Obstacle, obstacles_of_silence, obstacles_to, shortfall_of
from ubert_service.serving.served import ServedBundle
from ubert_service.serving.shadowing import Shadowing
from ubert_service.work.scheduler import Alone, Lane, Scheduler

T = TypeVar("T")
Q = TypeVar("Q")

_GROWTH = 4
_CAUTION = 0.8
"""Of the pairs that would fit into the time left at the speed of the last ones, how many are tried."""
_CHECK_SECONDS = 0.4
"""A balancer gives a check a second, and one of readiness asks twice. A store that hangs is found away only later."""
_SILENCE = f"the state store has not answered within {_CHECK_SECONDS:g} s"
_UNWATCHED_S = 0.005
"""Work that takes less is done before it could be withdrawn, and to watch its caller costs a task."""


@dataclass(frozen=True, kw_only=True)
class ServiceContext:
    """One for each running app. ``checking`` has a few threads for health checks: apart from those of requests, so that
    readiness is told even while every one of these waits for a store that does not answer.
    """

    bundles: Bundles
    shadowing: Shadowing
    metrics: PrometheusMetrics
    scheduler: Scheduler
    checking: Executor
    store_kind: str
    """Scheme of the store's URL, of which the rest may hold a password."""
    request_seconds: float
    """How long a request may take that does not say so itself."""
    tracing: Tracing
    stopping: asyncio.Event
    """Set when the process has been told to end, while it still serves."""

    @property
    def served(self) -> ServedBundle:
        """The bundle that answers now."""
        return self.bundles.roles.live

    async def obstacles(self) -> list[Obstacle]:
        """What keeps the service from serving, checked in a thread of its own."""
        served = self.served
        obstacles = await self._checked(partial(obstacles_to, served), late=obstacles_of_silence(served, _SILENCE))
        if self.stopping.is_set():
            obstacles.append(Obstacle(check="stopping", found="the process is ending", remedy="use another replica"))
        self.metrics.readiness_checked(ready=not obstacles)
        return obstacles

    async def shortfall(self) -> str | None:
        """Why it serves less than it should, checked in a thread of its own."""
        return await self._checked(partial(shortfall_of, self.served), late=_SILENCE)

    async def _checked(self, check: Callable[[], T], *, late: T) -> T:
        """What a check finds, or ``late`` if that takes too long for whoever asks. One that has begun then keeps its
        thread until it ends, so that however many ask, no more than these few wait for a store that hangs.
        """
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self.checking, check)
        except TimeoutError:
            return late


@dataclass(kw_only=True)
class RequestContext:
    """One for each request that asks for work. Its work ends with its deadline, and when its caller goes."""

    service: ServiceContext
    request: Request
    roles: Roles
    """As they were when the request came: its whole answer is made by one bundle."""
    deadline: float
    """By ``time.monotonic``."""
    _let_in: bool = field(default=False, init=False)
    """Whether work of it was let into the queue before."""

    @property
    def served(self) -> ServedBundle:
        return self.roles.live

    async def work(self, call: Callable[[], T], *, tokens: int = 0) -> T:
        """What a blocking call returns that reads at most so many tokens, when its turn comes in a thread.

        Raises what the call does, ``OverloadedError``, ``DeadlineError`` and ``CallerGoneError``.
        """
        return await self._answer(Alone(lambda _: call()), None, tokens)

    async def ask_store(self, call: Callable[[], T], *, tokens: int = 0) -> T:
        """As :meth:`work`, of a call that nothing but the store can answer: refused at once while that is away.

        Raises ``NotResidentError`` as well.
        """
        self.served.residents.require_store()
        return await self.work(call, tokens=tokens)

    async def predict(self, pairs: Sequence[Pair], reading: Reading = EVERY_REVIEW) -> list[Prediction]:
        """A prediction for each pair, in order, made in one batch with those of other callers.

        Raises as :meth:`ScoringEngine.score` and :meth:`work` do.
        """
        lane = ScoringLane(self.served.engine, reading)
        tokens = most_tokens(pairs, self.served.bundle.manifest.config.max_rows)
        predictions = await self._answer(lane, pairs, tokens)
        self._count(predictions)
        if self.roles.shadow is not None:
            self.service.shadowing.offer(self.roles.shadow, predictions, reading)
        return predictions

    async def reading(self, user: str, request: RatingRequest) -> Reading:
        """Which reviews a request reads; the texts that it brings along for its user are encoded.

        Raises ``InputError`` for a rating outside the scale, and as :meth:`work` does.
        """
        reading, texts, served = request.reading(), request.brought(), self.served
        if not texts:
            return reading
        tokens = len(texts) * served.bundle.manifest.config.max_length
        return replace(reading, brought=await self.work(lambda: served.bring(user, texts), tokens=tokens))

    async def predict_in_time(self, pairs: Sequence[Pair], reading: Reading, seconds: float) -> list[Prediction]:
        """Predictions for the first so many pairs as fit into the time since the request arrived.

        Raises as :meth:`predict` does.
        """
        until = self.request.state.arrived + seconds
        predictions: list[Prediction] = []
        wanted = LEAST_SCORED
        while wanted and len(predictions) < len(pairs):
            started = time.monotonic()
            predictions += await self.predict(pairs[len(predictions) :][:wanted], reading)
            now = time.monotonic()
            wanted = min(_GROWTH * wanted, int(_CAUTION * wanted * (until - now) / (now - started)))
            wanted = max(0, wanted)
        return predictions

    async def explain(self, pairs: Sequence[Pair], reading: Reading = EVERY_REVIEW) -> list[Explanation]:
        """Why each pair is rated as it is, in order, all in one thread, which stops when nobody waits any more.

        Raises as :meth:`Explainer.explain` and :meth:`work` do.
        """
        served, config = self.served, self.served.bundle.manifest.config
        ratings = 1 + 2 * (config.max_reviews + LISTED_UNREAD)
        tokens = ratings * sum(most_tokens([pair], config.max_rows) for pair in pairs)
        explaining = Alone(lambda wanted: [served.explainer.explain(pair, reading, wanted) for pair in pairs])
        explanations = await self._answer(explaining, None, tokens)
        self._count([explanation.prediction for explanation in explanations])
        return explanations

    def _count(self, predictions: Sequence[Prediction]) -> None:
        # Not one by one: for ten thousand that alone would keep the event loop for a good part of 0.1 s.
        for basis, pairs in Counter(prediction.basis for prediction in predictions).items():
            self.service.metrics.predicted(basis=basis, pairs=pairs)
        self.service.metrics.states_missed(sum(prediction.missing_states for prediction in predictions))

    async def _answer(self, lane: Lane[Q, T], question: Q, tokens: int) -> T:
        with self.service.tracing.work(tokens=tokens) as span:
            submitted = self.service.scheduler.submit(
                lane, question, tokens=tokens, deadline=self.deadline, taken=span.taken, goes_on=self._let_in
            )
            self._let_in = True
            return await self._unless_the_caller_goes(submitted)

    async def _unless_the_caller_goes(self, submitted: "asyncio.Future[T]") -> T:
        watch: asyncio.Task[None] | None = None
        gone = False

        async def cancel_when_gone() -> None:
            nonlocal gone
            # What is left of a body that no route reads may break its limits here: then there is no more to watch.
            with suppress(HTTPException):
                while (await self.request.receive())["type"] != "http.disconnect":
                    pass
                gone = submitted.cancel()

        def begin_to_watch() -> None:
            nonlocal watch
            watch = asyncio.create_task(cancel_when_gone())

        beginning = asyncio.get_running_loop().call_later(_UNWATCHED_S, begin_to_watch)
        try:
            return await submitted
        except asyncio.CancelledError:
            if not gone:
                raise  # the server ends this request, not its caller
            raise CallerGoneError("the caller closed the connection; the work was withdrawn") from None
        finally:
            beginning.cancel()
            if watch is not None:
                watch.cancel()
