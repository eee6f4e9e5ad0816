"""What requests and answers share: identifiers, limits, and strictness."""

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from ubert_model.errors import InputError
from ubert_model.identifiers import MAX_IDENTIFIER_BYTES, identifier_bytes
from ubert_service.schemas.received import shown, value_kind

MAX_PAIRS = 1_000
MAX_EXPLAINED_PAIRS = 10
MAX_CANDIDATES = 10_000
MAX_EXCLUDED = 1_000
MAX_USER_TEXTS = 20
MAX_USER_TEXT_CHARACTERS = 10_000
MAX_BUDGET_MS = 60_000
LEAST_SCORED = 16
"""Candidates that are rated however small the latency budget is."""
LISTED_UNREAD = 10
"""The most reviews per side that an explanation lists although the network did not read them."""
MAX_TEXT_CHARACTERS = 50_000
MAX_LISTED = 1_000
MAX_FOUND = 100
TOKENS_OF_REVIEW = "Rows of states that its text is encoded to, before the codec pools any; 0 if it has no words."
RATING_TOLERANCE = 1e-6
"""Above the difference between ratings of one pair in different batches, in stars."""
REQUEST_TIMEOUT = "X-Request-Timeout"
LEAST_REQUEST_SECONDS = 0.001
MAX_REQUEST_SECONDS = 3600.0
READ_VERSION = "X-Read-Version"
"""The header of an answer to a write: send it with a request whose answer must show that write."""
NAMED_UNKNOWN = 5
"""Unknown members of an object that are reported one by one; more of them are one error."""
LAST_SECOND = 253_402_300_799
"""The end of the year 9999: a later time was given in another unit."""


def _storable(identifier: str) -> str:
    try:
        identifier_bytes(identifier)
    except InputError as error:
        raise ValueError(str(error)) from error
    return identifier


def _beginning(prefix: str) -> str:
    return _storable(prefix) if prefix else prefix


def _in_unix_seconds(time: object, checked: ValidatorFunctionWrapHandler) -> object:
    try:
        return checked(time)
    except ValidationError:
        raise ValueError(f"send Unix seconds, such as 1796061518, not {shown(time)}") from None


Identifier = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_IDENTIFIER_BYTES,
        description=f"At most {MAX_IDENTIFIER_BYTES} UTF-8 bytes. Identifiers not seen in training are served too.",
    ),
    AfterValidator(_storable),
]
Rating = Annotated[float, Field(description="Predicted rating in stars, within the scale of the bundle.")]
ReviewId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_IDENTIFIER_BYTES,
        description=f"Identifier of a review, at most {MAX_IDENTIFIER_BYTES} UTF-8 bytes.",
    ),
    AfterValidator(_storable),
]
CandidateSetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
IdentifierPrefix = Annotated[str, Field(max_length=MAX_IDENTIFIER_BYTES), AfterValidator(_beginning)]
UnixSeconds = Annotated[int, Field(ge=0, le=LAST_SECOND), WrapValidator(_in_unix_seconds)]
RequestSeconds = Annotated[float, Field(ge=LEAST_REQUEST_SECONDS, le=MAX_REQUEST_SECONDS)]
BundleId = Annotated[str, Field(description="Digest of the bundle that made the whole answer.")]

Codec = Annotated[str, Field(description="How states are stored.")]
StateVersion = Annotated[str, Field(description="Encoder and codec together; states of another version are refused.")]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _is_an_object_with_few_unknown_members(cls, members: Any) -> Any:
        if isinstance(members, cls):
            return members
        if not isinstance(members, dict):
            required = ", ".join(f'"{name}": …' for name, field in cls.model_fields.items() if field.is_required())
            raise ValueError(f"send an object such as {{{required}}}, not {value_kind(members)}")
        # Else each would be an error of its own, and a million in one body would block all callers for seconds.
        if len(members) > len(cls.model_fields) + NAMED_UNKNOWN:
            raise ValueError(f"{len(members)} members are too many; the known ones are {', '.join(cls.model_fields)}")
        return members


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)
