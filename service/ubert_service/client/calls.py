"""Each route as a value: what to send, how to read the answer, and whether to retry it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from ubert_model.errors import ConfigError, InputError
from ubert_service.client.errors import UNKNOWN_CANDIDATE_SET, UNKNOWN_REVIEW, UnexpectedAnswerError
from ubert_service.schemas import (
    READ_VERSION,
    About,
    Alive,
    CandidateSetAnswer,
    CandidateSetList,
    CandidateSetRequest,
    EntityList,
    ExplainAnswer,
    ExplainRequest,
    PredictAnswer,
    PredictRequest,
    PromotionAnswer,
    RankAnswer,
    RankRequest,
    Ready,
    ReviewAnswer,
    ReviewList,
    ReviewRequest,
    Version,
)

T = TypeVar("T")
Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Received:
    """A complete answer; ``headers`` ignore case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class RemovedReview:
    """A review is gone, also if it was an earlier attempt, whose answer was lost, that removed it."""

    read_version: str


Write = ReviewAnswer | RemovedReview
"""The answer to a write; passed to a read as ``after``, the read reflects that write on any replica."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One call, however often it is sent. ``read`` turns a successful answer into the result."""

    method: str
    path: str
    read: Callable[[Received], T]
    query: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: BaseModel | None = field(default=None, repr=False)
    repeatable: bool = True
    """It may be retried, since sending it twice has the same effect as once."""
    done_already: str | None = None
    """The type of the problem that is a success, for ``read``, if an earlier attempt may have done the work."""


def headers_of(api_key: str | None) -> dict[str, str]:
    """The headers of every request. Raises ``ConfigError``, without showing the key, if no header can carry it."""
    if api_key is None:
        return {}
    key = api_key.strip()  # a key read from a file ends with a newline
    if not key:
        raise ConfigError("api_key: it is empty; use one that `ubert-serve-key` printed, or None for a service without")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            "api_key: it has characters that no header can carry; use it exactly as `ubert-serve-key` printed it"
        )
    return {"Authorization": f"Bearer {key}"}


def address_of(base_url: str, api_key: str | None = None) -> str:
    """The address, checked. Raises ``ConfigError`` if it is invalid, and for one with a password next to an API key,
    which the password would replace.
    """
    try:
        url = httpx.URL(base_url)
        named = url.host.encode("idna") != b"" and (url.port is None or 0 < url.port < 65536)
        usable = named and base_url.startswith(("http://", "https://")) and not {"?", "#", " "} & set(base_url)
    except (httpx.InvalidURL, UnicodeError):
        usable = False
    shown = shown_address(base_url)
    if not usable:
        raise ConfigError(
            f"base_url = {shown!r}: write it as http://HOST:PORT or https://HOST:PORT, without ?, # and spaces"
        )
    if api_key is not None and url.userinfo:
        raise ConfigError(f"base_url = {shown!r}: leave out its user and password, or api_key; only one can be sent")
    return base_url


def shown_address(base_url: str) -> str:
    """The address without what may be a password or a key."""
    return re.split("[?#]", base_url.rpartition("@")[2])[0]


def predict(request: PredictRequest, after: Write | None = None) -> Call[PredictAnswer]:
    return Call(method="POST", path="/predict", body=request, headers=_after_header(after), read=_reader(PredictAnswer))


def rank(request: RankRequest, after: Write | None = None) -> Call[RankAnswer]:
    return Call(method="POST", path="/rank", body=request, headers=_after_header(after), read=_reader(RankAnswer))


def explain(request: ExplainRequest, after: Write | None = None) -> Call[ExplainAnswer]:
    return Call(method="POST", path="/explain", body=request, headers=_after_header(after), read=_reader(ExplainAnswer))


def write_candidate_set(name: str, request: CandidateSetRequest) -> Call[CandidateSetAnswer]:
    path = f"/candidate-sets/{_escaped(name)}"
    return Call(method="PUT", path=path, body=request, read=_reader(CandidateSetAnswer))


def candidate_sets() -> Call[CandidateSetList]:
    return Call(method="GET", path="/candidate-sets", read=_reader(CandidateSetList))


def candidate_set(name: str) -> Call[CandidateSetAnswer]:
    return Call(method="GET", path=f"/candidate-sets/{_escaped(name)}", read=_reader(CandidateSetAnswer))


