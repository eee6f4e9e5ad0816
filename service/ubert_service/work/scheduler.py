"""The blocking work of all callers: one bounded queue, from which a few threads take batches of like work.

A free thread takes at once what has been waiting, so batches grow with the load and a lone request waits for
nobody. Work is admitted or refused when it is submitted; what was admitted leaves the queue the moment its future
is done, whatever has done it: an answer, its deadline, or a caller who cancels it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from ubert_service.errors import DeadlineError, WithdrawnError
from ubert_service.telemetry import QueueTelemetry
from ubert_service.work.admission import Admission, WaitingLimits
from ubert_service.work.wanted import Wanted

Q = TypeVar("Q")
R = TypeVar("R")
Q_contra = TypeVar("Q_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

_log = logging.getLogger(__name__)


class Lane(Hashable, Protocol[Q_contra, R_co]):
    """One kind of blocking work. Lanes that are equal share batches, so a lane holds all that its answers depend on
    but the questions themselves.
    """

    @property
    def awaits_company(self) -> bool:
        """Is it worth a short wait that others of the lane may come?"""

    def answer(self, questions: Sequence[Q_contra], wanted: Wanted, /) -> Sequence[R_co]:
        """One answer a question, in order; called in a worker thread.

        May raise ``WithdrawnError`` once nobody waits for any of the answers: ``wanted`` tells, from any thread.
        """

    def fails_all(self, error: Exception, /) -> bool:
        """Would ``error`` meet each question alone too? If not, the questions are parted to find whose it is."""


@dataclass(frozen=True, eq=False)
class Alone(Generic[R]):
    """The lane of a call that shares its thread with nobody; its question is None."""

    call: Callable[[Wanted], R]
    awaits_company: bool = False

    def answer(self, questions: Sequence[None], wanted: Wanted, /) -> Sequence[R]:
        return [self.call(wanted) for _ in questions]

    def fails_all(self, error: Exception, /) -> bool:
        del error
        return True


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """What may run together, and how long (``wait``, seconds) a free thread waits for company."""

    tokens: int
    wait: float


@dataclass(eq=False, slots=True, kw_only=True)
class _Job:
    lane: Lane[Any, Any]
    question: Any
    tokens: int
    submitted: float
    deadline: float | None
    taken: Callable[[], None] | None
    future: asyncio.Future[Any]
    like: "dict[_Job, None]"
    """Those of its lane that wait, itself among them while it does, in the order of the queue."""
    expiry: asyncio.TimerHandle | None = None
    waiting: bool = True


class Scheduler:
    """Not thread-safe: for the thread of the event loop alone. ``workers`` batches run at the same time."""

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
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="ubert-work")
        self._idle = workers
        self._workers = workers
        self._waiting: dict[_Job, None] = {}  # a queue whose members can leave from the middle
        self._lanes: dict[Lane[Any, Any], dict[_Job, None]] = {}  # the same jobs by lane
        self._wake: asyncio.Handle | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def waiting(self) -> int:
        """How many questions wait for a thread."""
        return len(self._waiting)

    def submit(
        self,
        lane: Lane[Q, R],
        question: Q,
        *,
        tokens: int = 0,
        deadline: float | None = None,
        taken: Callable[[], None] | None = None,
        goes_on: bool = False,
    ) -> "asyncio.Future[R]":
        """The answer to come; cancelling it withdraws the question.

        ``tokens``: what answering will read at most. ``deadline``: by the clock; when it passes the future fails
        with ``DeadlineError``, and a question that has not begun is dropped. ``taken``: called when it begins.
        ``goes_on``: of a request that was let in before (:meth:`Admission.check`).

        Raises ``OverloadedError``, and ``DeadlineError`` for a deadline that is over.
        """
        now = self._clock()
        if deadline is not None and deadline <= now:
            self._telemetry.work_expired()
            raise DeadlineError("the deadline of the request had passed before its work could be queued")
        self.admission.check(tokens, goes_on=goes_on)
        loop = asyncio.get_running_loop()
        job = _Job(
            lane=lane,
            question=question,
            tokens=tokens,
            submitted=now,
            deadline=deadline,
            taken=taken,
            future=loop.create_future(),
            like=self._lanes.setdefault(lane, {}),
        )
        job.future.add_done_callback(partial(self._settled, job))
        if deadline is not None:
            job.expiry = loop.call_later(deadline - now, self._expire, job)
        self._waiting[job] = job.like[job] = None
        self.admission.queued(tokens)
        self._quiet.clear()
        self._dispatch_soon()
        return job.future

    async def close(self) -> None:
        """Admit nothing more, finish what was admitted, and end the threads."""
        self.admission.close()
        await self._quiet.wait()
        self._threads.shutdown()

    def _dispatch_soon(self, delay: float = 0.0) -> None:
        # Not at once: questions that arrive in the same turn of the event loop can then go together.
        if self._idle:
            if self._wake is not None:
                self._wake.cancel()
            self._wake = asyncio.get_running_loop().call_later(delay, self._dispatch)

    def _dispatch(self) -> None:
        self._wake = None
        self._drop_what_is_over()
        delays: list[float] = []  # of lanes that wait for company: they hold nobody else up
        for job in list(self._waiting):
            if not self._idle:
                break
            if not job.waiting or next(iter(job.like)) is not job:
                continue  # it has begun, or waits behind others of its lane
            batch = self._batch_of(job.like)
            if (delay := self._seconds_to_company(batch)) > 0:
                delays.append(delay)
            else:
                self._start(batch)
        if delays:
            self._dispatch_soon(min(delays))
        self._note_quiet()

    def _drop_what_is_over(self) -> None:
        """Timers and callbacks that say so may still stand behind this one in the event loop."""
        now = self._clock()
        for job in list(self._waiting):
            if job.deadline is not None and job.deadline <= now:
                self._expire(job)
            if job.future.done():
                self._leave(job)

    def _seconds_to_company(self, batch: list[_Job]) -> float:
        if not batch[0].lane.awaits_company or sum(job.tokens for job in batch) >= self._batches.tokens:
            return 0.0
        return batch[0].submitted + self._batches.wait - self._clock()

    def _batch_of(self, like: Iterable[_Job]) -> list[_Job]:
        """Those of a lane who have waited longest, as far as the tokens of a batch go."""
        batch: list[_Job] = []
        tokens = 0
        for job in like:
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
            if job.taken is not None:
                job.taken()
        tokens = sum(job.tokens for job in batch)
        self._telemetry.batch_started(requests=len(batch), tokens=tokens)
        self.admission.began(requests=len(batch), tokens=tokens)
        self._idle -= 1
        questions = [job.question for job in batch]

        def wanted() -> bool:
            return not all(job.future.done() for job in batch)

        work = asyncio.get_running_loop().run_in_executor(
            self._threads, self._outcomes, batch[0].lane, questions, wanted
        )
        work.add_done_callback(partial(self._ended, batch, tokens))

    def _ended(self, batch: list[_Job], tokens: int, work: "asyncio.Future[list[Any]]") -> None:
        self._idle += 1
        failure = work.exception()
        outcomes = [failure] * len(batch) if failure is not None else work.result()
        withdrawn = any(isinstance(outcome, WithdrawnError) for outcome in outcomes)
        self.admission.ended(requests=len(batch), tokens=tokens, whole=not withdrawn)
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
            state = "while it was waiting; nothing was done for it" if job.waiting else "while it was being worked on"
            job.future.set_exception(DeadlineError(f"the deadline of the request has passed {state}"))

    def _settled(self, job: _Job, future: "asyncio.Future[Any]") -> None:
        if job.expiry is not None:
            job.expiry.cancel()
        if future.cancelled():
            self._telemetry.work_cancelled()
        if job.waiting:
            self._leave(job)
            self._note_quiet()

    def _leave(self, job: _Job) -> None:
        job.waiting = False
        del self._waiting[job], job.like[job]
        if not job.like:
            del self._lanes[job.lane]
        self.admission.left(job.tokens)

    def _note_quiet(self) -> None:
        if not self._waiting and self._idle == self._workers:
            self._quiet.set()

    def _outcomes(self, lane: Lane[Q, R], questions: Sequence[Q], wanted: Wanted) -> list[R | Exception]:
        """An answer or an error for each question, in a worker thread.

        Halving finds the one that fails alone in a few runs. Where all fail alone it makes the failure slow instead
        of visible, so it is counted and logged.
        """
        try:
            answers = lane.answer(questions, wanted)
        except WithdrawnError as error:
            return [error] * len(questions)
        except Exception as error:
            if len(questions) == 1 or lane.fails_all(error):
                return [error] * len(questions)
            self._telemetry.batch_parted()
            _log.warning(
                "a batch of %(requests)d requests failed with %(error)s and is tried again in halves",
                {"requests": len(questions), "error": type(error).__name__},
            )
            half = len(questions) // 2
            return self._outcomes(lane, questions[:half], wanted) + self._outcomes(lane, questions[half:], wanted)
        if len(answers) != len(questions):
            raise AssertionError(f"{lane} gave {len(answers)} answers to {len(questions)} questions")
        return list(answers)
