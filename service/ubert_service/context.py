"""What routes work with: the served bundles, the queue that all blocking work goes through, metrics and tracing."""

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
from starlette.responses import Response

from ubert_service.errors import CallerGoneError
from ubert_service.explaining.explain import Explanation
from ubert_service.observability.metrics import PrometheusMetrics
from ubert_service.observability.tracing import Tracing
from ubert_service.reading.histories import EVERY_REVIEW, Pair, Reading, ReviewList
from ubert_service.reading.inline import InlineText
from ubert_service.schemas import LEAST_SCORED, LISTED_UNREAD, NotReadyReason, RatingRequest
from ubert_service.scoring.engine import Prediction
from ubert_service.scoring.scoring_lane import ScoringLane, max_tokens_read
from ubert_service.serving.bundles import Bundles, Roles
from ubert_service.serving.readiness import degradation_of, obstacles_on_timeout, obstacles_to
from ubert_service.serving.served import ServedBundle
from ubert_service.serving.shadowing import Shadowing
from ubert_service.settings import Settings
from ubert_service.work.admission import WorkKind
from ubert_service.work.scheduler import Lane, Scheduler, UnbatchedCall

T = TypeVar("T")
Q = TypeVar("Q")

STALE_SECONDS = "X-Stale-Seconds"
"""Of an answer while the state store is away: seconds since its data were last known to be current."""
_GROWTH = 4
"""The most by which one slice of a time-limited ranking may exceed the one before."""
_CAUTION = 0.8
"""The share tried of the pairs that would fit into the time left at the speed of the last slice."""
_SERIALIZED_IN_LOOP = 100
"""Up to this many predictions without explanations are serialized on the event loop: handing them to a thread would
take as long."""
_CHECK_SECONDS = 0.4
"""Balancers allow a check a second, and readiness makes two. A store that hangs is only marked away later than that."""
_SILENCE = f"the state store has not answered within {_CHECK_SECONDS:g} s"
_UNWATCHED_S = 0.005
"""Work that takes less is done before it could be cancelled, and watching its caller costs a task."""


