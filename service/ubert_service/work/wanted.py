"""Work that stops when nobody waits for it any more."""

from collections.abc import Callable

from ubert_service.errors import WithdrawnError

Wanted = Callable[[], bool]
"""Does anybody still wait for the work? May be asked from any thread."""


def always() -> bool:
    """Of work that is done to its end."""
    return True


def go_on_if(wanted: Wanted) -> None:
    """Raise ``WithdrawnError`` where nobody waits."""
    if not wanted():
        raise WithdrawnError("nobody waits for these ratings any more")
