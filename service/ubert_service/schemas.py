"""What callers send and get: the fields, their meaning and their limits."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ubert_model.errors import InputError
from ubert_model.states import MAX_IDENTIFIER_BYTES, identifier_bytes
from ubert_service.engine import Prediction
from ubert_service.evidence import Basis, Reason

MAX_PAIRS = 1_000
MAX_CANDIDATES = 10_000


def _storable(identifier: str) -> str:
    try:
        identifier_bytes(identifier)
    except InputError as error:
        raise ValueError(str(error)) from error
    return identifier


Identifier = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_IDENTIFIER_BYTES,
        description=f"At most {MAX_IDENTIFIER_BYTES} UTF-8 bytes. One that training has not seen is served too.",
    ),
    AfterValidator(_storable),
]
Rating = Annotated[float, Field(description="Predicted rating in stars, within the scale of the bundle.")]
BundleId = Annotated[str, Field(description="Digest of the bundle that the whole answer was made with.")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class PairRequest(_Request):
    """A user and an item."""

    user: Identifier
    item: Identifier


class PredictRequest(_Request):
    """The pairs to rate; the same pair may stand more than once."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"pairs": [{"user": "A2IBPI20UZIR0U", "item": "B00004Y2UT"}]}]}
    )

    pairs: list[PairRequest] = Field(min_length=1, max_length=MAX_PAIRS)


class RankRequest(_Request):
    """A user and the items to order for that user; a candidate that is repeated counts where it stands first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user": "A2IBPI20UZIR0U", "candidates": ["B00004Y2UT", "B0002E1G5C"], "top_k": 1}]
        }
    )

    user: Identifier
    candidates: list[Identifier] = Field(min_length=1, max_length=MAX_CANDIDATES)
    top_k: int | None = Field(
        default=None, ge=1, le=MAX_CANDIDATES, description="Answer with the best so many only; by default with all."
    )


class Grounds(_Answer):
    """What a rating was made from. The review that the user wrote on the item is never part of it."""

    basis: Basis = Field(
        description=(
            "`full`: the network read reviews of both sides; `bias`: a side has no review states, so the rating "
            "comes from the rating counts of user and item alone; `mean`: there are no counts either, so it is the "
            "mean of all training ratings."
        )
    )
    reasons: list[Reason] = Field(
        description=(
            "Why the basis is not `full`, empty if it is. `…_without_reviews`: the store lists no review with text "
            "for that side; `…_states_missing`: it lists some, but has lost all their states."
        )
    )
    user_reviews: int = Field(description="Reviews of the user whose states were found, newest first, up to a limit.")
    item_reviews: int = Field(description="Reviews of the item whose states were found, newest first, up to a limit.")
    missing_states: int = Field(
        description="Reviews that should have been read but whose states the store has lost; 0 in good health."
    )
    user_known: bool = Field(description="Has training seen this user? If not, the network treats it as a stranger.")
    item_known: bool = Field(description="Has training seen this item? If not, the network treats it as a stranger.")


class PairPrediction(Grounds):
    """The rating of one pair."""

    user: str
    item: str
    rating: Rating

    @classmethod
    def of(cls, prediction: Prediction) -> "PairPrediction":
        return cls(
            user=prediction.pair.user,
            item=prediction.pair.item,
            rating=prediction.rating,
            basis=prediction.basis,
            reasons=list(prediction.reasons),
            user_reviews=prediction.user_reviews,
            item_reviews=prediction.item_reviews,
            missing_states=prediction.missing_states,
            user_known=prediction.user_known,
            item_known=prediction.item_known,
        )


class PredictAnswer(_Answer):
    """One prediction for each pair, in the order of the request."""

    bundle: BundleId
    predictions: list[PairPrediction]


class RankAnswer(_Answer):
    """The candidates, best first; equal ratings keep the order of the request."""

    user: str
    bundle: BundleId
    items: list[PairPrediction]


class Alive(_Answer):
    """The process runs; whether it can serve, `/readyz` tells."""

    status: str = "alive"


class Ready(_Answer):
    """All that predictions need is there."""

    status: str = "ready"
    bundle: BundleId


class Version(_Answer):
    """What is running."""

    version: str = Field(description="Version of u-bert.")
    bundle: BundleId
    encoder: str = Field(description="Digest of all that determines a review's states before the codec.")
    codec: str = Field(description="How states are stored.")
    states: str = Field(description="State version: encoder and codec together; states of another are refused.")
    device: str = Field(description="Where the network runs: `cpu` or `cuda`.")
