"""What a call can end in besides its answer."""

import http
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ubert_model.errors import UbertError

_SHOWN_CHARACTERS = 200


class ClientError(UbertError):
    """The call has no answer."""


class ServiceUnreachableError(ClientError):
    """No connection, or it broke before the answer was complete."""


class DeadlineExceededError(ClientError):
    """The call's own deadline has passed, or would before the service wants to be asked again."""


class UnexpectedAnswerError(ClientError):
    """A successful answer that is not of the contract: another program, or a service of another version."""


class ProblemError(ClientError):
    """The service has answered with problem details (RFC 9457).

    ``type`` is the stable name of the problem, ``about:blank`` where something between here and the service has
    answered in its stead. ``members`` are all fields of the problem, ``errors`` and ``reasons`` among them.
    """

    def __init__(
        self, *, type: str, title: str, status: int, detail: str, request_id: str | None, members: Mapping[str, Any]
    ) -> None:
        super().__init__(f"{status} {title}: {detail} ({type}, request_id {request_id})")
        self.type = type
        self.title = title
        self.status = status
        self.detail = detail
        self.request_id = request_id
        self.members = members

    def __reduce__(self) -> tuple[Any, ...]:
        # As exceptions do by themselves, another process would be sent the message alone and could not make it anew.
        given = {name: getattr(self, name) for name in ("type", "title", "status", "detail", "request_id", "members")}
        return partial(type(self), **given), ()

    @property
    def reasons(self) -> Sequence[Mapping[str, str]]:
        """Why a service is not ready: ``check``, ``found`` and ``remedy`` of each obstacle."""
        return self.members.get("reasons") or ()


class NotAllowedError(ProblemError):
    """401 or 403: the API key is missing, unknown, or lacks the scope."""


class NotFoundError(ProblemError):
    """404: nothing is known of the user, the item or the review."""


class OverloadedError(ProblemError):
    """429, at the last attempt too."""


class UnavailableError(ProblemError):
    """503, at the last attempt too: the service or its store is not ready; or a proxy's 502: its replica has gone."""


_OF_STATUS: Mapping[int, type[ProblemError]] = {
    401: NotAllowedError,
    403: NotAllowedError,
    404: NotFoundError,
    429: OverloadedError,
    502: UnavailableError,
    503: UnavailableError,
}


def problem_error(status: int, content: bytes, request_id: str | None) -> ProblemError:
    """The error that an answer with a status of 300 or more stands for, whoever gave it."""
    kind = _OF_STATUS.get(status, ProblemError)
    try:
        members = json.loads(content)
    except (ValueError, RecursionError):  # the last: brackets in brackets
        members = None
    if not isinstance(members, dict) or not isinstance(members.get("type"), str):
        shown = content[:_SHOWN_CHARACTERS].decode("utf-8", errors="replace")
        members = {"type": "about:blank", "title": _phrase(status), "detail": shown or "an empty answer"}
    return kind(
        type=members["type"],
        title=str(members.get("title", "")),
        status=status,
        detail=str(members.get("detail", "")),
        request_id=str(members.get("request_id") or request_id or "") or None,
        members=members,
    )


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "unknown status"
