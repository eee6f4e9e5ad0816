"""What callers send and get: the fields, their meaning and their limits.

The client reads it too, so it imports nothing that only a service has installed: neither ONNX Runtime nor FastAPI.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ubert_model.errors import InputError
from ubert_model.history import RatingCounts
from ubert_model.states import MAX_IDENTIFIER_BYTES, ReviewEntry, identifier_bytes
from ubert_service.reviews.candidate_sets import NAME_PATTERN
from ubert_service.reviews.directory import Listed
from ubert_service.reviews.listing import ReviewPage
from ubert_service.reviews.review_book import NewReview, WrittenReview
from ubert_service.scoring.bringing import BroughtText
from ubert_service.scoring.evidence import Basis, Reason
from ubert_service.scoring.histories import Reading

if TYPE_CHECKING:
    from ubert_model.bundle import Manifest
    from ubert_model.ids import Identities
    from ubert_service.explaining.explain import Explanation, ReviewEvidence
    from ubert_service.scoring.engine import Prediction

MAX_PAIRS = 1_000
LISTED_UNREAD = 10
"""Reviews a side that count and are not read, of which an explanation tells the effect."""
MAX_CANDIDATES = 10_000
MAX_EXCLUDED = 1_000
MAX_USER_TEXTS = 20
MAX_USER_TEXT_CHARACTERS = 10_000
MAX_BUDGET_MS = 60_000
LEAST_SCORED = 16
"""Candidates that are rated however short the latency budget is."""
MAX_TEXT_CHARACTERS = 50_000
MAX_LISTED = 1_000
MAX_FOUND = 100
LAST_SECOND = 253_402_300_799
"""The end of the year 9999: a time beyond it was given in another unit."""


def _storable(identifier: str) -> str:
    try:
        identifier_bytes(identifier)
    except InputError as error:
        raise ValueError(str(error)) from error
    return identifier


def _beginning(prefix: str) -> str:
    return _storable(prefix) if prefix else prefix


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
ReviewId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_IDENTIFIER_BYTES,
        description=f"Name of a review, at most {MAX_IDENTIFIER_BYTES} UTF-8 bytes.",
    ),
    AfterValidator(_storable),
]
CandidateSetName = Annotated[str, Field(pattern=NAME_PATTERN)]
IdentifierPrefix = Annotated[str, Field(max_length=MAX_IDENTIFIER_BYTES), AfterValidator(_beginning)]
UnixSeconds = Annotated[int, Field(ge=0, le=LAST_SECOND)]
BundleId = Annotated[str, Field(description="Digest of the bundle that the whole answer was made with.")]

Codec = Annotated[str, Field(description="How states are stored.")]
StateVersion = Annotated[str, Field(description="Encoder and codec together; states of another are refused.")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class PairRequest(_Request):
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


class UserText(_Request):
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


class _RatingRequest(_Request):
    """What any request for ratings may say of the reviews that are read for it."""

    exclude_review_ids: ExcludedReviews = []
    as_of: AsOf = None
    user_texts: UserTexts = []

    def brought(self) -> list[BroughtText]:
        """The texts that it brings along."""
        return [text.brought() for text in self.user_texts]

    def reading(self) -> Reading:
        """Which reviews of the store are read."""
        return Reading(excluded=frozenset(self.exclude_review_ids), before=self.as_of)


class PredictRequest(_RatingRequest):
    """The pairs to rate; the same pair may stand more than once."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"pairs": [{"user": "A2IBPI20UZIR0U", "item": "B00004Y2UT"}]}]}
    )

    pairs: list[PairRequest] = Field(min_length=1, max_length=MAX_PAIRS)

    @model_validator(mode="after")
    def _texts_are_of_one_user(self) -> Self:
        if self.user_texts and len({pair.user for pair in self.pairs}) > 1:
            raise ValueError("user_texts belong to one user, but the pairs name several; send a request a user")
        return self


class RankRequest(_RatingRequest):
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


class CandidateSetRequest(_Request):
    """Items to rank later; one that is repeated counts where it stands first."""

    items: list[Identifier] = Field(min_length=1, max_length=MAX_CANDIDATES)


