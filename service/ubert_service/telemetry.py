"""The port through which the service reports what it does; whoever implements it decides where that goes."""

from typing import Literal, Protocol

from ubert_service.evidence import Basis

Graph = Literal["scorer", "encoder"]


class Telemetry(Protocol):
    """Receives reports from many threads; never raises. All times are in seconds."""

    def request_answered(self, *, route: str, status: int | None, seconds: float) -> None:
        """An answer has gone out, or (``status`` None) the caller went before. ``route``: template of the address."""

    def store_called(self, *, operation: str, seconds: float, failed: bool) -> None:
        """The state store has done an operation, or has failed to."""

    def graph_ran(self, *, graph: Graph, tokens: int, seconds: float) -> None:
        """A graph has run once. ``tokens``: rows of states or token ids that it was given, padding included."""

    def predicted(self, *, basis: Basis, missing_states: int) -> None:
        """A pair was rated."""

    def readiness_checked(self, *, ready: bool) -> None:
        """Someone has asked whether the service can serve."""
