"""The scheduler's promises, with threads that go on when the test says so and a clock that the test sets."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest

from ubert_service.errors import DeadlineError, OverloadedError, WorkCancelledError
from ubert_service.telemetry import Refusal
from ubert_service.work.admission import WaitingLimits
from ubert_service.work.cancellation import Cancelled
from ubert_service.work.scheduler import BatchLimits, Scheduler, UnbatchedCall

WAITING = WaitingLimits(requests=100, tokens=1_000)
BATCHES = BatchLimits(tokens=50, wait=0.0)
PATIENCE = 10.0


@dataclass
class Tally:
    """A ``QueueTelemetry`` that remembers."""

    batches: list[tuple[int, int]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    expired: int = 0
    cancelled: int = 0
    parted: int = 0

    def work_started(self, *, waited: float) -> None:
        self.waits.append(waited)

    def batch_started(self, *, requests: int, tokens: int) -> None:
        self.batches.append((requests, tokens))

    def batch_split(self) -> None:
        self.parted += 1

    def work_refused(self, *, limit: Refusal) -> None:
        self.refused.append(limit)

    def work_expired(self) -> None:
        self.expired += 1

    def work_cancelled(self) -> None:
        self.cancelled += 1


class OutOfOrderError(Exception):
    """Everything is broken, for everyone."""


@dataclass(frozen=True)
class Squares:
    """A lane that squares, chokes on negative numbers, and writes down what it was asked together."""

    name: str = "a"
    waits_for_batch: bool = True
    asked: list[list[int]] = field(default_factory=list, compare=False)
    broken: bool = False

    def answer(self, requests: Sequence[int], cancelled: Cancelled, /) -> list[int]:
        self.asked.append(list(requests))
        if self.broken:
            raise OutOfOrderError
        if bad := [number for number in requests if number < 0]:
            raise ValueError(f"{bad[0]} is poison")
        return [number * number for number in requests]

    def is_shared_failure(self, error: Exception, /) -> bool:
        return isinstance(error, OutOfOrderError)


@contextmanager
def busy(scheduler: Scheduler, threads: int = 1) -> Iterator[None]:
    """Every thread is at work until the block ends."""
    release = threading.Event()
    futures = [scheduler.submit(UnbatchedCall(lambda _: release.wait(PATIENCE)), None) for _ in range(threads)]
    try:
        yield
    finally:
        release.set()
        del futures


async def once_taken(scheduler: Scheduler) -> None:
    """Until every thread that can has taken what waits; nothing in these tests then happens by itself."""
    for _ in range(3):
        await asyncio.sleep(0)


def run(
    law: Callable[[Scheduler, Tally], Awaitable[None]],
    waiting: WaitingLimits = WAITING,
    batches: BatchLimits = BATCHES,
    workers: int = 1,
    clock: Callable[[], float] = lambda: 0.0,
) -> Tally:
    async def main() -> Tally:
        tally = Tally()
        scheduler = Scheduler(waiting=waiting, batches=batches, workers=workers, telemetry=tally, clock=clock)
        await asyncio.wait_for(law(scheduler, tally), PATIENCE)
        await asyncio.wait_for(scheduler.close(), PATIENCE)
        return tally

    return asyncio.run(main())


def test_each_caller_gets_the_answer_to_its_own_request() -> None:
    async def law(scheduler: Scheduler, tally: Tally) -> None:
        futures = [scheduler.submit(Squares(), number) for number in range(20)]
        assert await asyncio.gather(*futures) == [number * number for number in range(20)]

    run(law, workers=3)


def test_what_arrives_while_a_thread_works_goes_together_when_it_is_free() -> None:
    lane = Squares()

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        with busy(scheduler):
            await once_taken(scheduler)
            futures = [scheduler.submit(lane, number, tokens=10) for number in range(4)]
            await once_taken(scheduler)
            assert lane.asked == []
        await asyncio.gather(*futures)

    assert run(law).batches == [(1, 0), (4, 40)]
    assert lane.asked == [[0, 1, 2, 3]]


def test_a_batch_ends_at_its_tokens_and_larger_work_goes_alone() -> None:
    lane = Squares()

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        sizes = (20, 20, 20, 500, 1)
        await asyncio.gather(*[scheduler.submit(lane, number, tokens=size) for number, size in enumerate(sizes)])

    assert run(law).batches == [(2, 40), (1, 20), (1, 500), (1, 1)]
    assert lane.asked == [[0, 1], [2], [3], [4]]


def test_lanes_that_differ_never_share_a_batch_and_the_longest_waiting_goes_first() -> None:
    odd, even = Squares("odd"), Squares("even")

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        await asyncio.gather(*[scheduler.submit(odd if number % 2 else even, number) for number in range(6)])

    run(law)
    assert (even.asked, odd.asked) == ([[0, 2, 4]], [[1, 3, 5]])


def test_one_poisonous_request_fails_alone() -> None:
    lane = Squares()

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        numbers = [3, 1, -7, 5, 2, 8, 4, 6]
        outcomes = await asyncio.gather(*[scheduler.submit(lane, number) for number in numbers], return_exceptions=True)
        assert [outcome for outcome in outcomes if isinstance(outcome, int)] == [9, 1, 25, 4, 64, 16, 36]
        assert isinstance(outcomes[2], ValueError)

    assert run(law).parted == 3
    assert len(lane.asked) == 7  # halves of 8, of 4 and of 2, and the whole


def test_a_failure_that_concerns_everyone_is_not_tried_again() -> None:
    lane = Squares(broken=True)

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        outcomes = await asyncio.gather(
            *[scheduler.submit(lane, number) for number in range(8)], return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {OutOfOrderError}

    run(law)
    assert len(lane.asked) == 1


def test_a_lane_that_loses_an_answer_fails_rather_than_hangs() -> None:
    class Forgetful(Squares):
        def answer(self, requests: Sequence[int], cancelled: Cancelled, /) -> list[int]:
            return super().answer(requests, cancelled)[1:]

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        outcomes = await asyncio.gather(
            *[scheduler.submit(Forgetful(), number) for number in range(3)], return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {AssertionError}

    run(law)


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (WaitingLimits(requests=3, tokens=1_000), "requests"),
        (WaitingLimits(requests=100, tokens=39), "tokens"),
    ],
)
def test_past_either_limit_work_is_refused_and_what_was_admitted_is_answered(limits: WaitingLimits, limit: str) -> None:
    async def law(scheduler: Scheduler, tally: Tally) -> None:
        with busy(scheduler):
            await once_taken(scheduler)
            futures = [scheduler.submit(Squares(), number, tokens=13) for number in range(3)]
            with pytest.raises(OverloadedError, match="3 requests of 39 tokens"):
                scheduler.submit(Squares(), 9, tokens=13)
        assert await asyncio.gather(*futures) == [0, 1, 4]
        assert await scheduler.submit(Squares(), 9, tokens=13) == 81

    assert run(law, limits).refused == [limit]


def test_work_of_any_size_is_admitted_where_nothing_waits() -> None:
    async def law(scheduler: Scheduler, tally: Tally) -> None:
        assert await scheduler.submit(Squares(), 2, tokens=WAITING.tokens * 10) == 4

    run(law)


def test_a_deadline_that_is_over_costs_nothing() -> None:
    lane = Squares()

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        with pytest.raises(DeadlineError):
            scheduler.submit(lane, 1, deadline=7.0)

    tally = run(law, clock=lambda: 7.0)
    assert (tally.expired, tally.batches, lane.asked) == (1, [], [])


def test_what_expires_while_it_waits_is_dropped_before_it_costs_anything() -> None:
    lane = Squares()
    now = 0.0

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        nonlocal now
        with busy(scheduler):
            await once_taken(scheduler)
            # Far enough for no timer of the event loop to come first: the thread that is free again looks itself.
            expiring, patient = (scheduler.submit(lane, number, deadline=at) for number, at in ((1, 60.0), (2, 600.0)))
            now = 61.0
        assert await patient == 4
        with pytest.raises(DeadlineError, match="no work was done"):
            await expiring

    assert run(law, clock=lambda: now).expired == 1
    assert lane.asked == [[2]]


def test_a_caller_is_told_at_its_deadline_even_if_every_thread_is_stuck() -> None:
    async def law(scheduler: Scheduler, tally: Tally) -> None:
        with busy(scheduler), pytest.raises(DeadlineError):
            await scheduler.submit(Squares(), 1, deadline=0.01)

    assert run(law).expired == 1


def test_what_is_cancelled_leaves_the_queue_and_makes_room() -> None:
    lane = Squares()

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        with busy(scheduler):
            await once_taken(scheduler)
            first, second = scheduler.submit(lane, 1, tokens=5), scheduler.submit(lane, 2, tokens=5)
            with pytest.raises(OverloadedError):
                scheduler.submit(lane, 3)
            first.cancel()
            await once_taken(scheduler)
            third = scheduler.submit(lane, 3, tokens=5)
        assert await asyncio.gather(second, third) == [4, 9]

    tally = run(law, WaitingLimits(requests=2, tokens=1_000))
    assert (tally.cancelled, lane.asked) == (1, [[2, 3]])


def test_cancelling_work_that_runs_harms_nobody_else_in_its_batch() -> None:
    entered, release = threading.Event(), threading.Event()

    class Slow(Squares):
        def answer(self, requests: Sequence[int], cancelled: Cancelled, /) -> list[int]:
            entered.set()
            release.wait(PATIENCE)
            return super().answer(requests, cancelled)

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        futures = [scheduler.submit(Slow(), number) for number in range(3)]
        await asyncio.to_thread(entered.wait, PATIENCE)
        futures[1].cancel()
        release.set()
        assert await asyncio.gather(futures[0], futures[2]) == [0, 4]

    run(law)


def test_work_is_cancelled_once_the_last_caller_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, release = threading.Event(), threading.Event()
    told: list[bool] = []
    counted: list[bool] = []

    class Asking(Squares):
        def answer(self, requests: Sequence[int], cancelled: Cancelled, /) -> list[int]:
            told.append(cancelled())
            entered.set()
            release.wait(PATIENCE)
            told.append(cancelled())
            raise WorkCancelledError("nobody is there")

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        ended = scheduler.admission.ended

        def noted(*, requests: int, tokens: int, whole: bool = True) -> None:
            counted.append(whole)
            ended(requests=requests, tokens=tokens, whole=whole)

        monkeypatch.setattr(scheduler.admission, "ended", noted)
        expiring = scheduler.submit(Asking(), 2, deadline=0.1)
        leaving = scheduler.submit(Asking(), 3)
        await asyncio.to_thread(entered.wait, PATIENCE)
        with pytest.raises(DeadlineError, match="being answered"):
            await expiring
        leaving.cancel()
        release.set()

    tally = run(law)
    assert (told, counted) == ([False, True], [False])
    assert (tally.batches, tally.parted, tally.expired, tally.cancelled) == ([(2, 0)], 0, 1, 1)


def test_work_that_one_of_two_callers_still_waits_for_goes_on() -> None:
    entered, release = threading.Event(), threading.Event()

    class Asking(Squares):
        def answer(self, requests: Sequence[int], cancelled: Cancelled, /) -> list[int]:
            entered.set()
            release.wait(PATIENCE)
            assert not cancelled()
            return super().answer(requests, cancelled)

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        leaving, staying = scheduler.submit(Asking(), 2), scheduler.submit(Asking(), 3)
        await asyncio.to_thread(entered.wait, PATIENCE)
        leaving.cancel()
        release.set()
        assert await staying == 9

    run(law)


def test_a_free_thread_waits_for_company_no_longer_than_it_may() -> None:
    lane = Squares()
    now = 0.0

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        nonlocal now
        first = scheduler.submit(lane, 1, tokens=10)
        await once_taken(scheduler)
        assert tally.batches == []
        now = 0.02
        second = scheduler.submit(lane, 2, tokens=10)
        await asyncio.gather(first, second)

    tally = run(law, batches=BatchLimits(tokens=50, wait=0.02), clock=lambda: now)
    assert (tally.batches, tally.waits) == ([(2, 20)], [0.02, 0.0])


def test_who_waits_for_company_keeps_nobody_else_from_a_free_thread() -> None:
    lane = Squares()
    now = 0.0

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        nonlocal now
        first = scheduler.submit(lane, 1, tokens=10)
        full = [scheduler.submit(Squares("b"), number, tokens=25) for number in range(2)]
        assert await scheduler.submit(UnbatchedCall(lambda _: "done"), None) == "done"
        assert await asyncio.gather(*full) == [0, 1]
        assert lane.asked == []
        now = 1.0
        second = scheduler.submit(lane, 2, tokens=10)
        assert await asyncio.gather(first, second) == [1, 4]

    run(law, batches=BatchLimits(tokens=50, wait=1.0), clock=lambda: now)
    assert lane.asked == [[1, 2]]


def test_of_two_lanes_that_wait_for_company_each_goes_at_its_own_time() -> None:
    early, late = Squares("early"), Squares("late")
    now = 0.0

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        nonlocal now
        futures = [scheduler.submit(early, 1)]
        await once_taken(scheduler)
        now = 999.95
        futures.append(scheduler.submit(late, 2))
        await once_taken(scheduler)
        now = 1_000.0
        assert await futures[0] == 1  # 0.05 s later: nobody comes who would wake the scheduler
        assert late.asked == []
        now = 1_999.95
        scheduler.submit(Squares("whoever"), 3).cancel()
        assert await futures[1] == 4

    run(law, batches=BatchLimits(tokens=50, wait=1_000.0), clock=lambda: now)


def test_behind_a_full_batch_the_rest_of_its_lane_waits_for_company_in_order() -> None:
    lane = Squares()
    now = 0.0

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        nonlocal now
        futures = [scheduler.submit(lane, number, tokens=25) for number in range(3)]
        assert await asyncio.gather(*futures[:2]) == [0, 1]
        assert lane.asked == [[0, 1]]
        futures.append(scheduler.submit(lane, 3, tokens=500))
        await once_taken(scheduler)
        assert lane.asked == [[0, 1]]  # the large one stays behind the one that came first
        now = 1.0
        scheduler.submit(Squares("whoever"), 3).cancel()
        assert await asyncio.gather(*futures[2:]) == [4, 9]

    run(law, batches=BatchLimits(tokens=50, wait=1.0), clock=lambda: now)
    assert lane.asked == [[0, 1], [2], [3]]


def test_a_full_batch_and_a_call_that_goes_alone_wait_for_nobody() -> None:
    async def law(scheduler: Scheduler, tally: Tally) -> None:
        await asyncio.gather(*[scheduler.submit(Squares(), number, tokens=25) for number in range(2)])
        assert await scheduler.submit(UnbatchedCall(lambda _: "done"), None) == "done"

    # The clock stands still, so whoever waited would wait for ever.
    run(law, batches=BatchLimits(tokens=50, wait=1.0))


def test_closing_finishes_what_was_admitted_and_admits_nothing_more() -> None:
    async def law(scheduler: Scheduler, tally: Tally) -> None:
        with busy(scheduler):
            await once_taken(scheduler)
            futures = [scheduler.submit(Squares(), number) for number in range(3)]
            closing = asyncio.create_task(scheduler.close())
            await once_taken(scheduler)
            with pytest.raises(OverloadedError):
                scheduler.submit(Squares(), 4)
            assert not closing.done()
        await closing
        assert [future.result() for future in futures] == [0, 1, 4]

    assert run(law).refused == ["closing"]


def test_nothing_is_kept_of_what_was_answered_in_time() -> None:
    class Held:
        """Stands for all that a request has in memory."""

    async def law(scheduler: Scheduler, tally: Tally) -> None:
        held = Held()
        gone = weakref.ref(held)
        await scheduler.submit(UnbatchedCall(partial(lambda _held, _: None, held)), None, deadline=60.0)
        del held
        for _ in range(2):  # the thread lets go of its last work when it takes the next
            await scheduler.submit(UnbatchedCall(lambda _: None), None)
        gc.collect()
        assert gone() is None

    run(law)
