"""The port through which the service reports what it does; an implementation decides where the reports go."""

from typing import Literal, Protocol

Graph = Literal["scorer", "encoder", "explainer"]
Refusal = Literal["requests", "tokens", "wait", "closing"]
Residence = Literal["lists", "states"]
ShadowFate = Literal["compared", "dropped", "failed"]


class QueueTelemetry(Protocol):
    """What happens to the work that requests queue. Never raises. All times are in seconds."""

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


class KeysTelemetry(Protocol):
    """Whether the file of API keys is in force. Never raises; called from a thread of its own."""

    def keys_checked(self, *, in_force: bool) -> None:
        """The file was checked. ``in_force`` False: it cannot be used, so the keys read before still count."""


class Telemetry(QueueTelemetry, ResidentsTelemetry, Protocol):
    """Receives reports from many threads; never raises. All times are in seconds."""

    def request_answered(self, *, route: str, status: int | None, seconds: float) -> None:
        """An answer was sent, or (``status`` None) the caller left before. ``route``: the path template."""

    def store_called(self, *, operation: str, seconds: float, failed: bool) -> None:
        """An operation of the state store has ended."""

    def graph_ran(self, *, graph: Graph, tokens: int, seconds: float) -> None:
        """A graph has run once. ``tokens``: rows of its input (states or token ids), padding included."""

    def predicted(self, *, basis: str, pairs: int) -> None:
        """Pairs were rated. ``basis``: what their ratings were made from (``ubert_service.scoring.evidence.Basis``)."""

    def states_missed(self, count: int) -> None:
        """Predictions should have read ``count`` reviews whose states the store has lost."""

    def readiness_checked(self, *, ready: bool) -> None:
        """Readiness was checked."""


class _Silence:
    """Discards every report."""

    def residents_asked(self, residence: Residence, *, hits: int, misses: int) -> None: ...
    def residents_evicted(self, count: int) -> None: ...
    def residents_dropped(self, count: int) -> None: ...


SILENT: ResidentsTelemetry = _Silence()
