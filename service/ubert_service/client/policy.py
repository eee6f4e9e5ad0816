"""How often, at what intervals and for how long a client retries."""

import random
from dataclasses import dataclass

from ubert_model.errors import ConfigError

_LONGEST_DEADLINE_S = 1e9
"""More than thirty years, and within what every platform's clock can represent."""
_MOST_DOUBLINGS = 62
"""Enough to turn a nanosecond into a century; far more would overflow a float."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with jitter. Times are in seconds. Raises ``ConfigError`` for a number out of range.

    ``deadline_s`` bounds a whole call, all attempts and pauses included. The pause before attempt n + 1 is drawn
    uniformly from half to all of ``first_pause_s`` · 2ⁿ⁻¹, at most ``longest_pause_s``: callers that failed together do
    not retry together. It is never shorter than the ``Retry-After`` of the service.
    """

    attempts: int = 4
    deadline_s: float = 30.0
    first_pause_s: float = 0.1
    longest_pause_s: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"attempts = {self.attempts}: use 1 for no retry, or more")
        for name in ("deadline_s", "first_pause_s", "longest_pause_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: use more than 0 seconds")
        if self.deadline_s > _LONGEST_DEADLINE_S:
            raise ConfigError(f"deadline_s = {self.deadline_s}: use {_LONGEST_DEADLINE_S:.0f} seconds at most")

    def pause_s(self, attempt: int, retry_after_s: float = 0.0) -> float:
        """Seconds to wait after attempt number ``attempt``, counted from 1."""
        longest: float = min(self.first_pause_s * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS), self.longest_pause_s)
        return max(longest * random.uniform(0.5, 1.0), retry_after_s)
