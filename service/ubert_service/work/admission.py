"""What may come in: waiting work is bounded by its number, its tokens, and the time that a newcomer would wait.

A burst may wait for longer than what never ends. A queue that is full because more is asked for than can be done only
makes all wait; so while that lasts, newcomers are let in only if they would be served almost at once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ubert_service.errors import OverloadedError
from ubert_service.telemetry import QueueTelemetry, Refusal

_REQUEST_TOKENS = 512
"""What a request costs beside its tokens (HTTP, threads), in tokens of the default model: as much as one pair."""
_REMEMBERED = 0.98
"""What is left of a measurement after the next request: half of the pace rests on the last 34."""
_LONGEST_OVERLOAD = 30.0
"""Seconds after which it is tried whether demand is met again. Small batches take longer, so that what ended the
overload need not be seen from within."""


@dataclass(frozen=True, kw_only=True)
class WaitingLimits:
    """What may wait for a thread. ``seconds``: how long a newcomer may be expected to, which follows from the pace at
    which work gets done; infinite: only number and tokens count. ``overload_seconds``: the same while more is asked
    for than can be done.
    """

    requests: int
    tokens: int
    seconds: float = math.inf
    overload_seconds: float = math.inf


class Admission:
    """Keeps the account of what waits and what runs in ``workers`` threads, and refuses what would wait too long.

    Not thread-safe: for the thread of the event loop alone. Times are by ``clock``, in seconds.
    """

    def __init__(
        self, limits: WaitingLimits, *, workers: int, telemetry: QueueTelemetry, clock: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._workers = workers
        self._telemetry = telemetry
        self._clock = clock
        self._closed = False
        self._pace = _Pace()
        self._demand = _Demand(limits.seconds)
        self._waiting = self._waiting_tokens = 0
        self._running = self._running_batches = self._running_tokens = 0
        self._counted_from = 0.0
        """Since when there has been work all the time, or since work was last finished."""
        self._moved = 0.0
        """When a thread last took something from the queue, or the queue began."""

    @property
    def expected_wait(self) -> float:
        """Seconds until a thread would take work that came now."""
        now = self._clock()
        ahead = self._pace.seconds(requests=self._waiting, tokens=self._waiting_tokens)
        if self._running_batches >= self._workers:
            running = self._pace.seconds(requests=self._running, tokens=self._running_tokens)
            ahead += max(0.0, running - (now - self._counted_from))
        # Threads that are stuck take nothing, whatever the pace was before.
        return max(ahead, now - self._moved) if self._waiting else ahead

    def check(self, tokens: int = 0, *, goes_on: bool = False) -> None:
        """Raises ``OverloadedError`` if work of that many tokens would not be let in now.

        However large and whatever else runs, work is let in where nothing waits. ``goes_on``: it belongs to a request
        of which work was let in before. To refuse it then would waste what was done; only at the very end it is.
        """
        if (goes_on or not self._waiting) and not self._closed:
            return
        now, wait = self._clock(), self.expected_wait
        overloaded = self._demand.exceeds_supply(now)
        longest = min(self._limits.seconds, self._limits.overload_seconds) if overloaded else self._limits.seconds
        refusal: Refusal
        if self._closed:
            refusal = "closing"
        elif self._waiting >= self._limits.requests:
            refusal = "requests"
        elif self._waiting_tokens + tokens > self._limits.tokens:
            refusal = "tokens"
        elif wait > longest:
            refusal = "wait"
        else:
            return
        if refusal != "closing":
            self._demand.refused(now, self._pace.seconds_a_request)
        self._telemetry.work_refused(limit=refusal)
        raise OverloadedError(
            f"{self._waiting} requests of {self._waiting_tokens} tokens are waiting to be served; "
            "try again when Retry-After has passed, and less often",
            retry_after_s=wait,
        )

    def queued(self, tokens: int) -> None:
        """Work that was let in has begun to wait."""
        now = self._clock()
        self._demand.asked(now, self._pace.seconds(requests=1, tokens=tokens))
        if not self._waiting:
            self._moved = now
            if not self._running:
                self._counted_from = now
        self._waiting += 1
        self._waiting_tokens += tokens

    def left(self, tokens: int) -> None:
        """Work waits no longer, for whatever reason."""
        self._waiting -= 1
        self._waiting_tokens -= tokens

    def began(self, *, requests: int, tokens: int) -> None:
        """A thread has taken a batch, which had left the queue for it."""
        self._moved = self._clock()
        self._running_batches += 1
        self._running += requests
        self._running_tokens += tokens

    def ended(self, *, requests: int, tokens: int, whole: bool = True) -> None:
        """A thread has finished a batch; not ``whole``: it was left half done, and tells nothing of the pace."""
        now = self._clock()
        if whole:
            self._pace.measured(requests=requests, tokens=tokens, seconds=now - self._counted_from)
        self._counted_from = now
        self._running_batches -= 1
        self._running -= requests
        self._running_tokens -= tokens

    def close(self) -> None:
        """Let nothing more in."""
        self._closed = True


class _Demand:
    """Whether more is asked for than can be done: how long a newcomer would wait if nobody had been refused.

    Overload begins with a refusal, and ends when that wait has come down to nothing, or after ``_LONGEST_OVERLOAD``.
    """

    def __init__(self, longest_wait: float) -> None:
        self._most = longest_wait
        self._wait = 0.0
        self._at = -math.inf
        self._since: float | None = None

    def asked(self, now: float, seconds: float) -> None:
        """Work of so many seconds was let in."""
        self._pass_time(now)
        self._wait = min(self._wait + seconds, self._most)

    def refused(self, now: float, seconds: float) -> None:
        """Work of about so many seconds was not."""
        self.asked(now, seconds)
        if self._since is None:
            self._since = now
            self._wait = self._most if math.isfinite(self._most) else self._wait

    def exceeds_supply(self, now: float) -> bool:
        """Is there overload?"""
        self._pass_time(now)
        return self._since is not None

    def _pass_time(self, now: float) -> None:
        self._wait = max(0.0, self._wait - (now - self._at))
        self._at = now
        if self._since is not None and (self._wait == 0 or now - self._since > _LONGEST_OVERLOAD):
            self._since = None


class _Pace:
    """How fast work gets done while there is some, all threads and all that surrounds them together."""

    def __init__(self) -> None:
        self._seconds = self._tokens = self._requests = 0.0

    @property
    def seconds_a_request(self) -> float:
        """Of a request as they were of late; 0 as long as nothing is known."""
        return self._seconds / self._requests if self._requests else 0.0

    def measured(self, *, requests: int, tokens: int, seconds: float) -> None:
        kept = _REMEMBERED**requests
        self._seconds = kept * self._seconds + seconds
        self._tokens = kept * self._tokens + _cost(requests, tokens)
        self._requests = kept * self._requests + requests

    def seconds(self, *, requests: int, tokens: int) -> float:
        """What work will take; 0 as long as nothing is known."""
        return _cost(requests, tokens) * self._seconds / self._tokens if self._tokens else 0.0


def _cost(requests: int, tokens: int) -> int:
    return tokens + _REQUEST_TOKENS * requests
