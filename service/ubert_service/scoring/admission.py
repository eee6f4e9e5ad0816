"""What may come in: waiting work is bounded by its number, its tokens, and the time that a newcomer would wait."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ubert_service.errors import OverloadedError
from ubert_service.observability.telemetry import QueueTelemetry, Refusal

_REQUEST_TOKENS = 512
"""What a request costs beside its tokens (HTTP, threads), in tokens of the default model: as much as one pair."""
_REMEMBERED = 0.98
"""What is left of a measurement after the next request: half of the pace rests on the last 34."""


@dataclass(frozen=True, kw_only=True)
class WaitingLimits:
    """What may wait for a thread. ``seconds``: how long a newcomer may be expected to, which follows from the pace at
    which work gets done; infinite: only number and tokens count.
    """

    requests: int
    tokens: int
    seconds: float = math.inf


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

    def check(self, tokens: int = 0) -> None:
        """Raises ``OverloadedError`` if work of that many tokens would not be let in now.

        However large and whatever else runs, work is let in where nothing waits.
        """
        if not self._waiting and not self._closed:
            return
        wait = self.expected_wait
        refusal: Refusal
        if self._closed:
            refusal = "closing"
        elif self._waiting >= self._limits.requests:
            refusal = "requests"
        elif self._waiting_tokens + tokens > self._limits.tokens:
            refusal = "tokens"
        elif wait > self._limits.seconds:
            refusal = "wait"
        else:
            return
        self._telemetry.work_refused(limit=refusal)
        raise OverloadedError(
            f"{self._waiting} requests of {self._waiting_tokens} tokens are waiting to be served; "
            "try again when Retry-After has passed, and less often",
            retry_after_s=wait,
        )

    def queued(self, tokens: int) -> None:
        """Work that was let in has begun to wait."""
        now = self._clock()
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

    def ended(self, *, requests: int, tokens: int) -> None:
        """A thread has finished a batch."""
        now = self._clock()
        self._pace.measured(requests=requests, tokens=tokens, seconds=now - self._counted_from)
        self._counted_from = now
        self._running_batches -= 1
        self._running -= requests
        self._running_tokens -= tokens

    def close(self) -> None:
        """Let nothing more in."""
        self._closed = True


class _Pace:
    """How fast work gets done while there is some, all threads and all that surrounds them together."""

    def __init__(self) -> None:
        self._seconds = self._tokens = 0.0

    def measured(self, *, requests: int, tokens: int, seconds: float) -> None:
        kept = _REMEMBERED**requests
        self._seconds = kept * self._seconds + seconds
        self._tokens = kept * self._tokens + _cost(requests, tokens)

    def seconds(self, *, requests: int, tokens: int) -> float:
        """What work will take; 0 as long as nothing is known."""
        return _cost(requests, tokens) * self._seconds / self._tokens if self._tokens else 0.0


def _cost(requests: int, tokens: int) -> int:
    return tokens + _REQUEST_TOKENS * requests