class CandidateSetAnswer(_Answer):
    """A stored set of items."""

    name: str
    items: list[str]


class ExplainRequest(_RatingRequest):
    """The pair whose rating is to be explained."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": "A2IBPI20UZIR0U", "item": "B00004Y2UT"}]})

    user: Identifier
    item: Identifier


class Interval(_Answer):
    """Where the true rating lies, in stars."""

    low: float
    high: float
    coverage: float = Field(description="The share of new ratings that such intervals hold, by validation pairs.")


class Grounds(_Answer):
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
    user_tokens: int = Field(description="Tokens of those reviews, as far as the encoder reads a review.")
    item_tokens: int = Field(description="Tokens of those reviews, as far as the encoder reads a review.")
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
        return cls(**_prediction_fields(prediction, coverage))


def _prediction_fields(prediction: "Prediction", coverage: float) -> dict[str, Any]:
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


class PredictAnswer(_Answer):
    """One prediction for each pair, in the order of the request."""

    bundle: BundleId
    codec: Codec
    predictions: list[PairPrediction]


class RatingParts(_Answer):
    """The parts of a rating in stars. All of them together are the rating."""

    mean: float = Field(description="The mean of all training ratings, with the intercept of the bias model.")
    user_bias: float = Field(description="How far the user's ratings lie from it, by their count.")
    item_bias: float = Field(description="How far the item's ratings lie from it, by their count.")
    identity_and_summary: float = Field(
        description="What the network makes of user and item and of each one's reviews by themselves, by its share."
    )
    matching: float = Field(description="What the network makes of the reviews matched with each other, by its share.")
    clipped: float = Field(description="What keeps the sum of the others within the scale; 0 where it lies within.")


class ExplainedReview(_Answer):
    """A review that the rating rests on."""

    review_id: str
    side: Literal["user", "item"] = Field(description="Whether it is read as the user's or as the item's.")
    user: str
    item: str | None = Field(description="Null only for a text of `user_texts` that names none.")
    rating: float | None = Field(description="In stars. Null only for a text of `user_texts` that has none.")
    timestamp: int = Field(description="Unix seconds, 0: unknown.")
    tokens: int = Field(description="Tokens of its text, as far as the encoder reads; 0: without words.")
    effect: float = Field(
        description=(
            "The rating less what it is without this review, its text and its rating: computed by rating again. An "
            "older review may then be read in its place."
        )
    )
    matching: float = Field(description="What its tokens contribute to `matching`, in stars; 0 if it was not read.")
    text: str | None = Field(description="As far as the encoder reads it; null where the store keeps no texts.")
    token_spans: list[tuple[int, int]] | None = Field(
        description=(
            "For each row of its states where its words begin and end in `text`, in code points; `[0, 0]` "
            "for a special token. Null without `text`."
        )
    )
    token_contributions: list[float] = Field(
        description="Stars for each row of its states. They add up to `matching`; empty if it was not read."
    )


class AttentionMap(_Answer):
    """The two reviews whose tokens attend most to each other, both ways (Figure 5 of the paper)."""

    user_review_id: str
    item_review_id: str
    user_attention: list[list[float]] = Field(
        description=(
            "A row a token of the user's review: which share of its attention (Eq. 12, over all of the item's reviews) "
            "falls on each token of the item's review."
        )
    )
    item_attention: list[list[float]] = Field(description="The same from the item's review to the user's.")


class ExplainAnswer(PairPrediction):
    """The rating of a pair and where it comes from."""

    bundle: BundleId
    codec: Codec
    contributions: RatingParts
    reviews: list[ExplainedReview] = Field(
        description=(
            f"All that were read, and of those that only count the newest {LISTED_UNREAD} a side; newest first, the "
            "user's before the item's."
        )
    )
    heat_map: AttentionMap | None = Field(description="Null unless `basis` is `full`.")

    @classmethod
    def explaining(cls, explanation: "Explanation", *, bundle: str, codec: str, coverage: float) -> Self:
        heat_map = explanation.heat_map
        return cls(
            **_prediction_fields(explanation.prediction, coverage),
            bundle=bundle,
            codec=codec,
            contributions=RatingParts(**asdict(explanation.contributions)),
            reviews=[_explained(review) for review in explanation.reviews],
            heat_map=None
            if heat_map is None
            else AttentionMap(
                user_review_id=heat_map.user_review_id,
                item_review_id=heat_map.item_review_id,
                user_attention=heat_map.user_attention.tolist(),
                item_attention=heat_map.item_attention.tolist(),
            ),
        )


def _explained(review: "ReviewEvidence") -> ExplainedReview:
    entry = review.entry
    return ExplainedReview(
        review_id=entry.review_id,
        side=review.side.value,
        user=entry.user,
        item=entry.item or None,
        rating=entry.rating if review.rated else None,
        timestamp=entry.timestamp,
        tokens=entry.tokens,
        effect=review.effect,
        matching=review.matching,
        text=None if review.text is None else review.text.text,
        token_spans=None if review.text is None else list(review.text.spans),
        token_contributions=list(review.token_contributions),
    )


class RankAnswer(_Answer):
    """The candidates, best first; equal ratings keep the order of the request."""

    user: str
    bundle: BundleId
    codec: Codec
    candidates: int = Field(description="Distinct candidates, less those that `exclude_rated` has left out.")
    scored: int = Field(description="How many of them were rated: the first so many, if the budget was short.")
    items: list[PairPrediction]


class ReviewRequest(_Request):
    """A review to store."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user": "A2IBPI20UZIR0U", "item": "B00004Y2UT", "rating": 5, "text": "Stays in tune for weeks."}
            ]
        }
    )

    user: Identifier
    item: Identifier
    rating: float = Field(allow_inf_nan=False, description="In stars, within the scale of the bundle.")
    text: str = Field(
        max_length=MAX_TEXT_CHARACTERS,
        repr=False,
        description=(
            "Title and body. It is encoded, and kept only by a service that runs with `--texts`. White space at its "
            "ends does not count; without words, only the rating counts."
        ),
    )
    timestamp: UnixSeconds | None = Field(
        default=None,
        description="When it was written, unix seconds; 0: unknown. By default the time when it first arrives.",
    )
    review_id: ReviewId | None = Field(
        default=None,
        description=(
            "A name of the caller's own, under which the review can be replaced later. By default it is named by its "
            "content, so that sending it twice stores it once."
        ),
    )

    def review(self) -> NewReview:
        """The review itself."""
        return NewReview(
            user=self.user,
            item=self.item,
            rating=self.rating,
            text=self.text,
            timestamp=self.timestamp,
            review_id=self.review_id,
        )


