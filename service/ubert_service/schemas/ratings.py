"""``/predict``, ``/rank``, ``/explain`` and candidate sets."""

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator

from ubert_service.reading.brought import BroughtText
from ubert_service.reading.histories import Reading
from ubert_service.schemas.common import (
    LEAST_SCORED,
    MAX_BUDGET_MS,
    MAX_CANDIDATES,
    MAX_EXCLUDED,
    MAX_EXPLAINED_PAIRS,
    MAX_PAIRS,
    MAX_USER_TEXT_CHARACTERS,
    MAX_USER_TEXTS,
    Answer,
    BundleId,
    CandidateSetName,
    Codec,
    Identifier,
    Rating,
    Request,
    ReviewId,
    UnixSeconds,
)
from ubert_service.schemas.explanations import RatingEvidence, evidence_fields
from ubert_service.scoring.evidence import Basis, Reason

if TYPE_CHECKING:
    from ubert_service.explaining.explain import Explanation
    from ubert_service.scoring.engine import Prediction


class PairRequest(Request):
    """A user and an item."""

    user: Identifier
    item: Identifier


ExcludedReviews = Annotated[
    list[ReviewId],
    Field(
        max_length=MAX_EXCLUDED,
        description="Reviews to leave out of what is read and of what is counted. Unknown ones are passed over.",
    ),
]
AsOf = Annotated[
    UnixSeconds | None,
    Field(
        description=(
            "Unix seconds. Read and count only reviews that are dated strictly before; one without a date is left "
            "out. What training has learned is not taken back."
        ),
    ),
]


class UserText(Request):
    """Something that the user has written, as a review if it has a rating and an item."""

    text: str = Field(min_length=1, max_length=MAX_USER_TEXT_CHARACTERS, repr=False)
    rating: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="In stars, within the scale of the bundle. Without one, only what the text says is read.",
    )
    item: Identifier | None = Field(
        default=None, description="What it is about. It is then left out of the rating of that item."
    )

    def brought(self) -> BroughtText:
        return BroughtText(text=self.text, rating=self.rating, item=self.item)


UserTexts = Annotated[
    list[UserText],
    Field(
        max_length=MAX_USER_TEXTS,
        description=(
            "Texts of the user of this request, newest first: read for this answer alone, as if they were reviews "
            "newer than any in the store. They are not stored. A user without history is rated by them."
        ),
    ),
]


class RatingRequest(Request):
    """What any request for ratings may say of the reviews that are read for it."""

    exclude_review_ids: ExcludedReviews = Field(default=[])
    as_of: AsOf = None
    user_texts: UserTexts = Field(default=[])

    def brought(self) -> list[BroughtText]:
        """The texts that it brings along."""
        return [text.brought() for text in self.user_texts]

    def reading(self) -> Reading:
        """Which reviews of the store are read."""
        return Reading(excluded=frozenset(self.exclude_review_ids), before=self.as_of)


class PredictRequest(RatingRequest):
    """The pairs to rate; the same pair may stand more than once."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"pairs": [{"user": "A2IBPI20UZIR0U", "item": "B00004Y2UT"}]}]}
    )

    pairs: list[PairRequest] = Field(min_length=1, max_length=MAX_PAIRS)
    explain: bool = Field(
        default=False,
        description=(
            "Tell with each rating where it comes from, as `/explain` does; of at most "
            f"{MAX_EXPLAINED_PAIRS} pairs, since each is rated again without each of its reviews."
        ),
    )

    @model_validator(mode="after")
    def _few_are_explained(self) -> Self:
        if self.explain and len(self.pairs) > MAX_EXPLAINED_PAIRS:
            raise ValueError(
                f"explain is for at most {MAX_EXPLAINED_PAIRS} pairs a request, and here are {len(self.pairs)}; "
                "send several requests, or explain only those that matter"
            )
        return self

    @model_validator(mode="after")
    def _texts_are_of_one_user(self) -> Self:
        if self.user_texts and len({pair.user for pair in self.pairs}) > 1:
            raise ValueError("user_texts belong to one user, but the pairs name several; send a request a user")
        return self


class RankRequest(RatingRequest):
    """A user and the items to order for that user, either sent or stored as a candidate set.

    A candidate that is repeated counts where it stands first.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user": "A2IBPI20UZIR0U", "candidates": ["B00004Y2UT", "B0002E1G5C"], "top_k": 1}]
        }
    )

    user: Identifier
    candidates: Annotated[list[Identifier], Field(min_length=1, max_length=MAX_CANDIDATES)] | None = None
    candidate_set: CandidateSetName | None = Field(
        default=None, description="The name of a stored set, in place of `candidates`."
    )
    exclude_rated: bool = Field(default=False, description="Leave out what the user has reviewed.")
    min_rating: float | None = Field(
        default=None, allow_inf_nan=False, description="Leave out what is rated lower, in stars."
    )
    latency_budget_ms: float | None = Field(
        default=None,
        gt=0,
        le=MAX_BUDGET_MS,
        allow_inf_nan=False,
        description=(
            "Milliseconds from the arrival of the request in which to rate as many candidates as fit, in their order, "
            f"and the first {LEAST_SCORED} in any case; by default all."
        ),
    )
    top_k: int | None = Field(
        default=None, ge=1, le=MAX_CANDIDATES, description="Answer with the best so many only; by default with all."
    )

    @model_validator(mode="after")
    def _candidates_come_once(self) -> Self:
        if (self.candidates is None) == (self.candidate_set is None):
            raise ValueError("send either candidates or candidate_set")
        return self


