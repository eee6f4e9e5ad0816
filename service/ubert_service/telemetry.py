"""The ports through which the queue, the cache and the shadow report what they do. Times are in seconds."""

from typing import Literal, Protocol

Refusal = Literal["requests", "tokens", "wait", "closing"]
Residence = Literal["lists", "states"]
ShadowFate = Literal["compared", "dropped", "failed"]


class QueueTelemetry(Protocol):
    """What happens to the work that requests queue. Never raises."""

    def work_started(self, *, waited: float) -> None:
        """A thread has taken a piece of work from the queue, where it ``waited``."""

    def batch_started(self, *, requests: int, tokens: int) -> None:
        """A thread has started a batch. ``tokens``: the most that it can read."""

    def batch_split(self) -> None:
        """A batch has failed and is retried in halves; called in a worker thread."""

    def work_refused(self, *, limit: Refusal) -> None:
        """Work was refused because the queue has reached this limit, or is closing."""

    def work_expired(self) -> None:
        """A deadline has passed before the answer was ready."""

    def work_cancelled(self) -> None:
        """A caller has gone before the answer was ready."""


class ResidentsTelemetry(Protocol):
    """What happens to the lists and states that the process caches. Never raises."""

    def residents_asked(self, residence: Residence, *, hits: int, misses: int) -> None:
        """Lists or states were looked up: how many were cached in this process, and how many were not."""

    def residents_evicted(self, count: int) -> None:
        """Lists and states were evicted because memory was full."""

    def residents_dropped(self, count: int) -> None:
        """Lists and states were invalidated because the store has changed."""


class ShadowTelemetry(Protocol):
    """What becomes of the samples offered to a shadow bundle. Never raises; called from many threads."""

    def shadow_sampled(self, *, fate: ShadowFate) -> None:
        """The shadow rated a request, failed to, or dropped it because too many were waiting."""

    def shadow_differed(self, *, stars: float) -> None:
        """The absolute difference between the shadow's rating of a pair and the live one."""


class _Silence:
    """Discards every report."""

    def residents_asked(self, residence: Residence, *, hits: int, misses: int) -> None: ...
    def residents_evicted(self, count: int) -> None: ...
    def residents_dropped(self, count: int) -> None: ...


SILENT: ResidentsTelemetry = _Silence()
