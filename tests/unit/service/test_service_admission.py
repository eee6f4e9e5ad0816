"""Admission control, by a clock that the test sets and with work that takes as long as it says."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from ubert_service.errors import OverloadedError
from ubert_service.telemetry import Refusal
from ubert_service.work.admission import Admission, RunningBatch, WaitingLimits, WorkKind

TOKENS = 512
REVIEW_TOKENS = 96
WORK_S = 0.004
"""Seconds that one request takes."""
PREDICTION_S, REVIEW_S = 0.001, 0.018
"""As measured on one thread: fewer tokens, but a word piece to encode costs far more than a row to read."""


@dataclass
class Refusals:
    """A ``QueueTelemetry`` that records refusals; admission reports nothing else."""

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


class SimulatedQueue:
    """An ``Admission`` whose work and clock the test controls."""

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
        self.running: deque[RunningBatch] = deque()

    def submit(self, tokens: int = TOKENS, kind: WorkKind = "scoring") -> None:
        self.admission.check(tokens)
        self.admission.queued(kind, tokens)

    def begin(self, tokens: int = TOKENS, kind: WorkKind = "scoring") -> None:
        """A thread takes one request from the queue."""
        self.admission.left(kind, tokens)
        self.running.append(self.admission.began(kind, requests=1, tokens=tokens))

    def end(self, *, whole: bool = True) -> None:
        """The batch that runs longest has ended."""
        self.admission.ended(self.running.popleft(), whole=whole)

    def serve(self, requests: int, *, seconds: float, tokens: int = TOKENS, kind: WorkKind = "scoring") -> None:
        """Answer so many requests one after the other, each in so many seconds."""
        for _ in range(requests):
            self.submit(tokens, kind)
            self.begin(tokens, kind)
            self.now += seconds
            self.end()


def measured_queue(**limits: Any) -> SimulatedQueue:
    """A queue whose measured throughput is one request in ``WORK_S``."""
    queue = SimulatedQueue(**limits)
    queue.serve(200, seconds=WORK_S)
    return queue


def test_the_expected_wait_is_the_work_ahead_at_the_measured_throughput() -> None:
    queue = measured_queue()
    for _ in range(3):
        queue.submit()
    queue.begin()
    assert queue.admission.expected_wait == pytest.approx(3 * WORK_S)
    queue.now += 0.003
    assert queue.admission.expected_wait == pytest.approx(3 * WORK_S - 0.003)


def test_with_a_free_thread_the_expected_wait_is_zero() -> None:
    queue = measured_queue(workers=2)
    queue.submit()
    queue.begin()
    assert queue.admission.expected_wait == 0.0


def test_the_expected_wait_grows_with_the_tokens_ahead() -> None:
    queue = measured_queue()
    queue.submit(100 * TOKENS)
    assert queue.admission.expected_wait == pytest.approx(WORK_S * 101 / 2)


def test_idle_time_is_not_measured_as_work() -> None:
    queue = SimulatedQueue()
    for _ in range(200):
        queue.now += 10.0
        queue.serve(1, seconds=WORK_S)
    queue.submit()
    assert queue.admission.expected_wait == pytest.approx(WORK_S)


def test_idle_time_is_not_counted_as_waiting() -> None:
    queue = measured_queue()
    queue.now += 60.0
    queue.submit()
    assert queue.admission.expected_wait == pytest.approx(WORK_S)


def test_a_request_that_arrives_during_a_batch_does_not_shorten_its_measurement() -> None:
    queue = measured_queue()
    queue.submit()
    queue.begin()
    queue.now += 0.003
    queue.submit()
    queue.now += 0.001
    queue.end()
    assert queue.admission.expected_wait == pytest.approx(WORK_S)


def test_work_that_takes_longer_than_expected_makes_no_expected_wait_negative() -> None:
    queue = measured_queue()
    queue.submit()
    queue.begin()
    queue.now += 5.0
    assert queue.admission.expected_wait == 0.0


def test_the_measured_throughput_recovers_after_one_slow_request() -> None:
    queue = measured_queue()
    queue.serve(1, seconds=30.0)  # while the store did not answer
    queue.serve(500, seconds=WORK_S)
    queue.submit()
    assert queue.admission.expected_wait < 0.01


def test_work_that_stopped_early_is_not_measured() -> None:
    queue = measured_queue()
    for _ in range(50):
        queue.submit()
        queue.begin()
        queue.now += 0.0001
        queue.end(whole=False)
    queue.submit()
    assert queue.admission.expected_wait == pytest.approx(WORK_S)


def test_stuck_threads_raise_the_expected_wait_whatever_the_throughput_was() -> None:
    queue = measured_queue()
    queue.submit()
    queue.begin()
    queue.submit()
    queue.now += 5.0
    assert queue.admission.expected_wait == pytest.approx(5.0)


def test_a_queue_that_moves_but_never_empties_is_not_stuck() -> None:
    queue = measured_queue()
    queue.submit()
    for _ in range(100):
        queue.submit()
        queue.begin()
        queue.now += WORK_S
        queue.end()
    assert queue.admission.expected_wait == pytest.approx(WORK_S)


def test_work_that_would_wait_too_long_is_refused_with_the_expected_wait() -> None:
    queue = measured_queue(seconds=0.010)
    queue.submit()
    queue.begin()
    for _ in range(2):
        queue.submit()
    with pytest.raises(OverloadedError) as refused:
        queue.submit()
    assert refused.value.retry_after_s == pytest.approx(0.012)
    assert queue.refusals.limits == ["wait"]
    queue.now += 0.003
    queue.submit()


def test_a_burst_of_reviews_after_predictions_is_refused_past_the_longest_wait() -> None:
    queue = SimulatedQueue(seconds=0.1)
    queue.serve(1, seconds=REVIEW_S, tokens=REVIEW_TOKENS, kind="encoding")
    queue.serve(200, seconds=PREDICTION_S)
    for _ in range(6):
        queue.submit(REVIEW_TOKENS, "encoding")
    with pytest.raises(OverloadedError):
        queue.submit(REVIEW_TOKENS, "encoding")
    assert queue.admission.expected_wait == pytest.approx(6 * REVIEW_S)
    assert queue.refusals.limits == ["wait"]


def test_predictions_after_reviews_are_admitted_by_their_own_speed() -> None:
    queue = SimulatedQueue(seconds=0.1)
    queue.serve(1, seconds=PREDICTION_S)
    queue.serve(40, seconds=REVIEW_S, tokens=REVIEW_TOKENS, kind="encoding")
    for _ in range(100):
        queue.submit()
    assert queue.admission.expected_wait == pytest.approx(100 * PREDICTION_S)


def test_a_long_batch_and_short_ones_beside_it_are_each_measured_by_their_share_of_the_time() -> None:
    queue = SimulatedQueue(workers=2)
    for _ in range(100):  # two threads share one core: 18 ms of encoding, then nothing but 18 predictions beside it
        queue.submit(REVIEW_TOKENS, "encoding")
        queue.begin(REVIEW_TOKENS, "encoding")
        for _ in range(18):
            queue.submit()
            queue.begin()
            queue.now += 2 * PREDICTION_S
            queue.running.rotate(-1)
            queue.end()
        queue.end()
    queue.submit()
    assert queue.admission.expected_wait == pytest.approx(PREDICTION_S)
    queue.submit(REVIEW_TOKENS, "encoding")
    assert queue.admission.expected_wait == pytest.approx(PREDICTION_S + 18 * PREDICTION_S)


def test_an_empty_queue_admits_work_of_any_size() -> None:
    queue = measured_queue(seconds=0.001)
    queue.submit()
    queue.begin()
    queue.submit(10_000 * TOKENS)


def test_before_the_first_measurement_no_wait_is_expected() -> None:
    queue = SimulatedQueue(seconds=0.001, requests=64)
    for _ in range(64):
        queue.submit()
    with pytest.raises(OverloadedError):
        queue.submit()
    assert queue.refusals.limits == ["requests"]


def test_work_that_leaves_the_queue_unanswered_makes_room() -> None:
    queue = SimulatedQueue(requests=1)
    queue.submit()
    with pytest.raises(OverloadedError):
        queue.submit()
    queue.admission.left("scoring", TOKENS)
    queue.submit()


def test_further_work_of_an_admitted_request_is_not_refused() -> None:
    queue = SimulatedQueue(requests=1)
    queue.submit()
    with pytest.raises(OverloadedError):
        queue.submit()
    queue.admission.check(TOKENS, admitted=True)


def test_a_closed_queue_admits_nothing() -> None:
    queue = SimulatedQueue()
    queue.admission.close()
    with pytest.raises(OverloadedError):
        queue.submit()
    with pytest.raises(OverloadedError):
        queue.admission.check(TOKENS, admitted=True)
    assert queue.refusals.limits == ["closing", "closing"]


class SimulatedTraffic(SimulatedQueue):
    """One worker takes ``WORK_S`` for each request. A request may wait 200 ms, during an overload 5 ms."""

    def __init__(self) -> None:
        super().__init__(seconds=0.2, overload_seconds=0.005)
        self.serve(200, seconds=WORK_S)
        self.waits: list[float] = []
        self._queue: list[float] = []
        self._busy_until: float | None = None
        self.refused = 0

    def arrive(self, every: float, *, for_seconds: float, together: int = 1) -> None:
        """So many requests arrive ``together`` at each interval, and the worker serves them meanwhile."""
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
                self._busy_until = self.now + WORK_S
            if self._busy_until > then:
                break
            self.now, self._busy_until = self._busy_until, None
            self.end()
        self.now = then


def test_a_burst_waits_and_none_of_it_is_refused() -> None:
    traffic = SimulatedTraffic()
    traffic.arrive(0.001, for_seconds=0.06)
    traffic.arrive(1.0, for_seconds=1.0)
    assert traffic.refused == 0
    assert max(traffic.waits) > 0.1


def test_during_an_overload_admitted_work_hardly_waits() -> None:
    traffic = SimulatedTraffic()
    traffic.arrive(0.002, for_seconds=1.0)
    traffic.waits.clear()
    traffic.arrive(0.002, for_seconds=20.0)
    assert max(traffic.waits) <= 0.005 + WORK_S
    assert len(traffic.waits) == pytest.approx(20.0 / WORK_S, rel=0.02)  # the worker is never idle


def test_a_request_refused_for_its_own_size_begins_no_overload() -> None:
    traffic = SimulatedTraffic()
    for _ in range(100):
        traffic.arrive(0.002, for_seconds=0.02)
        with pytest.raises(OverloadedError):
            traffic.submit(1_000_000)
        traffic.arrive(0.02, for_seconds=0.1)
    assert traffic.refused == 0
    assert set(traffic.refusals.limits) == {"tokens"}


@pytest.mark.parametrize("every", [0.005, 0.02])
def test_after_an_overload_a_burst_may_wait_again(every: float) -> None:
    traffic = SimulatedTraffic()
    traffic.arrive(0.002, for_seconds=1.0)
    traffic.arrive(every, for_seconds=2.0)
    traffic.refused = 0
    traffic.arrive(0.001, for_seconds=0.05)
    assert traffic.refused == 0


def test_refusals_do_not_prolong_an_overload_once_demand_is_below_capacity() -> None:
    traffic = SimulatedTraffic()
    traffic.arrive(0.002, for_seconds=1.0)
    traffic.arrive(0.015, together=3, for_seconds=5.0)  # the last of three is refused, though all could be served
    traffic.refused = 0
    traffic.arrive(0.015, together=3, for_seconds=1.0)
    assert traffic.refused == 0


def test_a_lasting_overload_is_probed_from_time_to_time() -> None:
    traffic = SimulatedTraffic()
    traffic.arrive(0.002, for_seconds=40.0)
    waited = np.array(traffic.waits)
    assert (waited > 0.1).mean() < 0.02
    assert (waited[len(waited) // 2 :] > 0.1).any()


def test_an_overload_never_extends_the_longest_wait() -> None:
    queue = measured_queue(seconds=0.010, overload_seconds=1.0)
    for _ in range(3):
        queue.submit()
    for _ in range(2):
        with pytest.raises(OverloadedError):
            queue.submit()


def test_an_overload_lasts_at_least_as_long_as_the_longest_wait() -> None:
    queue = measured_queue(seconds=0.2, overload_seconds=0.001, requests=3)
    for _ in range(3):
        queue.submit()
    with pytest.raises(OverloadedError):
        queue.submit()
    queue.begin()
    queue.now += 0.1
    with pytest.raises(OverloadedError):
        queue.submit()
    queue.now += 0.099
    with pytest.raises(OverloadedError):
        queue.submit()
    assert queue.refusals.limits == ["requests", "wait", "wait"]


def test_without_a_longest_wait_an_overload_sets_none() -> None:
    queue = measured_queue(requests=3)
    for _ in range(3):
        queue.submit()
    with pytest.raises(OverloadedError):
        queue.submit()
    queue.begin()
    queue.submit()
    assert queue.refusals.limits == ["requests"]