class EntityCounts(_Answer):
    """How much is known of a user or an item."""

    reviews: int = Field(description="All reviews in the store, with or without text.")
    mean_rating: float | None = Field(description="Over all its reviews, in stars; null where there is none.")

    @classmethod
    def of(cls, counts: RatingCounts) -> "EntityCounts":
        return cls(reviews=counts.count, mean_rating=counts.total / counts.count if counts.count else None)


class ReviewAnswer(_Answer):
    """A review as it now stands in the store."""

    review_id: str
    tokens: int = Field(description="Rows of its states; 0 where the text has no words.")
    timestamp: int = Field(description="Unix seconds, 0: unknown.")
    states: StateVersion
    user: EntityCounts
    item: EntityCounts

    @classmethod
    def of(cls, written: WrittenReview, *, version: str) -> "ReviewAnswer":
        return cls(
            review_id=written.entry.review_id,
            tokens=written.entry.tokens,
            timestamp=written.entry.timestamp,
            states=version,
            user=EntityCounts.of(written.user_counts),
            item=EntityCounts.of(written.item_counts),
        )


class ListedReview(_Answer):
    """One review, without its text."""

    review_id: str
    user: str
    item: str
    rating: float = Field(description="In stars, as its author gave it.")
    timestamp: int = Field(description="Unix seconds, 0: unknown.")
    tokens: int = Field(description="Rows of its states; 0 where the text has no words.")

    @classmethod
    def of(cls, entry: ReviewEntry) -> "ListedReview":
        return cls(
            review_id=entry.review_id,
            user=entry.user,
            item=entry.item,
            rating=entry.rating,
            timestamp=entry.timestamp,
            tokens=entry.tokens,
        )


