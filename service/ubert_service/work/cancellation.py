"""Cooperative cancellation: work stops once no caller waits for its result."""

from collections.abc import Callable

from ubert_service.errors import WorkCancelledError

Cancelled = Callable[[], bool]
"""Has every caller gone? May be asked from any thread."""


def never_cancelled() -> bool:
    """For work that always runs to its end."""
    return False


def raise_if_cancelled(cancelled: Cancelled) -> None:
    """Raise ``WorkCancelledError`` once no caller waits."""
    if cancelled():
        raise WorkCancelledError("no caller waits for these ratings any more")
