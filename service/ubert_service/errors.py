"""Errors of the service, in addition to those of :mod:`ubert_model.errors`."""

from ubert_model.errors import InputError, StoreUnavailableError, UbertError
from ubert_service.read_version import ReadVersion


class NotReadyError(UbertError):
    """The service lacks something that the operation needs; the same request may succeed later."""


class UnknownUserError(InputError):
    """Neither the store nor training knows this user."""


class UnknownItemError(InputError):
    """Neither the store nor training knows this item."""


class UnknownReviewError(InputError):
    """The store lists no such review of this user on this item, and ``read_version`` is after any removal of it."""

    def __init__(self, message: str, *, read_version: ReadVersion) -> None:
        super().__init__(message)
        self.read_version = read_version


class NotResidentError(StoreUnavailableError):
    """Memory does not hold what is needed, and the store is known to be away, so it was not asked."""


class LostRevisionError(InputError):
    """A caller wants to read its own write, but the store has never reached that revision."""


class UnknownCandidateSetError(InputError):
    """No candidate set is stored under this name."""


class OverloadedError(UbertError):
    """The queue admits no more work; the same request may succeed ``retry_after_s`` seconds later."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NoShadowError(UbertError):
    """No shadow bundle is loaded."""


class NotTheShadowError(UbertError):
    """The bundle to promote is neither the live one nor its shadow."""


class DeadlineError(UbertError):
    """The deadline of a request has passed before its answer was ready."""


class WorkCancelledError(UbertError):
    """Every caller of this work has gone, so it stopped early. No caller is left to see this error."""


class CallerGoneError(UbertError):
    """The caller closed the connection before its answer was ready."""


class UnauthenticatedError(UbertError):
    """The request carries no API key, or one that is not known."""


class ForbiddenError(UbertError):
    """The API key is known, but lacks the scope that the request needs."""


class MisdirectedError(UbertError):
    """The request names a host that the service does not go by."""