class ReviewList(_Answer):
    """A page of the reviews of a user or an item, newest first, and what is known over all its pages."""

    id: str = Field(description="The user or the item.")
    known: bool = Field(description="Has training seen it?")
    counts: EntityCounts
    with_text: int = Field(description="Of all its reviews, those that have words and so have states.")
    states: StateVersion
    reviews: list[ListedReview]
    next: str | None = Field(description="Send it as `cursor` to read on; null on the last page.")

    @classmethod
    def of(cls, identifier: str, page: ReviewPage, *, version: str) -> "ReviewList":
        return cls(
            id=identifier,
            known=page.known,
            counts=EntityCounts.of(page.counts),
            with_text=page.with_text,
            states=version,
            reviews=[ListedReview.of(entry) for entry in page.reviews],
            next=page.next_cursor,
        )


class FoundEntity(_Answer):
    """A user or an item."""

    id: str
    known: bool = Field(description="Has training seen it?")
    counts: EntityCounts


class EntityList(_Answer):
    """Users or items in the order of their identifiers, after the one whose identifier is the whole prefix."""

    found: list[FoundEntity]

    @classmethod
    def of(cls, found: Sequence[Listed]) -> "EntityList":
        return cls(
            found=[FoundEntity(id=one.identifier, known=one.known, counts=EntityCounts.of(one.counts)) for one in found]
        )


class Scale(_Answer):
    """Lowest and highest rating, in stars."""

    lowest: float
    highest: float


class Estimate(_Answer):
    """A figure over the test part with its 95% bootstrap interval."""

    value: float
    low: float
    high: float


class Scores(_Answer):
    """Errors of one model over ``pairs`` test pairs; ``mse`` in stars squared, the others in stars."""

    pairs: int
    mse: Estimate
    rmse: Estimate
    mae: Estimate


class ModelAccuracy(Scores):
    """Errors of one model on the test part."""

    model: str


class About(_Answer):
    """The model that answers."""

    bundle: BundleId
    scale: Scale
    users: int = Field(description="Users that training has seen.")
    items: int = Field(description="Items that training has seen.")
    max_reviews: int = Field(description="Reviews that a prediction reads of each side, at most.")
    max_tokens: int = Field(description="Tokens that a prediction reads of each side, at most.")
    store: str = Field(description="Kind of the state store, such as `redis` or `lmdb`.")
    accuracy: list[ModelAccuracy] = Field(
        description="This model and the baselines it was compared with, best mean squared error first."
    )

    @classmethod
    def of(cls, manifest: "Manifest", identities: "Identities", *, store: str, scores: Mapping[str, Scores]) -> "About":
        config = manifest.config
        models = [ModelAccuracy(model=model, **dict(scored)) for model, scored in scores.items()]
        return cls(
            bundle=manifest.bundle_id,
            scale=Scale(lowest=config.scale.lowest, highest=config.scale.highest),
            users=len(identities.users),
            items=len(identities.items),
            max_reviews=config.max_reviews,
            max_tokens=config.max_tokens,
            store=store,
            accuracy=sorted(models, key=lambda model: model.mse.value),
        )


class Alive(_Answer):
    """The process runs; whether it can serve, `/readyz` tells."""

    status: str = "alive"


class Ready(_Answer):
    """All that predictions need is there."""

    status: Literal["ready", "degraded"] = "ready"
    bundle: BundleId
    detail: str | None = Field(default=None, description="Why it is degraded.")


class PromotionAnswer(_Answer):
    """Who has which role now."""

    bundle: BundleId
    shadow: str | None = Field(description="Digest of the bundle that is only compared with it.")


class Version(_Answer):
    """What is running."""

    version: str = Field(description="Version of u-bert.")
    bundle: BundleId
    shadow: str | None = Field(description="Digest of the bundle that is only compared with it; null: none.")
    encoder: str = Field(description="Digest of all that determines a review's states before the codec.")
    codec: Codec
    states: StateVersion
    device: str = Field(description="Where the network runs: `cpu` or `cuda`.")
