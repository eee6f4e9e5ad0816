"""Who is let in, by a clock that the test turns and work that takes as long as the test says."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from ubert_service.errors import OverloadedError
from ubert_service.telemetry import Refusal
from ubert_service.work.admission import Admission, WaitingLimits

TOKENS = 512


@dataclass
class Refusals:
    """A ``QueueTelemetry`` that remembers refusals; admission reports nothing else."""

    limits: list[Refusal] = field(default_factory=list)

    def work_refused(self, *, limit: Refusal) -> None:
        self.limits.append(limit)

    def work_started(self, *, waited: float) -> None:
        raise AssertionError

    def batch_started(self, *, requests: int, tokens: int) -> None:
        raise AssertionError

    def batch_split(self) -> None:
        raise AssertionError

    def work_expired(self) -> None:
        raise AssertionError

    def work_cancelled(self) -> None:
        raise AssertionError


class Desk:
    """An admission whose work and time are in the test's hands."""

    def __init__(
        self,
        *,
        workers: int = 1,
        seconds: float = math.inf,
        requests: int = 1_000,
        overload_seconds: float = math.inf,
    ) -> None:
        self.now = 100.0
        self.refusals = Refusals()
        self.admission = Admission(
            WaitingLimits(requests=requests, tokens=1_000_000, seconds=seconds, overload_seconds=overload_seconds),
            workers=workers,
            telemetry=self.refusals,
            clock=lambda: self.now,
        )

    def submit(self, tokens: int = TOKENS) -> None:
        self.admission.check(tokens)
        self.admission.queued(tokens)

    def begin(self, requests: int = 1, tokens: int = TOKENS) -> None:
        """A thread takes so many requests of so many tokens each."""
        for _ in range(requests):
            self.admission.left(tokens)
        self.admission.began(requests=requests, tokens=requests * tokens)

    def end(self, requests: int = 1, tokens: int = TOKENS, *, whole: bool = True) -> None:
        self.admission.ended(requests=requests, tokens=requests * tokens, whole=whole)

    def work_off(self, times: int, *, seconds: float, tokens: int = TOKENS) -> None:
        """One request after the other, each of which takes so long."""
        for _ in range(times):
            self.submit(tokens)
            self.begin(tokens=tokens)
            self.now += seconds
            self.end(tokens=tokens)


def test_what_a_newcomer_waits_is_the_work_before_it_at_the_pace_of_the_last() -> None:
    desk = Desk()
    desk.work_off(200, seconds=0.004)
    for _ in range(3):
        desk.submit()
    desk.begin()
    assert desk.admission.expected_wait == pytest.approx(3 * 0.004)
    desk.now += 0.003
    assert desk.admission.expected_wait == pytest.approx(3 * 0.004 - 0.003)


def test_a_free_thread_is_not_waited_for() -> None:
    desk = Desk(workers=2)
    desk.work_off(200, seconds=0.004)
    desk.submit()
    desk.begin()
    assert desk.admission.expected_wait == 0.0


def test_larger_work_takes_longer_by_its_tokens() -> None:
    desk = Desk()
    desk.work_off(200, seconds=0.004)
    desk.submit(100 * TOKENS)
    assert desk.admission.expected_wait == pytest.approx(0.004 * 101 / 2)


def test_the_time_between_two_requests_is_no_work() -> None:
    desk = Desk()
    for _ in range(200):
        desk.now += 10.0
        desk.work_off(1, seconds=0.004)
    desk.submit()
    assert desk.admission.expected_wait == pytest.approx(0.004)


def test_how_long_nobody_came_is_nobodys_wait() -> None:
    desk = Desk()
    desk.work_off(200, seconds=0.004)
    desk.now += 60.0
    desk.submit()
    assert desk.admission.expected_wait == pytest.approx(0.004)


def test_who_comes_while_others_are_served_does_not_shorten_what_these_took() -> None:
    desk = Desk()
    desk.work_off(200, seconds=0.004)
    desk.submit()
    desk.begin()
    desk.now += 0.003
    desk.submit()
    desk.now += 0.001
    desk.end()
    assert desk.admission.expected_wait == pytest.approx(0.004)


