"""``/predict``, ``/rank``, ``/explain`` and candidate sets."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ubert_service.schemas.common import (
    LEAST_SCORED,
    MAX_BUDGET_MS,
    MAX_CANDIDATES,
    MAX_EXCLUDED,
    MAX_EXPLAINED_PAIRS,
    MAX_PAIRS,
    MAX_USER_TEXT_CHARACTERS,
    MAX_USER_TEXTS,
    RATING_TOLERANCE,
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
from ubert_service.schemas.explanations import RatingEvidence

Basis = Literal["full", "bias", "one_side", "mean"]
Reason = Literal["user_without_reviews", "item_without_reviews", "user_states_missing", "item_states_missing"]


class PairRequest(Request):
    """A user and an item."""

    user: Identifier
    item: Identifier


ExcludedReviews = Annotated[
    list[ReviewId],
    Field(
        max_length=MAX_EXCLUDED,
        description="Reviews that are neither read nor counted. Unknown identifiers are ignored.",
    ),
]
AsOf = Annotated[
    UnixSeconds | None,
    Field(
        description=(
            "Unix seconds. Read and count only reviews dated strictly before; undated ones are left out. What training "
            "has learned from the others stays."
        ),
    ),
]


class UserText(Request):
    """A text by the user; with a rating and an item, a review."""

    text: str = Field(min_length=1, max_length=MAX_USER_TEXT_CHARACTERS, repr=False)
    rating: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="In stars, within the scale of the bundle. Without a rating, only the text counts.",
    )
    item: Identifier | None = Field(
        default=None, description="The item that it is about. It is left out of the rating of that item."
    )


UserTexts = Annotated[
    list[UserText],
    Field(
        max_length=MAX_USER_TEXTS,
        description=(
            "Texts by the user of this request, newest first. They are read for this answer only, as reviews newer "
            "than any in the store, and are not stored. With them, a user without history can be rated."
        ),
    ),
]


class RatingRequest(Request):
    """What any request for ratings may say about the reviews that it reads."""

    exclude_review_ids: ExcludedReviews = Field(default=[])
    as_of: AsOf = None
    user_texts: UserTexts = Field(default=[])


class PredictRequest(RatingRequest):
    """The pairs to rate; a pair may be repeated."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"pairs": [{"user": "A2IBPI20UZIR0U", "item": "B00004Y2UT"}]}]}
    )

    pairs: list[PairRequest] = Field(min_length=1, max_length=MAX_PAIRS)
    explain: bool = Field(
        default=False,
        description=(
            f"Explain each rating as `/explain` does, for at most {MAX_EXPLAINED_PAIRS} pairs, since each is rated "
            "again without each of its reviews."
        ),
    )

    @model_validator(mode="after")
    def _few_pairs_explained(self) -> Self:
        if self.explain and len(self.pairs) > MAX_EXPLAINED_PAIRS:
            raise ValueError(
                f"explain allows at most {MAX_EXPLAINED_PAIRS} pairs per request, not {len(self.pairs)}; send several "
                "requests, or explain fewer pairs"
            )
        return self

    @model_validator(mode="after")
    def _one_user_with_texts(self) -> Self:
        if self.user_texts and len({pair.user for pair in self.pairs}) > 1:
            raise ValueError("user_texts belong to one user, but the pairs name several; send one request per user")
        return self


class RankRequest(RatingRequest):
    """A user and the items to order for that user, either sent or stored as a candidate set.

    Of a repeated candidate, the first position counts.
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
    exclude_rated: bool = Field(default=False, description="Leave out items that the user has reviewed.")
    min_rating: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description=f"Leave out items with a lower predicted rating, in stars, to within {RATING_TOLERANCE:f}.",
    )
    latency_budget_ms: float | None = Field(
        default=None,
        gt=0,
        le=MAX_BUDGET_MS,
        allow_inf_nan=False,
        description=(
            "Milliseconds from the arrival of the request. Only as many candidates are rated, in their order, as fit; "
            f"the first {LEAST_SCORED} always. By default all are."
        ),
    )
    top_k: int | None = Field(
        default=None, ge=1, le=MAX_CANDIDATES, description="Return only this many of the best; by default all."
    )

    @model_validator(mode="after")
    def _candidates_or_set(self) -> Self:
        if (self.candidates is None) == (self.candidate_set is None):
            raise ValueError("send exactly one of candidates and candidate_set")
        return self


class CandidateSetRequest(Request):
    """Items to rank later. Of a repeated item, the first position counts."""

    items: list[Identifier] = Field(min_length=1, max_length=MAX_CANDIDATES)


class CandidateSetAnswer(Answer):
    """A stored set of items."""

    name: str
    items: list[str]


class CandidateSetList(Answer):
    """The stored sets of items."""

    names: list[str] = Field(description="Sorted.")


class ExplainRequest(RatingRequest):
    """The pair whose rating to explain."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": "A2IBPI20UZIR0U", "item": "B00004Y2UT"}]})

    user: Identifier
    item: Identifier


class Interval(Answer):
    """The prediction interval of a rating, in stars."""

    low: float
    high: float
    coverage: float = Field(description="The share of new ratings that such intervals contain, by validation pairs.")


_TOKENS = (
    "Rows of states that their texts are encoded to, before the codec pools any: one per token that the encoder reads, "
    "unless the model pools several into a row."
)


class Grounds(Answer):
    """What a rating was made from. The user's own reviews of the item are never read."""

    basis: Basis = Field(
        description=(
            "How much the rating could be based on. `full`: the network read reviews of both sides. Otherwise a side "
            "has no review states, and the bias model alone rates. `bias`: both sides have ratings; `one_side`: only "
            "one, the other is taken as average; `mean`: neither has, so the rating is the mean of all training "
            "ratings. The network never reads one side alone, since it was not trained for that."
        )
    )
    reasons: list[Reason] = Field(
        description=(
            "Why the basis is not `full`; empty if it is. `…_without_reviews`: the store lists no review with text for "
            "that side; `…_states_missing`: it lists some, but has lost all their states."
        )
    )
    user_reviews: int = Field(description="Reviews of the user that were read: the newest with states, up to a limit.")
    item_reviews: int = Field(description="Reviews of the item that were read: the newest with states, up to a limit.")
    user_tokens: int = Field(description=_TOKENS)
    item_tokens: int = Field(description=_TOKENS)
    missing_states: int = Field(
        description="Reviews that should have been read, but whose states the store has lost; normally 0."
    )
    user_known: bool = Field(description="Has training seen this user? If not, only the user's reviews count.")
    item_known: bool = Field(description="Has training seen this item? If not, only the item's reviews count.")


class PairPrediction(Grounds):
    """The rating of one pair."""

    user: str
    item: str
    rating: Rating
    interval: Interval


class PredictedPair(PairPrediction):
    """The rating of one pair, with its explanation if requested."""

    evidence: RatingEvidence | None = Field(default=None, description="Present only if the request sets `explain`.")


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
    candidates: int = Field(description="Distinct candidates, without those left out by `exclude_rated`.")
    scored: int = Field(description="How many of them were rated: the first ones, if the latency budget ran out.")
    items: list[PairPrediction]


class ExplainAnswer(RatingEvidence, PairPrediction):
    """The rating of a pair and its explanation."""

    bundle: BundleId
    codec: Codec
