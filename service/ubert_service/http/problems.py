"""Every error that a caller can see, as problem details (RFC 9457): the one place that maps errors to statuses."""

import http
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope, Send

from ubert_model import errors
from ubert_service.errors import (
    CallerGoneError,
    DeadlineError,
    ForbiddenError,
    LostRevisionError,
    MisdirectedError,
    NoShadowError,
    NotReadyError,
    NotTheShadowError,
    OverloadedError,
    UnauthenticatedError,
    UnknownCandidateSetError,
    UnknownItemError,
    UnknownReviewError,
    UnknownUserError,
)
from ubert_service.schemas import READ_VERSION, NotReadyReason
from ubert_service.schemas.received import shown, value_kind

MEDIA_TYPE = "application/problem+json"
_URN = "urn:u-bert:problem:"
RETRY_AFTER = "Retry-After"
_RETRY_AFTER_S = "1"
"""The default, where nothing tells how long the problem lasts."""
_RETRY_AFTER_HEADER = {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 1}}
_LISTED_ERRORS = 20
_SHOWN_CHARACTERS = 256
"""Of a member's name in a pointer: as many as an identifier may have bytes."""
_PYDANTIC_PREFIX = "Value error, "
"""What pydantic puts before the message of a custom validator."""
_NUMERIC = ("bool_", "float_", "int_", "finite_number", "greater_than", "less_than")
"""How pydantic's errors of numbers and booleans begin."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ProblemType:
    """A kind of problem: its stable name, its status, and a title that never changes."""

    name: str
    status: int
    title: str
    retryable: bool = False
    """The same request may succeed later, so the answer has ``Retry-After``."""


MALFORMED_BODY = ProblemType(name="malformed-body", status=400, title="The body cannot be read as JSON")
NOT_FOUND = ProblemType(name="not-found", status=404, title="There is nothing at this address")
METHOD_NOT_ALLOWED = ProblemType(name="method-not-allowed", status=405, title="This address has no such method")
BODY_TOO_LARGE = ProblemType(name="body-too-large", status=413, title="The body is too large")
NOT_JSON = ProblemType(name="unsupported-media-type", status=415, title="The body must be JSON")
BODY_TOO_SLOW = ProblemType(name="body-too-slow", status=408, title="The body did not arrive in time")
UNAUTHENTICATED = ProblemType(name="unauthenticated", status=401, title="The request needs a valid API key")
FORBIDDEN = ProblemType(name="forbidden", status=403, title="The API key does not allow this")
MISDIRECTED = ProblemType(name="misdirected", status=421, title="The service does not go by this host name")
OVERLOADED = ProblemType(name="overloaded", status=429, title="Too much work is waiting", retryable=True)
CALLER_GONE = ProblemType(name="caller-gone", status=499, title="The caller has gone")
DEADLINE_PASSED = ProblemType(name="deadline-passed", status=504, title="The time for this request is over")
INVALID_REQUEST = ProblemType(name="invalid-request", status=422, title="The request breaks the schema")
INTERNAL = ProblemType(name="internal-error", status=500, title="The service failed")
UNUSABLE_INPUT = ProblemType(name="unusable-input", status=422, title="The request cannot be used")
UNKNOWN_USER = ProblemType(name="unknown-user", status=404, title="Nothing is known of this user")
UNKNOWN_ITEM = ProblemType(name="unknown-item", status=404, title="Nothing is known of this item")
UNKNOWN_REVIEW = ProblemType(name="unknown-review", status=404, title="There is no such review")
LOST_REVISION = ProblemType(
    name="read-version-lost",
    status=412,
    title="The state store has never seen the write of this X-Read-Version",
)
UNKNOWN_CANDIDATE_SET = ProblemType(name="unknown-candidate-set", status=404, title="There is no such candidate set")
REVIEW_NAME_TAKEN = ProblemType(
    name="review-name-taken", status=409, title="This review_id stands for a review of another user or item"
)
NO_SHADOW = ProblemType(name="no-shadow", status=409, title="There is no shadow bundle")
NOT_THE_SHADOW = ProblemType(name="not-the-shadow", status=409, title="Another bundle is the shadow")
NOT_READY = ProblemType(name="not-ready", status=503, title="The service is not ready", retryable=True)
STORE_FULL = ProblemType(name="store-full", status=507, title="The state store has no room for the write")
WRITE_UNCONFIRMED = ProblemType(
    name="write-unconfirmed", status=503, title="Too few replicas of the state store have the write", retryable=True
)
DEVICE_UNAVAILABLE = ProblemType(
    name="device-unavailable", status=503, title="The device that was asked for does not work", retryable=True
)

BUNDLE_UNUSABLE = ProblemType(name="bundle-unusable", status=500, title="The bundle cannot be used")

_OF_STATUS = {
    kind.status: kind
    for kind in (
        MALFORMED_BODY,
        NOT_FOUND,
        METHOD_NOT_ALLOWED,
        BODY_TOO_SLOW,
        BODY_TOO_LARGE,
        NOT_JSON,
        OVERLOADED,
        DEADLINE_PASSED,
    )
}

# Looked up along the MRO, so a new error class inherits the answer of its base.
_OF_ERROR: Mapping[type[errors.UbertError], ProblemType] = {
    errors.UbertError: INTERNAL,
    errors.InputError: UNUSABLE_INPUT,
    UnknownUserError: UNKNOWN_USER,
    UnknownItemError: UNKNOWN_ITEM,
    UnknownReviewError: UNKNOWN_REVIEW,
    UnknownCandidateSetError: UNKNOWN_CANDIDATE_SET,
    errors.ReviewNameTakenError: REVIEW_NAME_TAKEN,
    LostRevisionError: LOST_REVISION,
    NotReadyError: NOT_READY,
    NoShadowError: NO_SHADOW,
    NotTheShadowError: NOT_THE_SHADOW,
    OverloadedError: OVERLOADED,
    DeadlineError: DEADLINE_PASSED,
    CallerGoneError: CALLER_GONE,
    UnauthenticatedError: UNAUTHENTICATED,
    ForbiddenError: FORBIDDEN,
    MisdirectedError: MISDIRECTED,
    errors.BundleError: BUNDLE_UNUSABLE,
    errors.StateError: ProblemType(name="state-unusable", status=500, title="A stored state cannot be used"),
    errors.CorruptStateError: ProblemType(name="state-corrupt", status=500, title="A stored state is damaged"),
    errors.ForeignStateError: ProblemType(
        name="state-foreign", status=500, title="A stored state belongs to another version"
    ),
    errors.StoreError: ProblemType(name="store-refused", status=500, title="The state store refused the operation"),
    errors.StoreFullError: STORE_FULL,
    errors.StoreUnavailableError: ProblemType(
        name="store-unavailable", status=503, title="The state store cannot be reached", retryable=True
    ),
    errors.UnconfirmedWriteError: WRITE_UNCONFIRMED,
    errors.DeviceUnavailableError: DEVICE_UNAVAILABLE,
}

ACCESS_PROBLEMS = (UNAUTHENTICATED, FORBIDDEN, MISDIRECTED)
"""The problems of any route that is not open to all: of a service that requires API keys, and of one without."""

WORK_PROBLEMS = (*ACCESS_PROBLEMS, INVALID_REQUEST, OVERLOADED, DEADLINE_PASSED, INTERNAL)
"""The problems of any route that queues work."""

_WRITE_ONLY = (STORE_FULL, WRITE_UNCONFIRMED)

STORE_PROBLEMS = (
    *WORK_PROBLEMS,
    *(
        kind
        for error, kind in _OF_ERROR.items()
        if issubclass(error, errors.StateError | errors.StoreError) and kind not in _WRITE_ONLY
    ),
)
"""The problems of any route that reads the store."""

STORE_WRITE_PROBLEMS = (*STORE_PROBLEMS, *_WRITE_ONLY)
"""The problems of any route that writes to the store."""

BODY_PROBLEMS = (MALFORMED_BODY, BODY_TOO_SLOW, BODY_TOO_LARGE, NOT_JSON)
"""The problems of any route that reads a body."""

SCORING_PROBLEMS = (*BODY_PROBLEMS, *STORE_PROBLEMS, UNUSABLE_INPUT, LOST_REVISION, NOT_READY, DEVICE_UNAVAILABLE)
"""The problems of ``/predict``, ``/rank`` and ``/explain``."""


class InvalidField(BaseModel):
    """One place where a request breaks the schema."""

    pointer: str = Field(
        description="JSON pointer into the body; `/query/…`, `/path/…` and `/header/…` name parameters.",
        examples=["/pairs/0/user"],
    )
    message: str


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(description="Stable name of the kind of problem.", examples=[_URN + "store-unavailable"])
    title: str
    status: int
    detail: str = Field(description="What happened to this request, and what to do about it.")
    request_id: str = Field(description="As in the response header `X-Request-ID` and in the service's log.")
    errors: list[InvalidField] | None = Field(
        default=None, description=f"Only of `invalid-request`: the first {_LISTED_ERRORS} places."
    )
    reasons: list[NotReadyReason] | None = Field(default=None, description="Only of `not-ready`.")


def problem_response(
    kind: ProblemType,
    detail: str,
    scope: Scope,
    *,
    headers: Mapping[str, str] | None = None,
    **members: Sequence[BaseModel],
) -> Response:
    """A problem response; ``members`` extend it, by ``errors`` or ``reasons``."""
    problem = _members(kind, detail, request_id=scope["state"]["request_id"])
    problem |= {name: [value.model_dump() for value in values] for name, values in members.items()}
    retry = {RETRY_AFTER: _RETRY_AFTER_S} if kind.retryable else {}
    # ASCII, since the detail may quote half a surrogate pair from the caller, which UTF-8 cannot encode.
    return Response(json.dumps(problem), kind.status, {**retry, **(headers or {})}, MEDIA_TYPE)


class PreparedProblem:
    """A problem serialized in advance except for its request id, so that it is cheap to send."""

    def __init__(self, kind: ProblemType, detail: str) -> None:
        self._status = kind.status
        self._before, self._after = json.dumps(_members(kind, detail, request_id="\0")).encode().split(b"\\u0000")

    async def answer(self, send: Send, *, request_id: str, retry_after_s: float, last: bool) -> None:
        """Send it. ``last``: ask the caller to use another connection afterwards."""
        encoded_id = request_id.encode("ascii")
        body = self._before + encoded_id + self._after
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", _whole_seconds(retry_after_s).encode()),
            (b"x-request-id", encoded_id),
        ]
        if last:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _members(kind: ProblemType, detail: str, *, request_id: str) -> dict[str, Any]:
    return {
        "type": _URN + kind.name,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "request_id": request_id,
    }


def _whole_seconds(seconds: float) -> str:
    return str(max(1, math.ceil(seconds)))


def install(app: FastAPI) -> None:
    """Answer every error of an app with a problem. Errors unknown to these handlers are left to the middleware."""
    app.add_exception_handler(errors.UbertError, _on_ubert_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)


def kind_of(error: errors.UbertError) -> ProblemType:
    """The problem type of an error."""
    return next(_OF_ERROR[ancestor] for ancestor in type(error).__mro__ if ancestor in _OF_ERROR)


def error_response(error: errors.UbertError, scope: Scope) -> Response:
    """The problem response to an error, which is also logged."""
    kind = kind_of(error)
    # A message about bad input quotes the caller, identifiers included: it belongs in the answer, not in the log.
    detail = "see the answer" if isinstance(error, errors.InputError) else str(error)
    _log.log(
        _level(kind),
        "%(problem)s: %(detail)s request_id=%(request_id)s",
        {"problem": kind.name, "detail": detail, "request_id": scope["state"]["request_id"]},
        exc_info=error if kind.status == 500 else None,
    )
    return problem_response(kind, str(error), scope, headers=_headers(error))


def _headers(error: errors.UbertError) -> dict[str, str]:
    if isinstance(error, UnauthenticatedError):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, OverloadedError):
        return {RETRY_AFTER: _whole_seconds(error.retry_after_s)}
    if isinstance(error, UnknownReviewError):
        return {READ_VERSION: str(error.read_version)}
    return {}


def _level(kind: ProblemType) -> int:
    if kind is OVERLOADED:
        return logging.DEBUG  # thousands come when every microsecond counts; the request has its own line anyway
    if kind is DEADLINE_PASSED:
        return logging.WARNING  # not ERROR: the limit may be the caller's own
    return logging.ERROR if kind.status >= 500 else logging.INFO


async def _on_ubert_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.UbertError)
    return error_response(error, request.scope)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found[0]["type"] == "json_invalid":
        reason, position = found[0]["ctx"]["error"], found[0]["loc"][-1]
        return problem_response(MALFORMED_BODY, f"{reason} at character {position}", request.scope)
    # De-duplicated: a wrong header is reported by every dependency that reads it.
    places = list(dict.fromkeys((_pointer(bad["loc"]), _message(bad)) for bad in found))
    fields = [InvalidField(pointer=pointer, message=message) for pointer, message in places[:_LISTED_ERRORS]]
    others = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    detail = f"{fields[0].pointer or 'the body'}: {fields[0].message}{others}"
    return problem_response(INVALID_REQUEST, detail, request.scope, errors=fields)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ClientDisconnect):
        return error_response(CallerGoneError("the caller closed the connection within its body"), request.scope)
    kind = _OF_STATUS.get(error.status_code) or ProblemType(
        name=f"http-{error.status_code}", status=error.status_code, title=http.HTTPStatus(error.status_code).phrase
    )
    reason = _why_unreadable(error.__cause__) if kind is MALFORMED_BODY else error.detail
    detail = f"{request.method} {request.url.path}: {reason}"
    headers = {"Allow": ", ".join(_allowed_methods(request))} if kind is METHOD_NOT_ALLOWED else error.headers
    return problem_response(kind, detail, request.scope, headers=headers)


def _allowed_methods(request: Request) -> Iterator[str]:
    """The methods of all routes at a path; the framework knows only those of one."""
    for method in ("GET", "POST", "PUT", "DELETE"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            yield method
            if method == "GET":
                yield "HEAD"


def _why_unreadable(cause: BaseException | None) -> str:
    """The reason, which the framework gives only for invalid JSON (handled elsewhere)."""
    if isinstance(cause, UnicodeDecodeError):
        return f"the body is not valid {cause.encoding} at byte {cause.start}; send UTF-8"
    if isinstance(cause, RecursionError):
        return "the body is nested too deeply"
    return "a number in the body has too many digits" if isinstance(cause, ValueError) else "the body cannot be read"


def _message(bad: Mapping[str, Any]) -> str:
    """Pydantic's message, with what came in place of a number or of a value of another kind."""
    message, kind = str(bad["msg"]).removeprefix(_PYDANTIC_PREFIX), str(bad["type"])
    if kind.startswith(_NUMERIC):
        return f"{message}; it is {shown(bad['input'])}"
    return f"{message}; it is {value_kind(bad['input'])}" if kind.endswith("_type") else message


def _pointer(location: Sequence[str | int]) -> str:
    steps = location[1:] if location[:1] == ("body",) else location
    # Cut, since the name of an unknown member may be megabytes long.
    shown = (str(step)[:_SHOWN_CHARACTERS] for step in steps)
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in shown)


def documented(*kinds: ProblemType) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may answer with these problems, for its OpenAPI description."""
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    by_status: dict[int | str, list[ProblemType]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    return {
        status: {
            "description": "; ".join(f"`{_URN}{kind.name}`: {kind.title}" for kind in same),
            **({"headers": {RETRY_AFTER: _RETRY_AFTER_HEADER}} if any(kind.retryable for kind in same) else {}),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status, same in by_status.items()
    }


def problem_schemas() -> dict[str, Any]:
    """The component schemas that :func:`documented` refers to."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), Problem.__name__: schema}