class CandidateSetRequest(Request):
    """Items to rank later; one that is repeated counts where it stands first."""

    items: list[Identifier] = Field(min_length=1, max_length=MAX_CANDIDATES)


class CandidateSetAnswer(Answer):
    """A stored set of items."""

    name: str
    items: list[str]


class CandidateSetList(Answer):
    """The stored sets of items."""

    names: list[str] = Field(description="In order.")


class ExplainRequest(RatingRequest):
    """The pair whose rating is to be explained."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": "A2IBPI20UZIR0U", "item": "B00004Y2UT"}]})

    user: Identifier
    item: Identifier


class Interval(Answer):
    """Where the true rating lies, in stars."""

    low: float
    high: float
    coverage: float = Field(description="The share of new ratings that such intervals hold, by validation pairs.")


_TOKENS = (
    "Rows of their states: tokens, as far as the encoder reads a review, unless the model pools several into a row."
)


class Grounds(Answer):
    """What a rating was made from. The review that the user wrote on the item is never part of it."""

    basis: Basis = Field(
        description=(
            "The step of the ladder that the rating stands on. `full`: the network read reviews of both sides. Else a "
            "side has no review states, and the rating counts speak alone. `bias`: both sides have ratings; "
            "`one_side`: only one has, and the other is taken for average; `mean`: neither has, so it is the mean of "
            "all training ratings. The network is not asked to read one side alone, for which it was not trained."
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
    user_tokens: int = Field(description=_TOKENS)
    item_tokens: int = Field(description=_TOKENS)
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
    interval: Interval

    @classmethod
    def of(cls, prediction: "Prediction", *, coverage: float) -> Self:
        return cls(**prediction_fields(prediction, coverage))


def prediction_fields(prediction: "Prediction", coverage: float) -> dict[str, Any]:
    return {
        "user": prediction.pair.user,
        "item": prediction.pair.item,
        "rating": prediction.rating,
        "interval": Interval(low=prediction.low, high=prediction.high, coverage=coverage),
        "basis": prediction.basis,
        "reasons": list(prediction.reasons),
        "user_reviews": prediction.user_reviews,
        "item_reviews": prediction.item_reviews,
        "user_tokens": prediction.user_tokens,
        "item_tokens": prediction.item_tokens,
        "missing_states": prediction.missing_states,
        "user_known": prediction.user_known,
        "item_known": prediction.item_known,
    }


class PredictedPair(PairPrediction):
    """The rating of one pair, and where it comes from if that was asked for."""

    evidence: RatingEvidence | None = Field(default=None, description="Only there if the request says `explain`.")

    @classmethod
    def explained(cls, explanation: "Explanation", *, coverage: float) -> Self:
        return cls(
            **prediction_fields(explanation.prediction, coverage),
            evidence=RatingEvidence(**evidence_fields(explanation)),
        )


class PredictAnswer(Answer):
    """One prediction for each pair, in the order of the request."""

    bundle: BundleId
    codec: Codec
    predictions: list[PredictedPair]


class RankAnswer(Answer):
    """The candidates, best first; equal ratings keep the order of the request."""

    user: str
    bundle: BundleId
    codec: Codec
    candidates: int = Field(description="Distinct candidates, less those that `exclude_rated` has left out.")
    scored: int = Field(description="How many of them were rated: the first so many, if the budget was short.")
    items: list[PairPrediction]


class ExplainAnswer(RatingEvidence, PairPrediction):
    """The rating of a pair and where it comes from."""

    bundle: BundleId
    codec: Codec

    @classmethod
    def explaining(cls, explanation: "Explanation", *, bundle: str, codec: str, coverage: float) -> Self:
        return cls(
            **prediction_fields(explanation.prediction, coverage),
            **evidence_fields(explanation),
            bundle=bundle,
            codec=codec,
        )
