"""The port through which the service reports what it does; whoever implements it decides where that goes."""

from typing import Literal, Protocol

Graph = Literal["scorer", "encoder", "explainer"]
Refusal = Literal["requests", "tokens", "wait", "closing"]
Residence = Literal["lists", "states"]
ShadowFate = Literal["compared", "dropped", "failed"]


class QueueTelemetry(Protocol):
    """What happens to the work that requests ask for. Never raises. All times are in seconds."""

    def work_started(self, *, waited: float) -> None:
        """Work has left the queue for a thread."""

    def batch_started(self, *, requests: int, tokens: int) -> None:
        """Work of so many requests, of at most so many tokens, has gone to a thread together."""

    def batch_parted(self) -> None:
        """A batch has failed and is tried again in halves; called in a worker thread."""

    def work_refused(self, *, limit: Refusal) -> None:
        """The queue was full by that limit, or is closing."""

    def work_expired(self) -> None:
        """A deadline has passed before there was an answer."""

    def work_cancelled(self) -> None:
        """A caller has gone before there was an answer."""


class ResidentsTelemetry(Protocol):
    """What happens to the lists and states that the process keeps. Never raises."""

    def residents_asked(self, residence: Residence, *, hits: int, misses: int) -> None:
        """So many lists or states were wanted that are kept in this process, and so many that are not."""

    def residents_evicted(self, count: int) -> None:
        """So many lists and states have left because memory was full."""

    def residents_dropped(self, count: int) -> None:
        """So many lists and states have left because what they copy has changed."""


class ShadowTelemetry(Protocol):
    """What becomes of the samples that a shadow bundle is offered. Never raises; called from many threads."""

    def shadow_sampled(self, *, fate: ShadowFate) -> None:
        """A request was rated by the shadow, or could not be, or was left out because too many were waiting."""

    def shadow_differed(self, *, stars: float) -> None:
        """The shadow's rating of a pair lies so far from the live one."""


class KeysTelemetry(Protocol):
    """Whether the file of keys is in force. Never raises; called from a thread of its own."""

    def keys_looked_at(self, *, in_force: bool) -> None:
        """The file was looked at, and holds the keys that count; or it cannot be used, and those before it do."""


class Telemetry(QueueTelemetry, ResidentsTelemetry, Protocol):
    """Receives reports from many threads; never raises. All times are in seconds."""

    def request_answered(self, *, route: str, status: int | None, seconds: float) -> None:
        """An answer has gone out, or (``status`` None) the caller went before. ``route``: template of the address."""

    def store_called(self, *, operation: str, seconds: float, failed: bool) -> None:
        """The state store has done an operation, or has failed to."""

    def graph_ran(self, *, graph: Graph, tokens: int, seconds: float) -> None:
        """A graph has run once. ``tokens``: rows of states or token ids that it was given, padding included."""

    def predicted(self, *, basis: str, pairs: int) -> None:
        """So many pairs were rated. ``basis``: the step of the ladder that they stand on."""

    def states_missed(self, count: int) -> None:
        """So many reviews should have been read for them whose states the store has lost."""

    def readiness_checked(self, *, ready: bool) -> None:
        """Someone has asked whether the service can serve."""


class _Silence:
    """Tells nobody."""

    def residents_asked(self, residence: Residence, *, hits: int, misses: int) -> None: ...
    def residents_evicted(self, count: int) -> None: ...
    def residents_dropped(self, count: int) -> None: ...


SILENT: ResidentsTelemetry = _Silence()