def remove_candidate_set(name: str) -> Call[bool]:
    path = f"/candidate-sets/{_escaped(name)}"
    return Call(method="DELETE", path=path, read=lambda _: True, done_already=UNKNOWN_CANDIDATE_SET)


def promote(bundle: str | None) -> Call[PromotionAnswer]:
    return Call(
        method="POST",
        path="/admin/promote",
        query=_query(bundle=bundle),
        read=_reader(PromotionAnswer),
        repeatable=bundle is not None,  # without a name, a second promotion would undo the first
    )


def write_review(request: ReviewRequest) -> Call[ReviewAnswer]:
    # Safe to repeat: a review's id is derived from its content, or is the caller's own review_id.
    return Call(method="POST", path="/reviews", body=request, read=_reader(ReviewAnswer))


def remove_review(review_id: str, *, user: str, item: str) -> Call[RemovedReview]:
    return Call(
        method="DELETE",
        path=f"/reviews/{_escaped(review_id)}",
        query=_query(user=user, item=item),
        read=_removed_review,
        done_already=UNKNOWN_REVIEW,
    )


def user(identifier: str, *, limit: int | None, cursor: str | None) -> Call[ReviewList]:
    query = _query(limit=limit, cursor=cursor)
    return Call(method="GET", path=f"/users/{_escaped(identifier)}", query=query, read=_reader(ReviewList))


def item(identifier: str, *, limit: int | None, cursor: str | None) -> Call[ReviewList]:
    query = _query(limit=limit, cursor=cursor)
    return Call(method="GET", path=f"/items/{_escaped(identifier)}", query=query, read=_reader(ReviewList))


def find_users(prefix: str, *, limit: int | None, cursor: str | None) -> Call[EntityList]:
    query = _query(prefix=prefix, limit=limit, cursor=cursor)
    return Call(method="GET", path="/users", query=query, read=_reader(EntityList))


def find_items(prefix: str, *, limit: int | None, cursor: str | None) -> Call[EntityList]:
    query = _query(prefix=prefix, limit=limit, cursor=cursor)
    return Call(method="GET", path="/items", query=query, read=_reader(EntityList))


def about() -> Call[About]:
    return Call(method="GET", path="/about", read=_reader(About))


def alive() -> Call[Alive]:
    return Call(method="GET", path="/healthz", read=_reader(Alive))


def ready() -> Call[Ready]:
    # Never retried: the caller asks whether the service is ready now, not later.
    return Call(method="GET", path="/readyz", read=_reader(Ready), repeatable=False)


def version() -> Call[Version]:
    return Call(method="GET", path="/version", read=_reader(Version))


def metrics() -> Call[str]:
    return Call(method="GET", path="/metrics", read=_text)


def _after_header(write: Write | None) -> dict[str, str]:
    return {} if write is None else {READ_VERSION: write.read_version}


def _reader(model: type[Answer]) -> Callable[[Received], Answer]:
    def read(received: Received) -> Answer:
        try:
            return model.model_validate_json(received.content)
        except ValidationError as error:
            raise UnexpectedAnswerError(
                f"the answer does not fit {model.__name__}: {error.error_count()} error(s), {error.errors()[0]['msg']} "
                f"at {error.errors()[0]['loc']}; is base_url a u-bert service of this version?"
            ) from error

    return read


def _removed_review(received: Received) -> RemovedReview:
    read_version = received.headers.get(READ_VERSION.lower())
    if read_version is None:
        raise UnexpectedAnswerError(f"the answer has no {READ_VERSION}; is base_url a u-bert service of this version?")
    return RemovedReview(read_version=read_version)


def _text(received: Received) -> str:
    try:
        return received.content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnexpectedAnswerError(f"the answer is not text: {error.reason}; is base_url a u-bert service?") from error


def _query(**query: str | int | None) -> dict[str, str | int]:
    given = {name: value for name, value in query.items() if value is not None}
    for value in given.values():
        _encoded(str(value))  # only to raise InputError where httpx would raise another
    return given


def _escaped(identifier: str) -> str:
    # Every byte: an identifier may be "..", which would otherwise mean the parent directory.
    return "".join(f"%{byte:02X}" for byte in _encoded(identifier))


def _encoded(identifier: str) -> bytes:
    """UTF-8 bytes. Raises ``InputError`` for half a surrogate pair, as in a string cut within a character."""
    try:
        return identifier.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"identifier {identifier!r} is not valid Unicode: {error.reason}") from error
