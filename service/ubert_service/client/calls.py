"""Each route as a value: what to send, how to read the answer, and whether it may be sent twice."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from ubert_model.errors import ConfigError, InputError
from ubert_service.client.errors import UnexpectedAnswerError
from ubert_service.schemas import (
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

READ_VERSION = "X-Read-Version"


@dataclass(frozen=True, kw_only=True)
class Received:
    """A complete answer; ``headers`` in any case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class RemovedReview:
    """A review is gone. ``read_version`` None: an earlier attempt has removed it, whose answer was lost."""

    read_version: str | None


Write = ReviewAnswer | RemovedReview
"""What a write was answered with: handed to a question, its answer shows that write, whichever replica gives it."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request of a caller, however often it is sent. ``read`` makes the result of a successful answer."""

    method: str
    path: str
    read: Callable[[Received], T]
    query: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: BaseModel | None = field(default=None, repr=False)
    asked_again: bool = True
    """To send it twice does no more than to send it once, so it may be repeated."""
    absent_if_repeated: T | None = None
    """The result of a 404 where an earlier attempt may have done the work, though nobody has said so."""


def headers_of(api_key: str | None) -> dict[str, str]:
    """What every request of one client carries. Raises ``ConfigError``, without the key, for one that none can."""
    if api_key is None:
        return {}
    key = api_key.strip()  # as read from a file, with the end of its line
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            "api_key: it holds characters that no header can carry; give it as `ubert-serve-key` wrote it"
        )
    return {"Authorization": f"Bearer {key}"}


def address_of(base_url: str, api_key: str | None = None) -> str:
    """Where a service is. Raises ``ConfigError`` for what nothing can be sent to, and for a password beside a key: it
    would be sent in the key's stead.
    """
    try:
        usable = base_url.startswith(("http://", "https://")) and httpx.URL(base_url).host.encode("idna") != b""
    except (httpx.InvalidURL, UnicodeError):
        usable = False
    shown = base_url.rpartition("@")[2]  # before it stands a password
    if not usable:
        raise ConfigError(f"base_url = {shown!r}: write it as http://HOST:PORT or https://HOST:PORT")
    if api_key is not None and httpx.URL(base_url).userinfo:
        raise ConfigError(f"base_url = {shown!r}: leave its user and password out, or api_key; only one can be sent")
    return base_url


def predict(request: PredictRequest, after: Write | None = None) -> Call[PredictAnswer]:
    return Call(method="POST", path="/predict", body=request, headers=_showing(after), read=_reader(PredictAnswer))


def rank(request: RankRequest, after: Write | None = None) -> Call[RankAnswer]:
    return Call(method="POST", path="/rank", body=request, headers=_showing(after), read=_reader(RankAnswer))


def explain(request: ExplainRequest, after: Write | None = None) -> Call[ExplainAnswer]:
    return Call(method="POST", path="/explain", body=request, headers=_showing(after), read=_reader(ExplainAnswer))


def write_candidate_set(name: str, request: CandidateSetRequest) -> Call[CandidateSetAnswer]:
    path = f"/candidate-sets/{_escaped(name)}"
    return Call(method="PUT", path=path, body=request, read=_reader(CandidateSetAnswer))


def candidate_sets() -> Call[CandidateSetList]:
    return Call(method="GET", path="/candidate-sets", read=_reader(CandidateSetList))


def candidate_set(name: str) -> Call[CandidateSetAnswer]:
    return Call(method="GET", path=f"/candidate-sets/{_escaped(name)}", read=_reader(CandidateSetAnswer))


def remove_candidate_set(name: str) -> Call[bool]:
    path = f"/candidate-sets/{_escaped(name)}"
    return Call(method="DELETE", path=path, read=lambda _: True, absent_if_repeated=True)


def promote(bundle: str | None) -> Call[PromotionAnswer]:
    return Call(
        method="POST",
        path="/admin/promote",
        query=_given(bundle=bundle),
        read=_reader(PromotionAnswer),
        asked_again=bundle is not None,  # without a name, the second takes back what the first did
    )


def write_review(request: ReviewRequest) -> Call[ReviewAnswer]:
    # Safe to repeat: the service names a review by its content, or by the caller's own review_id.
    return Call(method="POST", path="/reviews", body=request, read=_reader(ReviewAnswer))


def remove_review(review_id: str, *, user: str, item: str) -> Call[RemovedReview]:
    return Call(
        method="DELETE",
        path=f"/reviews/{_escaped(review_id)}",
        query=_given(user=user, item=item),
        read=lambda received: RemovedReview(read_version=received.headers.get(READ_VERSION.lower())),
        absent_if_repeated=RemovedReview(read_version=None),
    )


def user(identifier: str, *, limit: int | None, cursor: str | None) -> Call[ReviewList]:
    query = _given(limit=limit, cursor=cursor)
    return Call(method="GET", path=f"/users/{_escaped(identifier)}", query=query, read=_reader(ReviewList))


def item(identifier: str, *, limit: int | None, cursor: str | None) -> Call[ReviewList]:
    query = _given(limit=limit, cursor=cursor)
    return Call(method="GET", path=f"/items/{_escaped(identifier)}", query=query, read=_reader(ReviewList))


def find_users(prefix: str, *, limit: int | None) -> Call[EntityList]:
    query = _given(prefix=prefix, limit=limit)
    return Call(method="GET", path="/users", query=query, read=_reader(EntityList))


def find_items(prefix: str, *, limit: int | None) -> Call[EntityList]:
    query = _given(prefix=prefix, limit=limit)
    return Call(method="GET", path="/items", query=query, read=_reader(EntityList))


def about() -> Call[About]:
    return Call(method="GET", path="/about", read=_reader(About))


def alive() -> Call[Alive]:
    return Call(method="GET", path="/healthz", read=_reader(Alive))


def ready() -> Call[Ready]:
    # Not asked again: who wants to know whether the service is ready now is not served by an answer of later.
    return Call(method="GET", path="/readyz", read=_reader(Ready), asked_again=False)


def version() -> Call[Version]:
    return Call(method="GET", path="/version", read=_reader(Version))


def metrics() -> Call[str]:
    return Call(method="GET", path="/metrics", read=_text)


def _showing(write: Write | None) -> dict[str, str]:
    return {READ_VERSION: write.read_version} if write is not None and write.read_version else {}


def _reader(model: type[Answer]) -> Callable[[Received], Answer]:
    def read(received: Received) -> Answer:
        try:
            return model.model_validate_json(received.content)
        except ValidationError as error:
            raise UnexpectedAnswerError(
                f"the answer is no {model.__name__}: {error.error_count()} error(s), {error.errors()[0]['msg']} at "
                f"{error.errors()[0]['loc']}; is it a u-bert service of this version that answers?"
            ) from error

    return read


def _text(received: Received) -> str:
    try:
        return received.content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnexpectedAnswerError(f"the answer is no text: {error.reason}; is it a u-bert service?") from error


def _given(**query: str | int | None) -> dict[str, str | int]:
    given = {name: value for name, value in query.items() if value is not None}
    for value in given.values():
        _encoded(str(value))  # only so that it raises: httpx would with another error
    return given


def _escaped(identifier: str) -> str:
    # Every byte, since an identifier may be "..", which would else be taken for a step up.
    return "".join(f"%{byte:02X}" for byte in _encoded(identifier))


def _encoded(identifier: str) -> bytes:
    """Raises ``InputError`` for half a surrogate pair, as a string has that was cut within a character."""
    try:
        return identifier.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"identifier {identifier!r} is not valid Unicode: {error.reason}") from error
