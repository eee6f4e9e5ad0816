"""The scheduler, with worker threads that a test can keep busy and a clock that it sets."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest

from support.waiting import wait_until
from ubert_service.errors import DeadlineError, OverloadedError, WorkCancelledError
from ubert_service.telemetry import Refusal
from ubert_service.work.admission import RunningBatch, WaitingLimits, WorkKind
from ubert_service.work.cancellation import Cancelled
from ubert_service.work.scheduler import BatchLimits, Scheduler, UnbatchedCall

WAITING = WaitingLimits(requests=100, tokens=1_000)
BATCHES = BatchLimits(tokens=50, wait=0.0)
TIMEOUT_S = 60.0


@dataclass
class RecordedTelemetry:
    """A ``QueueTelemetry`` that records."""

    batches: list[tuple[int, int]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    expired: int = 0
    cancelled: int = 0
    splits: int = 0

    def work_started(self, *, waited: float) -> None:
        self.waits.append(waited)

    def batch_started(self, *, requests: int, tokens: int) -> None:
        self.batches.append((requests, tokens))

    def batch_split(self) -> None:
        self.splits += 1

    def work_refused(self, *, limit: Refusal) -> None:
        self.refused.append(limit)

    def work_expired(self) -> None:
        self.expired += 1

    def work_cancelled(self) -> None:
        self.cancelled += 1


class SharedError(Exception):
    """Every request fails with it, alone or in a batch."""


@dataclass(frozen=True)
class Squares:
    """A lane that squares numbers, fails on negative ones, and records its batches."""

    name: str = "a"
    kind: WorkKind = "scoring"
    waits_for_batch: bool = True
    calls: list[list[int]] = field(default_factory=list, compare=False)
    broken: bool = False

    def answer(self, requests: Sequence[int], cancelled: Cancelled, /) -> list[int]:
        self.calls.append(list(requests))
        if self.broken:
            raise SharedError
        if bad := [number for number in requests if number < 0]:
            raise ValueError(f"{bad[0]} is negative")
        return [number * number for number in requests]

    def is_shared_failure(self, error: Exception, /) -> bool:
        return isinstance(error, SharedError)


@contextmanager
def busy(scheduler: Scheduler) -> Iterator[None]:
    """The only thread is at work until the block ends."""
    release = threading.Event()
    scheduler.submit(UnbatchedCall(lambda _: release.wait(TIMEOUT_S)), None)
    try:
        yield
    finally:
        release.set()


async def dispatched() -> None:
    """Let the scheduler dispatch what waits to the free threads."""
    for _ in range(3):
        await asyncio.sleep(0)


def run(
    scenario: Callable[[Scheduler], Awaitable[None]],
    waiting: WaitingLimits = WAITING,
    batches: BatchLimits = BATCHES,
    workers: int = 1,
    clock: Callable[[], float] = lambda: 0.0,
) -> RecordedTelemetry:
    async def main() -> RecordedTelemetry:
        telemetry = RecordedTelemetry()
        scheduler = Scheduler(waiting=waiting, batches=batches, workers=workers, telemetry=telemetry, clock=clock)
        await asyncio.wait_for(scenario(scheduler), TIMEOUT_S)
        await asyncio.wait_for(scheduler.close(), TIMEOUT_S)
        return telemetry

    return asyncio.run(main())


def working_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ubert-work")]


def test_all_threads_are_started_before_the_first_request() -> None:
    async def scenario(scheduler: Scheduler) -> None:
        del scheduler
        assert len(working_threads()) == 3

    run(scenario, workers=3)


def test_a_scheduler_without_all_of_its_threads_is_an_error_and_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def start_at_most_two(thread: threading.Thread) -> None:
        if len(working_threads()) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    async def scenario(scheduler: Scheduler) -> None:
        del scheduler
        pytest.fail("it has only two of three threads")

    monkeypatch.setattr(threading.Thread, "start", start_at_most_two)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run(scenario, workers=3)
    monkeypatch.undo()
    gc.collect()  # the executor's end ends its threads, unless they wait for the third
    wait_until(lambda: not working_threads())


def test_each_caller_gets_the_answer_to_its_own_request() -> None:
    async def scenario(scheduler: Scheduler) -> None:
        futures = [scheduler.submit(Squares(), number) for number in range(20)]
        assert await asyncio.gather(*futures) == [number * number for number in range(20)]

    run(scenario, workers=3)


def test_requests_that_wait_for_a_thread_are_answered_in_one_batch() -> None:
    lane = Squares()

    async def scenario(scheduler: Scheduler) -> None:
        with busy(scheduler):
            await dispatched()
            futures = [scheduler.submit(lane, number, tokens=10) for number in range(4)]
            await dispatched()
            assert lane.calls == []
        await asyncio.gather(*futures)

    assert run(scenario).batches == [(1, 0), (4, 40)]
    assert lane.calls == [[0, 1, 2, 3]]


def test_a_batch_keeps_within_its_tokens_and_a_larger_request_runs_alone() -> None:
    lane = Squares()

    async def scenario(scheduler: Scheduler) -> None:
        sizes = (20, 20, 20, 500, 1)
        await asyncio.gather(*[scheduler.submit(lane, number, tokens=size) for number, size in enumerate(sizes)])

    assert run(scenario).batches == [(2, 40), (1, 20), (1, 500), (1, 1)]
    assert lane.calls == [[0, 1], [2], [3], [4]]


def test_different_lanes_never_share_a_batch_and_the_longest_waiting_starts_first() -> None:
    odd, even = Squares("odd"), Squares("even")

    async def scenario(scheduler: Scheduler) -> None:
        await asyncio.gather(*[scheduler.submit(odd if number % 2 else even, number) for number in range(6)])

    run(scenario)
    assert (even.calls, odd.calls) == ([[0, 2, 4]], [[1, 3, 5]])


def test_a_failing_request_fails_alone() -> None:
    lane = Squares()

    async def scenario(scheduler: Scheduler) -> None:
        numbers = [3, 1, -7, 5, 2, 8, 4, 6]
        outcomes = await asyncio.gather(*[scheduler.submit(lane, number) for number in numbers], return_exceptions=True)
        assert [outcome for outcome in outcomes if isinstance(outcome, int)] == [9, 1, 25, 4, 64, 16, 36]
        assert isinstance(outcomes[2], ValueError)

    assert run(scenario).splits == 3
    assert len(lane.calls) == 7  # halves of 8, of 4 and of 2, and the whole


def test_a_shared_failure_is_not_retried_in_halves() -> None:
    lane = Squares(broken=True)

    async def scenario(scheduler: Scheduler) -> None:
        outcomes = await asyncio.gather(
            *[scheduler.submit(lane, number) for number in range(8)], return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {SharedError}

    run(scenario)
    assert len(lane.calls) == 1


def test_a_batch_with_too_few_answers_fails() -> None:
    class Incomplete(Squares):
        def answer(self, requests: Sequence[int], cancelled: Cancelled, /) -> list[int]:
            return super().answer(requests, cancelled)[1:]

    async def scenario(scheduler: Scheduler) -> None:
        outcomes = await asyncio.gather(
            *[scheduler.submit(Incomplete(), number) for number in range(3)], return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {AssertionError}

    run(scenario)


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (WaitingLimits(requests=3, tokens=1_000), "requests"),
        (WaitingLimits(requests=100, tokens=39), "tokens"),
    ],
)
def test_work_beyond_either_limit_is_refused_and_admitted_work_is_answered(limits: WaitingLimits, limit: str) -> None:
    async def scenario(scheduler: Scheduler) -> None:
        with busy(scheduler):
            await dispatched()
            futures = [scheduler.submit(Squares(), number, tokens=13) for number in range(3)]
            with pytest.raises(OverloadedError, match="3 requests of 39 tokens"):
                scheduler.submit(Squares(), 9, tokens=13)
        assert await asyncio.gather(*futures) == [0, 1, 4]
        assert await scheduler.submit(Squares(), 9, tokens=13) == 81

    assert run(scenario, limits).refused == [limit]


def test_a_request_whose_deadline_has_passed_is_not_queued() -> None:
    lane = Squares()

    async def scenario(scheduler: Scheduler) -> None:
        with pytest.raises(DeadlineError):
            scheduler.submit(lane, 1, deadline=7.0)

    telemetry = run(scenario, clock=lambda: 7.0)
    assert (telemetry.expired, telemetry.batches, lane.calls) == (1, [], [])


def test_a_request_that_expires_in_the_queue_is_never_run() -> None:
    lane = Squares()
    now = 0.0

    async def scenario(scheduler: Scheduler) -> None:
        nonlocal now
        with busy(scheduler):
            await dispatched()
            # Too far ahead for a timer of the event loop: the deadlines are checked when the thread is free again.
            expiring, patient = (scheduler.submit(lane, number, deadline=at) for number, at in ((1, 60.0), (2, 600.0)))
            now = 61.0
        assert await patient == 4
        with pytest.raises(DeadlineError, match="no work was done"):
            await expiring

    assert run(scenario, clock=lambda: now).expired == 1
    assert lane.calls == [[2]]


def test_a_request_fails_at_its_deadline_even_if_every_thread_is_stuck() -> None:
    async def scenario(scheduler: Scheduler) -> None:
        with busy(scheduler), pytest.raises(DeadlineError):
            await scheduler.submit(Squares(), 1, deadline=0.01)

    assert run(scenario).expired == 1


def test_a_cancelled_request_leaves_the_queue_and_makes_room() -> None:
    lane = Squares()

    async def scenario(scheduler: Scheduler) -> None:
        with busy(scheduler):
            await dispatched()
            first, second = scheduler.submit(lane, 1, tokens=5), scheduler.submit(lane, 2, tokens=5)
            with pytest.raises(OverloadedError):
                scheduler.submit(lane, 3)
            first.cancel()
            await dispatched()
            third = scheduler.submit(lane, 3, tokens=5)
        assert [await second, await third] == [4, 9]

    telemetry = run(scenario, WaitingLimits(requests=2, tokens=1_000))
    assert (telemetry.cancelled, lane.calls) == (1, [[2, 3]])


def test_cancelling_a_running_request_does_not_affect_the_rest_of_its_batch() -> None:
    entered, release = threading.Event(), threading.Event()

    class Slow(Squares):
        def answer(self, requests: Sequence[int], cancelled: Cancelled, /) -> list[int]:
            entered.set()
            release.wait(TIMEOUT_S)
            return super().answer(requests, cancelled)

    async def scenario(scheduler: Scheduler) -> None:
        futures = [scheduler.submit(Slow(), number) for number in range(3)]
        await asyncio.to_thread(entered.wait, TIMEOUT_S)
        futures[1].cancel()
        release.set()
        assert [await futures[0], await futures[2]] == [0, 4]

    run(scenario)


def test_running_work_is_cancelled_once_its_last_caller_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, release = threading.Event(), threading.Event()
    seen: list[bool] = []
    measured: list[bool] = []

    class Checking(Squares):
        def answer(self, requests: Sequence[int], cancelled: Cancelled, /) -> list[int]:
            seen.append(cancelled())
            entered.set()
            release.wait(TIMEOUT_S)
            seen.append(cancelled())
            raise WorkCancelledError("no caller waits")

    async def scenario(scheduler: Scheduler) -> None:
        ended = scheduler.admission.ended

        def record(batch: RunningBatch, *, whole: bool = True) -> None:
            measured.append(whole)
            ended(batch, whole=whole)

        monkeypatch.setattr(scheduler.admission, "ended", record)
        expiring = scheduler.submit(Checking(), 2, deadline=0.1)
        leaving = scheduler.submit(Checking(), 3)
        await asyncio.to_thread(entered.wait, TIMEOUT_S)
        with pytest.raises(DeadlineError, match="being answered"):
            await expiring
        leaving.cancel()
        release.set()

    telemetry = run(scenario)
    assert (seen, measured) == ([False, True], [False])
    assert (telemetry.batches, telemetry.splits, telemetry.expired, telemetry.cancelled) == ([(2, 0)], 0, 1, 1)


def test_running_work_continues_while_one_of_its_callers_waits() -> None:
    entered, release = threading.Event(), threading.Event()

    class Checking(Squares):
        def answer(self, requests: Sequence[int], cancelled: Cancelled, /) -> list[int]:
            entered.set()
            release.wait(TIMEOUT_S)
            assert not cancelled()
            return super().answer(requests, cancelled)

    async def scenario(scheduler: Scheduler) -> None:
        leaving, staying = scheduler.submit(Checking(), 2), scheduler.submit(Checking(), 3)
        await asyncio.to_thread(entered.wait, TIMEOUT_S)
        leaving.cancel()
        release.set()
        assert await staying == 9

    run(scenario)


def test_a_free_thread_waits_for_a_full_batch_no_longer_than_allowed() -> None:
    lane = Squares()
    now = 0.0

    async def scenario(scheduler: Scheduler) -> None:
        nonlocal now
        first = scheduler.submit(lane, 1, tokens=10)
        await dispatched()
        assert scheduler.admission.waiting == 1
        now = 0.02
        second = scheduler.submit(lane, 2, tokens=10)
        await asyncio.gather(first, second)

    telemetry = run(scenario, batches=BatchLimits(tokens=50, wait=0.02), clock=lambda: now)
    assert (telemetry.batches, telemetry.waits) == ([(2, 20)], [0.02, 0.0])


def test_requests_in_every_turn_of_the_loop_do_not_put_off_the_first() -> None:
    lane = Squares()

    async def scenario(scheduler: Scheduler) -> None:
        first = scheduler.submit(lane, 1)
        others = []
        for number in range(20):
            await asyncio.sleep(0)
            others.append(scheduler.submit(lane, number))
        assert scheduler.admission.waiting <= len(others)
        await asyncio.gather(first, *others)

    run(scenario)


def test_a_lane_that_waits_for_a_full_batch_does_not_hold_up_other_lanes() -> None:
    lane = Squares()
    now = 0.0

    async def scenario(scheduler: Scheduler) -> None:
        nonlocal now
        first = scheduler.submit(lane, 1, tokens=10)
        full = [scheduler.submit(Squares("b"), number, tokens=25) for number in range(2)]
        assert await scheduler.submit(UnbatchedCall(lambda _: "done"), None) == "done"
        assert await asyncio.gather(*full) == [0, 1]
        assert lane.calls == []
        now = 1.0
        second = scheduler.submit(lane, 2, tokens=10)
        assert [await first, await second] == [1, 4]

    run(scenario, batches=BatchLimits(tokens=50, wait=1.0), clock=lambda: now)
    assert lane.calls == [[1, 2]]


def test_each_lane_starts_when_its_own_wait_for_a_full_batch_ends() -> None:
    early, late = Squares("early"), Squares("late")
    now = 0.0

    async def scenario(scheduler: Scheduler) -> None:
        nonlocal now
        futures = [scheduler.submit(early, 1)]
        await dispatched()
        now = 999.95
        futures.append(scheduler.submit(late, 2))
        await dispatched()
        now = 1_000.0
        assert await futures[0] == 1  # after 0.05 s: no new request wakes the scheduler
        assert late.calls == []
        now = 1_999.95
        scheduler.submit(Squares("other"), 3).cancel()
        assert await futures[1] == 4

    run(scenario, batches=BatchLimits(tokens=50, wait=1_000.0), clock=lambda: now)


def test_the_requests_behind_a_full_batch_wait_for_the_next_one_in_order() -> None:
    lane = Squares()
    now = 0.0

    async def scenario(scheduler: Scheduler) -> None:
        nonlocal now
        futures = [scheduler.submit(lane, number, tokens=25) for number in range(3)]
        assert await asyncio.gather(*futures[:2]) == [0, 1]
        assert lane.calls == [[0, 1]]
        futures.append(scheduler.submit(lane, 3, tokens=500))
        await dispatched()
        assert lane.calls == [[0, 1]]  # the large request does not overtake the one before it
        now = 1.0
        scheduler.submit(Squares("other"), 3).cancel()
        assert await asyncio.gather(*futures[2:]) == [4, 9]

    run(scenario, batches=BatchLimits(tokens=50, wait=1.0), clock=lambda: now)
    assert lane.calls == [[0, 1], [2], [3]]


def test_a_full_batch_and_an_unbatched_call_start_at_once() -> None:
    async def scenario(scheduler: Scheduler) -> None:
        await asyncio.gather(*[scheduler.submit(Squares(), number, tokens=25) for number in range(2)])
        assert await scheduler.submit(UnbatchedCall(lambda _: "done"), None) == "done"

    # The clock stands still, so a wait would never end.
    run(scenario, batches=BatchLimits(tokens=50, wait=1.0))


def test_closing_finishes_admitted_work_and_refuses_new_work() -> None:
    async def scenario(scheduler: Scheduler) -> None:
        with busy(scheduler):
            await dispatched()
            futures = [scheduler.submit(Squares(), number) for number in range(3)]
            closing = asyncio.create_task(scheduler.close())
            await dispatched()
            with pytest.raises(OverloadedError):
                scheduler.submit(Squares(), 4)
            assert not closing.done()
        await closing
        assert [future.result() for future in futures] == [0, 1, 4]

    assert run(scenario).refused == ["closing"]


def test_an_answered_request_is_not_kept_in_memory() -> None:
    class Held:
        """Stands for everything that a request references."""

    async def scenario(scheduler: Scheduler) -> None:
        held = Held()
        gone = weakref.ref(held)
        await scheduler.submit(UnbatchedCall(partial(lambda _held, _: None, held)), None, deadline=60.0)
        del held
        for _ in range(2):  # a thread releases its last work when it takes the next
            await scheduler.submit(UnbatchedCall(lambda _: None), None)
        gc.collect()
        assert gone() is None

    run(scenario)
