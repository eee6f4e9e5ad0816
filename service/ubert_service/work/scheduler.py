"""Dynamic batching: one bounded queue of blocking work, from which a few threads take batches of the same kind.

A free thread takes what is waiting at once, so batches grow with the load and a lone request waits for nobody. Work is
admitted or refused when it is submitted. Admitted work leaves the queue as soon as its future is done: by an answer, by
its deadline, or because its caller cancels it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from ubert_service.errors import DeadlineError, WorkCancelledError
from ubert_service.telemetry import QueueTelemetry
from ubert_service.work.admission import Admission, RunningBatch, WaitingLimits, WorkKind
from ubert_service.work.cancellation import Cancelled
from ubert_service.work.threads import started_pool

Q = TypeVar("Q")
R = TypeVar("R")
Q_contra = TypeVar("Q_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

_log = logging.getLogger(__name__)


class Lane(Hashable, Protocol[Q_contra, R_co]):
    """One kind of blocking work. Equal lanes share batches, so a lane holds everything that its answers depend on
    except the requests themselves.
    """

    @property
    def kind(self) -> WorkKind:
        """The kind of work that it is measured with, to estimate how long it takes."""

    @property
    def waits_for_batch(self) -> bool:
        """May a batch that is not full wait shortly for more requests of this lane?"""

    def answer(self, requests: Sequence[Q_contra], cancelled: Cancelled, /) -> Sequence[R_co]:
        """One answer per request, in order; called in a worker thread.

        May raise ``WorkCancelledError`` once ``cancelled``: no caller waits for any of the answers.
        """

    def is_shared_failure(self, error: Exception, /) -> bool:
        """Would every request fail with ``error`` alone too? If not, the batch is split to find the one that does."""


@dataclass(frozen=True, eq=False)
class UnbatchedCall(Generic[R]):
    """The lane of one call, which is never batched; its request is None."""

    call: Callable[[Cancelled], R]
    kind: WorkKind = "other"
    waits_for_batch: bool = False

    def answer(self, requests: Sequence[None], cancelled: Cancelled, /) -> Sequence[R]:
        return [self.call(cancelled) for _ in requests]

    def is_shared_failure(self, error: Exception, /) -> bool:
        del error
        return True


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """The most ``tokens`` of a batch, and how long (``wait``, seconds) a free thread waits for one to fill."""

    tokens: int
    wait: float


@dataclass(eq=False, slots=True, kw_only=True)
class _Job:
    lane: Lane[Any, Any]
    request: Any
    tokens: int
    submitted: float
    deadline: float | None
    on_start: Callable[[], None] | None
    future: asyncio.Future[Any]
    lane_queue: "dict[_Job, None]"
    """The waiting jobs of its lane in queue order, itself included while it waits."""
    expiry: asyncio.TimerHandle | None = None


class Scheduler:
    """Runs up to ``workers`` batches at the same time. Not thread-safe: for the event loop alone.

    Raises ``RuntimeError`` where the system lets it start fewer threads.
    """

    def __init__(
        self,
        *,
        waiting: WaitingLimits,
        batches: BatchLimits,
        workers: int,
        telemetry: QueueTelemetry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.admission = Admission(waiting, workers=workers, telemetry=telemetry, clock=clock)
        self._batches = batches
        self._telemetry = telemetry
        self._clock = clock
        self._threads = started_pool(workers, "ubert-work")
        self._idle = workers
        self._workers = workers
        self._waiting: dict[_Job, None] = {}  # a queue that jobs can leave from the middle
        self._lanes: dict[Lane[Any, Any], dict[_Job, None]] = {}  # the same jobs, by lane
        self._wake: asyncio.Handle | None = None
        self._wake_at = 0.0
        self._quiet = asyncio.Event()
        self._quiet.set()

    def submit(
        self,
        lane: Lane[Q, R],
        request: Q,
        *,
        tokens: int = 0,
        deadline: float | None = None,
        on_start: Callable[[], None] | None = None,
        admitted: bool = False,
    ) -> "asyncio.Future[R]":
        """A future of the answer; cancelling it withdraws the request.

        ``tokens``: the most that answering may read. ``deadline``, by the clock: when it passes, the future fails with
        ``DeadlineError``, and a request that has not started is dropped. ``on_start``: called when a thread takes it.
        ``admitted``: see :meth:`Admission.check`.

        Raises ``OverloadedError``, and ``DeadlineError`` for a deadline that has passed.
        """
        now = self._clock()
        if deadline is not None and deadline <= now:
            self._telemetry.work_expired()
            raise DeadlineError("the deadline of the request had passed before its work could be queued")
        self.admission.check(tokens, admitted=admitted)
        loop = asyncio.get_running_loop()
        job = _Job(
            lane=lane,
            request=request,
            tokens=tokens,
            submitted=now,
            deadline=deadline,
            on_start=on_start,
            future=loop.create_future(),
            lane_queue=self._lanes.setdefault(lane, {}),
        )
        job.future.add_done_callback(partial(self._settled, job))
        if deadline is not None:
            job.expiry = loop.call_later(deadline - now, self._expire, job)
        self._waiting[job] = job.lane_queue[job] = None
        self.admission.queued(lane.kind, tokens)
        self._quiet.clear()
        self._dispatch_soon()
        return job.future

    async def close(self) -> None:
        """Admit nothing more, finish the admitted work, and end the threads."""
        self.admission.close()
        await self._quiet.wait()
        self._threads.shutdown()

    def _dispatch_soon(self, delay: float = 0.0) -> None:
        # Deferred, so that requests of the same turn of the event loop share a batch.
        if not self._idle:
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + delay
        if self._wake is not None:
            if self._wake_at <= at:
                return
            self._wake.cancel()
        self._wake, self._wake_at = loop.call_later(delay, self._dispatch), at

    def _dispatch(self) -> None:
        self._wake = None
        self._drop_done()
        delays: list[float] = []  # of lanes that wait for more requests: they hold up no other lane
        for job in list(self._waiting):
            if not self._idle:
                break
            if job not in self._waiting or next(iter(job.lane_queue)) is not job:
                continue  # it has started, or is not the head of its lane
            batch = self._batch_of(job.lane_queue)
            if (delay := self._seconds_to_wait(batch)) > 0:
                delays.append(delay)
            else:
                self._start(batch)
        if delays:
            self._dispatch_soon(min(delays))
        self._note_quiet()

    def _drop_done(self) -> None:
        """Drop expired and cancelled jobs, whose own timers and callbacks may come later in this turn of the loop."""
        now = self._clock()
        for job in list(self._waiting):
            if job.deadline is not None and job.deadline <= now:
                self._expire(job)
            if job.future.done():
                self._leave(job)

    def _seconds_to_wait(self, batch: list[_Job]) -> float:
        if not batch[0].lane.waits_for_batch or sum(job.tokens for job in batch) >= self._batches.tokens:
            return 0.0
        return batch[0].submitted + self._batches.wait - self._clock()

    def _batch_of(self, lane_queue: Iterable[_Job]) -> list[_Job]:
        """The longest waiting jobs of a lane, as many as the tokens of a batch allow."""
        batch: list[_Job] = []
        tokens = 0
        for job in lane_queue:
            if batch and tokens + job.tokens > self._batches.tokens:
                break
            batch.append(job)
            tokens += job.tokens
        return batch

    def _start(self, batch: list[_Job]) -> None:
        now = self._clock()
        for job in batch:
            self._leave(job)
            self._telemetry.work_started(waited=now - job.submitted)
            if job.on_start is not None:
                job.on_start()
        tokens = sum(job.tokens for job in batch)
        self._telemetry.batch_started(requests=len(batch), tokens=tokens)
        running = self.admission.began(batch[0].lane.kind, requests=len(batch), tokens=tokens)
        self._idle -= 1
        requests = [job.request for job in batch]

        def cancelled() -> bool:
            return all(job.future.done() for job in batch)

        work = asyncio.get_running_loop().run_in_executor(
            self._threads, self._outcomes, batch[0].lane, requests, cancelled
        )
        work.add_done_callback(partial(self._ended, batch, running))

    def _ended(self, batch: list[_Job], running: RunningBatch, work: "asyncio.Future[list[Any]]") -> None:
        self._idle += 1
        failure = work.exception()
        outcomes = [failure] * len(batch) if failure is not None else work.result()
        stopped_early = any(isinstance(outcome, WorkCancelledError) for outcome in outcomes)
        self.admission.ended(running, whole=not stopped_early)
        for job, outcome in zip(batch, outcomes, strict=True):
            if job.future.done():
                continue  # expired or cancelled while it ran
            if isinstance(outcome, BaseException):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)
        self._dispatch_soon()

    def _expire(self, job: _Job) -> None:
        if not job.future.done():
            self._telemetry.work_expired()
            waited = job in self._waiting
            state = "while it waited in the queue; no work was done" if waited else "while it was being answered"
            job.future.set_exception(DeadlineError(f"the deadline of the request has passed {state}"))

    def _settled(self, job: _Job, future: "asyncio.Future[Any]") -> None:
        if job.expiry is not None:
            job.expiry.cancel()
        if future.cancelled():
            self._telemetry.work_cancelled()
        if job in self._waiting:
            self._leave(job)
            self._note_quiet()

    def _leave(self, job: _Job) -> None:
        del self._waiting[job], job.lane_queue[job]
        if not job.lane_queue:
            del self._lanes[job.lane]
        self.admission.left(job.lane.kind, job.tokens)

    def _note_quiet(self) -> None:
        if not self._waiting and self._idle == self._workers:
            self._quiet.set()

    def _outcomes(self, lane: Lane[Q, R], requests: Sequence[Q], cancelled: Cancelled) -> list[R | Exception]:
        """An answer or an error for each request, in a worker thread.

        Halving isolates a single failing request in a few runs. If every request fails alone, it makes the failure
        slow instead of visible; so each split is counted and logged.
        """
        try:
            answers = lane.answer(requests, cancelled)
        except WorkCancelledError as error:
            return [error] * len(requests)
        except Exception as error:
            if len(requests) == 1 or lane.is_shared_failure(error):
                return [error] * len(requests)
            self._telemetry.batch_split()
            _log.warning(
                "a batch of %(requests)d requests failed with %(error)s and is retried in halves",
                {"requests": len(requests), "error": type(error).__name__},
            )
            half = len(requests) // 2
            return self._outcomes(lane, requests[:half], cancelled) + self._outcomes(lane, requests[half:], cancelled)
        if len(answers) != len(requests):
            raise AssertionError(f"{lane} gave {len(answers)} answers to {len(requests)} requests")
        return list(answers)