@dataclass(frozen=True, kw_only=True)
class ServiceContext:
    """One per running app. ``checking`` has a few threads for health checks alone, so that readiness is reported even
    while every worker thread waits for a store that does not answer.
    """

    settings: Settings
    bundles: Bundles
    shadowing: Shadowing
    metrics: PrometheusMetrics
    scheduler: Scheduler
    checking: Executor
    tracing: Tracing
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the process has been told to end, while it still serves."""

    @property
    def served(self) -> ServedBundle:
        """The bundle that answers now."""
        return self.bundles.roles.live

    async def obstacles(self) -> list[NotReadyReason]:
        """What keeps the service from serving, checked in a thread of ``checking``."""
        served = self.served
        obstacles = await self._checked(partial(obstacles_to, served), late=obstacles_on_timeout(served, _SILENCE))
        if self.stopping.is_set():
            obstacles.append(
                NotReadyReason(check="stopping", found="the process is ending", remedy="use another replica")
            )
        self.metrics.readiness_checked(ready=not obstacles)
        return obstacles

    async def degradation(self) -> str | None:
        """Why some requests cannot be answered, or None; checked in a thread of ``checking``."""
        return await self._checked(partial(degradation_of, self.served), late=_SILENCE)

    async def _checked(self, check: Callable[[], T], *, late: T) -> T:
        """The result of a check, or ``late`` once it takes longer than ``_CHECK_SECONDS``.

        A late check keeps its thread until it ends: however many ask, only these few threads wait for a hanging store.
        """
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self.checking, check)
        except TimeoutError:
            return late


@dataclass(kw_only=True)
class RequestContext:
    """One per request that needs work. The work is cancelled at its deadline, and when its caller disconnects."""

    service: ServiceContext
    request: Request
    roles: Roles
    """As they were when the request arrived: one bundle makes the whole answer."""
    deadline: float
    """By ``time.monotonic``."""
    _admitted: bool = field(default=False, init=False)
    """Has the queue admitted work of it before?"""

    @property
    def served(self) -> ServedBundle:
        return self.roles.live

    def answer_headers(self) -> dict[str, str]:
        """Headers of an answer made now: while the store is away, the age of what memory holds."""
        stale_s = self.served.residents.stale_s
        return {STALE_SECONDS: f"{stale_s:.1f}"} if stale_s else {}

    async def work(self, call: Callable[[], T], *, kind: WorkKind = "other", tokens: int = 0) -> T:
        """Run a blocking call, which reads at most so many tokens, in a worker thread when its turn comes.

        Once begun, it runs to its end, whether or not a caller still waits.
        Raises what the call does, ``OverloadedError``, ``DeadlineError`` and ``CallerGoneError``.
        """
        return await self._answer(UnbatchedCall(lambda _: call(), kind), None, tokens)

    async def serialize(self, answer: Callable[[], str], *, predictions: int, explained: bool = False) -> Response:
        """The JSON that ``answer`` makes of so many predictions. Raises as :meth:`work` does.

        Many are left to a worker thread, and so are those ``explained``: ten thousand would block the event loop for a
        good part of a second, ten with the attention of long reviews for 0.1 s.
        """
        in_loop = predictions <= _SERIALIZED_IN_LOOP and not explained
        content = answer() if in_loop else await self.work(answer)
        return Response(content, media_type="application/json")

    async def ask_store(self, call: Callable[[], T], *, kind: WorkKind = "other", tokens: int = 0) -> T:
        """As :meth:`work`, for a call that only the store can answer: refused at once while the store is away.

        Raises ``NotResidentError`` as well.
        """
        self.served.residents.require_store("this request needs the state store itself")
        return await self.work(call, kind=kind, tokens=tokens)

    async def predict(self, pairs: Sequence[Pair], reading: Reading = EVERY_REVIEW) -> list[Prediction]:
        """A prediction for each pair, in order, batched with those of other requests.

        Raises as :meth:`ScoringEngine.score` and :meth:`work` do.
        """
        lane = ScoringLane(self.served.engine, reading)
        tokens = max_tokens_read(pairs, self.served.bundle.manifest.config.max_rows)
        predictions = await self._answer(lane, pairs, tokens)
        self._report(predictions, reading)
        return predictions

    async def reading(self, user: str, request: RatingRequest) -> Reading:
        """Which reviews a request reads, with its inline texts encoded: no more of them once the request is cancelled.

        Raises ``InputError`` for a rating outside the scale, and as :meth:`work` does.
        """
        reading = Reading(excluded=frozenset(request.exclude_review_ids), before=request.as_of)
        texts, served = [InlineText(**dict(text)) for text in request.user_texts], self.served
        if not texts:
            return reading
        tokens = len(texts) * served.bundle.manifest.config.max_length
        lane = UnbatchedCall(lambda cancelled: served.encode_inline(user, texts, cancelled), "encoding")
        return replace(reading, inline=await self._answer(lane, None, tokens))

    async def predict_in_time(self, pairs: Sequence[Pair], reading: Reading, seconds: float) -> list[Prediction]:
        """Predictions for as many of the first pairs as fit into ``seconds`` from the arrival of the request, all from
        one state of each user.

        Raises as :meth:`predict` does.
        """
        until = self.request.state.arrived + seconds
        engine, max_rows = self.served.engine, self.served.bundle.manifest.config.max_rows
        users: dict[str, ReviewList] = {}
        predictions: list[Prediction] = []
        size = LEAST_SCORED
        while size > 0 and len(predictions) < len(pairs):
            started = time.monotonic()
            some = pairs[len(predictions) :][:size]
            lane = UnbatchedCall(partial(engine.score, some, reading, users=users), "scoring")
            predictions += await self._answer(lane, None, max_tokens_read(some, max_rows))
            now = time.monotonic()
            size = min(_GROWTH * size, int(_CAUTION * size * (until - now) / (now - started)))
        self._report(predictions, reading)
        return predictions

    async def explain(self, pairs: Sequence[Pair], reading: Reading = EVERY_REVIEW) -> list[Explanation]:
        """An explanation of each pair's rating, in order. Each is work of its own, so other requests come between.

        Raises as :meth:`Explainer.explain` and :meth:`work` do.
        """
        served, config = self.served, self.served.bundle.manifest.config
        ratings = 1 + 2 * (config.max_reviews + LISTED_UNREAD)
        explanations: list[Explanation] = []
        for pair in pairs:
            lane = UnbatchedCall(partial(served.explainer.explain, pair, reading), "explaining")
            tokens = ratings * max_tokens_read([pair], config.max_rows)
            explanations.append(await self._answer(lane, None, tokens))
        self._report([explanation.prediction for explanation in explanations], reading)
        return explanations

    def _report(self, predictions: Sequence[Prediction], reading: Reading) -> None:
        """Count all predictions of the request, and offer them to the shadow."""
        if self.roles.shadow is not None:
            self.service.shadowing.offer(self.roles.shadow, predictions, reading)
        # Not one by one: ten thousand would block the event loop for a good part of 0.1 s.
        for basis, pairs in Counter(prediction.basis for prediction in predictions).items():
            self.service.metrics.predicted(basis=basis, pairs=pairs)
        self.service.metrics.states_missed(sum(prediction.missing_states for prediction in predictions))

    async def _answer(self, lane: Lane[Q, T], request: Q, tokens: int) -> T:
        with self.service.tracing.work(tokens=tokens) as taken:
            submitted = self.service.scheduler.submit(
                lane, request, tokens=tokens, deadline=self.deadline, on_start=taken, admitted=self._admitted
            )
            self._admitted = True
            return await self._cancelled_on_disconnect(submitted)

    async def _cancelled_on_disconnect(self, submitted: "asyncio.Future[T]") -> T:
        watch: asyncio.Task[None] | None = None
        gone = False

        async def cancel_when_gone() -> None:
            nonlocal gone
            # The rest of a body that no route reads may break a limit here: then the caller is watched no longer.
            with suppress(HTTPException):
                while (await self.request.receive())["type"] != "http.disconnect":
                    pass
                gone = submitted.cancel()

        def start_watching() -> None:
            nonlocal watch
            watch = asyncio.create_task(cancel_when_gone())

        timer = asyncio.get_running_loop().call_later(_UNWATCHED_S, start_watching)
        try:
            return await submitted
        except asyncio.CancelledError:
            if not gone:
                raise  # the server ends this request, not its caller
            raise CallerGoneError("the caller closed the connection; its work was cancelled") from None
        finally:
            timer.cancel()
            if watch is not None:
                watch.cancel()