def test_work_that_takes_longer_than_expected_owes_nobody_time() -> None:
    desk = Desk()
    desk.work_off(200, seconds=0.004)
    desk.submit()
    desk.begin()
    desk.now += 5.0
    assert desk.admission.expected_wait == 0.0


def test_a_pace_is_forgotten_once_work_takes_as_long_as_before_again() -> None:
    desk = Desk()
    desk.work_off(200, seconds=0.004)
    desk.work_off(1, seconds=30.0)  # a store that did not answer
    desk.work_off(500, seconds=0.004)
    desk.submit()
    assert desk.admission.expected_wait < 0.01


def test_work_that_was_left_half_done_tells_nothing_of_the_pace() -> None:
    desk = Desk()
    desk.work_off(200, seconds=0.004)
    for _ in range(50):
        desk.submit()
        desk.begin()
        desk.now += 0.0001
        desk.end(whole=False)
    desk.submit()
    assert desk.admission.expected_wait == pytest.approx(0.004)


def test_threads_that_are_stuck_are_noticed_though_the_pace_was_good() -> None:
    desk = Desk()
    desk.work_off(200, seconds=0.004)
    desk.submit()
    desk.begin()
    desk.submit()
    desk.now += 5.0
    assert desk.admission.expected_wait == pytest.approx(5.0)


def test_a_queue_that_never_empties_is_not_stuck_while_it_moves() -> None:
    desk = Desk()
    desk.work_off(200, seconds=0.004)
    desk.submit()
    for _ in range(100):
        desk.submit()
        desk.begin()
        desk.now += 0.004
        desk.end()
    assert desk.admission.expected_wait == pytest.approx(0.004)


def test_what_would_wait_longer_than_it_may_is_refused_and_told_how_long() -> None:
    desk = Desk(seconds=0.010)
    desk.work_off(200, seconds=0.004)
    desk.submit()
    desk.begin()
    for _ in range(2):
        desk.submit()
    with pytest.raises(OverloadedError) as refused:
        desk.submit()
    assert refused.value.retry_after_s == pytest.approx(0.012)
    assert desk.refusals.limits == ["wait"]
    desk.now += 0.003
    desk.submit()


def test_where_nothing_waits_everything_is_let_in() -> None:
    desk = Desk(seconds=0.001)
    desk.work_off(200, seconds=0.004)
    desk.submit()
    desk.begin()
    desk.submit(10_000 * TOKENS)


def test_before_anything_is_known_of_the_pace_only_number_and_tokens_count() -> None:
    desk = Desk(seconds=0.001, requests=64)
    for _ in range(64):
        desk.submit()
    with pytest.raises(OverloadedError):
        desk.submit()
    assert desk.refusals.limits == ["requests"]


def test_what_leaves_the_queue_unanswered_makes_room() -> None:
    desk = Desk(requests=1)
    desk.submit()
    with pytest.raises(OverloadedError):
        desk.submit()
    desk.admission.left(TOKENS)
    desk.submit()


def test_a_request_that_was_let_in_is_not_refused_half_way() -> None:
    desk = Desk(requests=1)
    desk.submit()
    with pytest.raises(OverloadedError):
        desk.submit()
    desk.admission.check(TOKENS, admitted=True)


def test_once_closed_nothing_is_let_in() -> None:
    desk = Desk()
    desk.admission.close()
    with pytest.raises(OverloadedError):
        desk.submit()
    with pytest.raises(OverloadedError):
        desk.admission.check(TOKENS, admitted=True)
    assert desk.refusals.limits == ["closing", "closing"]


