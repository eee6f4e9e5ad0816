"""Admission control: bounds on the queue's length, its tokens, and the time that new work would wait.

A burst may wait longer than a sustained overload. While demand exceeds capacity, a full queue serves no more requests
and only delays them all; so until it ends, new work is admitted only if it would start almost at once.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from ubert_service.errors import OverloadedError
from ubert_service.telemetry import QueueTelemetry, Refusal

WorkKind = Literal["scoring", "encoding", "explaining", "other"]
"""Work that shares one measured speed: a row of states to read costs far less than a word piece to encode."""

_REQUEST_TOKENS = 512
"""The fixed cost of a request (HTTP, threads), in tokens of the default model: as much as one pair."""
_REMEMBERED = 0.98
"""The weight that a measurement keeps after each further request: half of the average rests on the last 34."""
_LONGEST_OVERLOAD = 30.0
"""Seconds after which an overload is taken for ended, to probe whether it is. Small batches cost more per request, so
the estimate may never show from within that demand has fallen."""


@dataclass(frozen=True, kw_only=True)
class WaitingLimits:
    """What may wait for a thread: ``requests`` and ``tokens`` in all. ``seconds``: the longest wait that new work may
    expect at the measured throughput; infinite: no such limit. ``overload_seconds``: the same during an overload.
    """

    requests: int
    tokens: int
    seconds: float = math.inf
    overload_seconds: float = math.inf


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class RunningBatch:
    """A batch that a thread has started. ``cost`` as of :func:`_cost`; ``began_at`` by the clock of shared time."""

    kind: WorkKind
    requests: int
    cost: int
    began_at: float


class Admission:
    """Tracks what waits and what runs in ``workers`` threads, and refuses work that would wait too long.

    Not thread-safe: for the event loop alone. Times are in seconds, by ``clock``.
    """

    def __init__(
        self, limits: WaitingLimits, *, workers: int, telemetry: QueueTelemetry, clock: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._workers = workers
        self._telemetry = telemetry
        self._clock = clock
        self._closed = False
        self._speeds: defaultdict[WorkKind, _Speed] = defaultdict(_Speed)
        self._overload = _OverloadDetector(limits.seconds)
        self._waiting = self._waiting_tokens = 0
        self._waiting_costs: Counter[WorkKind] = Counter()
        self._running: set[RunningBatch] = set()
        self._shared = 0.0
        self._shared_until = 0.0
        """Time before this is in ``_shared``. Time without a batch while work waits is left for the next to share."""
        self._moved = 0.0
        """When a thread last took work from the queue, or the queue last stopped being empty."""

    @property
    def waiting(self) -> int:
        """Requests that wait for a thread now."""
        return self._waiting

    @property
    def expected_wait(self) -> float:
        """Seconds until a thread would start work that arrived now."""
        now = self._clock()
        ahead = self._seconds(self._waiting_costs)
        if len(self._running) >= self._workers:
            share = self._share(now)
            ahead += sum(
                max(0.0, self._seconds({batch.kind: batch.cost}) - (share - batch.began_at)) for batch in self._running
            )
        # Stuck threads take nothing, whatever the throughput was before.
        return max(ahead, now - self._moved) if self._waiting else ahead

    def check(self, tokens: int = 0, *, admitted: bool = False) -> None:
        """Raise ``OverloadedError`` if work of that many tokens would not be admitted now.

        An empty queue admits work of any size. ``admitted``: earlier work of the same request was admitted;
        refusing the rest would waste it, so only a closed queue does.
        """
        if (admitted or not self._waiting) and not self._closed:
            return
        now, wait = self._clock(), self.expected_wait
        longest = self._limits.seconds
        if self._overload.is_on(now):
            longest = min(longest, self._limits.overload_seconds)
        refusal: Refusal
        if self._closed:
            refusal = "closing"
        elif self._waiting >= self._limits.requests:
            refusal = "requests"
        elif wait > longest:
            refusal = "wait"
        elif self._waiting_tokens + tokens > self._limits.tokens:
            refusal = "tokens"
        else:
            return
        if refusal in ("requests", "wait"):  # of too many tokens, most may be this request's own
            self._overload.refused(now, self._seconds(self._waiting_costs) / self._waiting)
        self._telemetry.work_refused(limit=refusal)
        raise OverloadedError(
            f"{self._waiting} requests of {self._waiting_tokens} tokens are waiting to be served; "
            "try again when Retry-After has passed, and less often",
            retry_after_s=wait,
        )

    def queued(self, kind: WorkKind, tokens: int) -> None:
        """Admitted work has joined the queue."""
        now, cost = self._clock(), _cost(1, tokens)
        self._overload.admitted(now, self._seconds({kind: cost}))
        if not self._waiting:
            self._moved = now
            if not self._running:
                self._shared_until = now
        self._waiting += 1
        self._waiting_tokens += tokens
        self._waiting_costs[kind] += cost

    def left(self, kind: WorkKind, tokens: int) -> None:
        """Work has left the queue, for whatever reason."""
        self._waiting -= 1
        self._waiting_tokens -= tokens
        self._waiting_costs[kind] -= _cost(1, tokens)

    def began(self, kind: WorkKind, *, requests: int, tokens: int) -> RunningBatch:
        """A thread has started a batch, whose work has already left the queue (:meth:`left`)."""
        self._moved = self._clock()
        self._settle(self._moved)
        batch = RunningBatch(kind=kind, requests=requests, cost=_cost(requests, tokens), began_at=self._shared)
        self._running.add(batch)
        return batch

    def ended(self, batch: RunningBatch, *, whole: bool = True) -> None:
        """A thread has finished a batch. ``whole`` False: it stopped early, so it does not count as a measurement."""
        self._settle(self._clock())
        if whole:
            seconds = self._shared - batch.began_at
            self._speeds[batch.kind].measured(requests=batch.requests, cost=batch.cost, seconds=seconds)
        self._running.remove(batch)

    def close(self) -> None:
        """Admit nothing more."""
        self._closed = True

    def _share(self, now: float) -> float:
        """A clock of which batches that run together each get an equal part: else the time of a long one would be
        counted for those that end meanwhile.
        """
        return self._shared + (now - self._shared_until) / len(self._running) if self._running else self._shared

    def _settle(self, now: float) -> None:
        if self._running:
            self._shared, self._shared_until = self._share(now), now

    def _seconds(self, costs: Mapping[WorkKind, int]) -> float:
        """Seconds that work is expected to take; none for a kind that was never measured."""
        return sum(cost * self._speeds[kind].seconds_per_cost for kind, cost in costs.items())


class _OverloadDetector:
    """Detects sustained overload with a virtual queue: how long new work would wait had nothing been refused.

    An overload begins with a refusal for the wait or the number of requests. It ends when the virtual queue is empty,
    or after ``_LONGEST_OVERLOAD``.
    """

    def __init__(self, longest_wait: float) -> None:
        self._longest_wait = longest_wait
        self._wait = 0.0
        self._updated = -math.inf
        self._since: float | None = None

    def admitted(self, now: float, seconds: float) -> None:
        """Work of so many seconds was admitted."""
        self._drain(now)
        self._wait = min(self._wait + seconds, self._longest_wait)

    def refused(self, now: float, seconds: float) -> None:
        """Work of about so many seconds was refused."""
        self.admitted(now, seconds)  # the virtual queue takes all
        if self._since is None:
            self._since = now
            self._wait = self._longest_wait if math.isfinite(self._longest_wait) else self._wait

    def is_on(self, now: float) -> bool:
        """Is there an overload?"""
        self._drain(now)
        return self._since is not None

    def _drain(self, now: float) -> None:
        self._wait = max(0.0, self._wait - (now - self._updated))
        self._updated = now
        if self._since is not None and (self._wait == 0 or now - self._since > _LONGEST_OVERLOAD):
            self._since = None


class _Speed:
    """A moving average of how fast the busy process does one kind of work, all threads and overheads together."""

    def __init__(self) -> None:
        self._seconds = self._cost = 0.0

    @property
    def seconds_per_cost(self) -> float:
        """0 before the first measurement."""
        return self._seconds / self._cost if self._cost else 0.0

    def measured(self, *, requests: int, cost: int, seconds: float) -> None:
        kept = _REMEMBERED**requests
        self._seconds = kept * self._seconds + seconds
        self._cost = kept * self._cost + cost


def _cost(requests: int, tokens: int) -> int:
    return tokens + _REQUEST_TOKENS * requests
