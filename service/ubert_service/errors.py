"""Errors that only a service has, beside those of :mod:`ubert_model.errors`."""

from ubert_model.errors import InputError, StoreUnavailableError, UbertError


class NotReadyError(UbertError):
    """The service lacks something that the operation needs; the same request may succeed later."""


class UnknownUserError(InputError):
    """Neither the store nor training knows this user."""


class UnknownItemError(InputError):
    """Neither the store nor training knows this item."""


class UnknownReviewError(InputError):
    """The store lists no such review of this user on this item."""


class NotResidentError(StoreUnavailableError):
    """The store is known to be away, so was not asked, and this process does not hold what is needed."""


class LostRevisionError(InputError):
    """A caller wants to read its own write, and the store has never got so far."""


class UnknownCandidateSetError(InputError):
    """No set of candidates is kept under this name."""


class ReviewNameTakenError(InputError):
    """A caller chose a name that stands for a review of another user or item."""


class OverloadedError(UbertError):
    """As much work is waiting as may wait; the same request may succeed ``retry_after_s`` seconds later."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NoShadowError(UbertError):
    """There is no bundle beside the live one."""


class NotTheShadowError(UbertError):
    """A bundle was to be promoted that is neither the live one nor its shadow."""


class DeadlineError(UbertError):
    """The time that a request was given has passed before there was an answer."""


class WithdrawnError(UbertError):
    """Nobody waits for this work any more, so the rest of it is left undone; nobody is there to be told, either."""


class CallerGoneError(UbertError):
    """The caller has closed the connection before there was an answer, so nobody reads it."""


class UnauthenticatedError(UbertError):
    """The request carries no API key, or one that is not known."""


class ForbiddenError(UbertError):
    """The API key is known, and lacks the scope that the request needs."""