class Traffic(Desk):
    """A desk whose one worker takes 4 ms a request, and may queue 200 ms, in overload 5."""

    WORK = 0.004

    def __init__(self) -> None:
        super().__init__(seconds=0.2, overload_seconds=0.005)
        self.work_off(200, seconds=self.WORK)
        self.waits: list[float] = []
        self._queue: list[float] = []
        self._busy_until: float | None = None
        self.refused = 0

    def comes(self, every: float, *, for_seconds: float, together: int = 1) -> None:
        """So many requests at each interval, and the worker works meanwhile."""
        end = self.now + for_seconds
        while self.now < end:
            for _ in range(together):
                try:
                    self.submit()
                except OverloadedError:
                    self.refused += 1
                else:
                    self._queue.append(self.now)
            self._work_until(self.now + every)

    def _work_until(self, then: float) -> None:
        while self._queue or self._busy_until is not None:
            if self._busy_until is None:
                self.waits.append(self.now - self._queue.pop(0))
                self.begin()
                self._busy_until = self.now + self.WORK
            if self._busy_until > then:
                break
            self.now, self._busy_until = self._busy_until, None
            self.end()
        self.now = then


def test_a_burst_waits_and_none_of_it_is_refused() -> None:
    traffic = Traffic()
    traffic.comes(0.001, for_seconds=0.06)
    traffic.comes(1.0, for_seconds=1.0)
    assert traffic.refused == 0
    assert max(traffic.waits) > 0.1


def test_in_overload_those_who_are_let_in_hardly_wait() -> None:
    traffic = Traffic()
    traffic.comes(0.002, for_seconds=1.0)
    traffic.waits.clear()
    traffic.comes(0.002, for_seconds=20.0)
    assert max(traffic.waits) <= 0.005 + traffic.WORK
    assert len(traffic.waits) == pytest.approx(20.0 / traffic.WORK, rel=0.02)  # the worker is never idle


@pytest.mark.parametrize("every", [0.005, 0.02])
def test_after_an_overload_a_burst_may_wait_again(every: float) -> None:
    traffic = Traffic()
    traffic.comes(0.002, for_seconds=1.0)
    traffic.comes(every, for_seconds=2.0)
    traffic.refused = 0
    traffic.comes(0.001, for_seconds=0.05)
    assert traffic.refused == 0


def test_refusals_themselves_do_not_keep_an_overload_going() -> None:
    traffic = Traffic()
    traffic.comes(0.002, for_seconds=1.0)
    traffic.comes(0.015, together=3, for_seconds=5.0)  # the last of three is refused, though all could be served
    traffic.refused = 0
    traffic.comes(0.015, together=3, for_seconds=1.0)
    assert traffic.refused == 0


def test_an_overload_that_does_not_seem_to_end_is_doubted_from_time_to_time() -> None:
    traffic = Traffic()
    traffic.comes(0.002, for_seconds=40.0)
    waited = np.array(traffic.waits)
    assert (waited > 0.1).mean() < 0.02
    assert (waited[len(waited) // 2 :] > 0.1).any()


def test_in_overload_nobody_may_wait_longer_than_in_a_burst() -> None:
    desk = Desk(seconds=0.010, overload_seconds=1.0)
    desk.work_off(200, seconds=0.004)
    for _ in range(3):
        desk.submit()
    for _ in range(2):
        with pytest.raises(OverloadedError):
            desk.submit()


def test_an_overload_lasts_at_least_as_long_as_a_burst_may_wait_however_short_the_queue_was() -> None:
    desk = Desk(seconds=0.2, overload_seconds=0.001, requests=3)
    desk.work_off(200, seconds=0.004)
    for _ in range(3):
        desk.submit()
    with pytest.raises(OverloadedError):
        desk.submit()
    desk.begin()
    desk.now += 0.1
    with pytest.raises(OverloadedError):
        desk.submit()
    desk.now += 0.099
    with pytest.raises(OverloadedError):
        desk.submit()
    assert desk.refusals.limits == ["requests", "wait", "wait"]


def test_where_no_time_is_set_overload_sets_none() -> None:
    desk = Desk(requests=3)
    desk.work_off(200, seconds=0.004)
    for _ in range(3):
        desk.submit()
    with pytest.raises(OverloadedError):
        desk.submit()
    desk.begin()
    desk.submit()
    assert desk.refusals.limits == ["requests"]
