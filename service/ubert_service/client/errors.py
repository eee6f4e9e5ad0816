"""The errors that a call can raise."""

import http
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ubert_model.errors import UbertError

_URN = "urn:u-bert:problem:"
UNKNOWN_REVIEW = _URN + "unknown-review"
UNKNOWN_CANDIDATE_SET = _URN + "unknown-candidate-set"
_FOREIGN = "about:blank"

MAY_HAVE_BEGUN = frozenset(
    {_FOREIGN, *(_URN + name for name in ("replica-lost", "store-unavailable", "write-unconfirmed"))}
)
"""The types of a 502 or 503 after which the work may be done: a proxy missed the service's answer, or the service the
store's. Any other, such as ``not-ready``, refuses the work before it begins."""

_SHOWN_CHARACTERS = 200


class ClientError(UbertError):
    """The call has failed."""


class ServiceUnreachableError(ClientError):
    """There was no connection, or it broke before the answer was complete."""


class DeadlineExceededError(ClientError):
    """The call's own deadline has passed, or would before the next attempt is due."""


class UnexpectedAnswerError(ClientError):
    """A successful but malformed answer: from another program, or a service of another version."""


class ProblemError(ClientError):
    """The service has answered with problem details (RFC 9457).

    ``type`` is the stable name of the problem, or ``about:blank`` if another program, such as a proxy, answered in
    place of the service. ``members`` are all fields of the problem, including ``errors`` and ``reasons``.
    """

    def __init__(self, status: int, members: Mapping[str, Any], request_id: str | None) -> None:
        self.status = status
        self.members = members
        self.type = str(members["type"])
        self.title = str(members.get("title", ""))
        self.detail = str(members.get("detail", ""))
        self.request_id = str(members.get("request_id") or request_id or "") or None
        super().__init__(f"{status} {self.title}: {self.detail} ({self.type}, request_id {self.request_id})")

    def __reduce__(self) -> tuple[Any, ...]:
        # By default exceptions pickle their message alone, from which another process could not rebuild this one.
        return type(self), (self.status, self.members, self.request_id)

    @property
    def reasons(self) -> Sequence[Mapping[str, str]]:
        """Why a service is not ready: ``check``, ``found`` and ``remedy`` of each obstacle."""
        return self.members.get("reasons") or ()


class NotAllowedError(ProblemError):
    """401 or 403: the API key is missing, unknown, or lacks the scope."""


class NotFoundError(ProblemError):
    """404: nothing is known of the user, the item or the review."""


class OverloadedError(ProblemError):
    """429, also at the last attempt."""


class UnavailableError(ProblemError):
    """503, also at the last attempt: the service or its store is not ready; or a proxy's 502: the replica is gone."""


_OF_STATUS: Mapping[int, type[ProblemError]] = {
    401: NotAllowedError,
    403: NotAllowedError,
    404: NotFoundError,
    429: OverloadedError,
    502: UnavailableError,
    503: UnavailableError,
}


def problem_error(status: int, content: bytes, request_id: str | None) -> ProblemError:
    """The error of an answer with status 300 or more, whoever sent it."""
    try:
        members = json.loads(content)
    except (ValueError, RecursionError):  # the last: deeply nested brackets
        members = None
    if not isinstance(members, dict) or not str(members.get("type")).startswith(_URN):
        shown = content[:_SHOWN_CHARACTERS].decode("utf-8", errors="replace")
        members = {"type": _FOREIGN, "title": _phrase(status), "detail": shown or "an empty answer"}
    return _OF_STATUS.get(status, ProblemError)(status, members, request_id)


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "unknown status"
