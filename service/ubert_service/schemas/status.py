"""``/about``, health checks, ``/version`` and promotion."""

from typing import Literal

from pydantic import Field

from ubert_service.schemas.common import Answer, BundleId, Codec, StateVersion


class Scale(Answer):
    """Lowest and highest rating, in stars."""

    lowest: float
    highest: float


class Estimate(Answer):
    """An error on the test set with its 95% bootstrap interval."""

    value: float
    low: float
    high: float


class Scores(Answer):
    """Errors of one model on ``pairs`` test pairs; ``mse`` in stars squared, the others in stars."""

    pairs: int
    mse: Estimate
    rmse: Estimate
    mae: Estimate


class ModelAccuracy(Scores):
    """Errors of one model on the test set."""

    model: str


class About(Answer):
    """The live model."""

    bundle: BundleId
    scale: Scale
    users: int = Field(description="Users that training has seen.")
    items: int = Field(description="Items that training has seen.")
    max_reviews: int = Field(description="The most reviews that a prediction reads of each side.")
    max_tokens: int = Field(
        description="The most rows of states that a prediction reads of each side, before the codec pools any."
    )
    store: str = Field(description="Kind of the state store, such as `redis` or `lmdb`.")
    accuracy: list[ModelAccuracy] = Field(
        description="This model and the baselines it was compared with, lowest mean squared error first."
    )


class Alive(Answer):
    """The process runs; `/readyz` tells whether it can serve."""

    status: str = "alive"


class Ready(Answer):
    """The service can serve predictions."""

    status: Literal["ready", "degraded"] = "ready"
    bundle: BundleId
    detail: str | None = Field(default=None, description="Why it is degraded.")
    remedy: str | None = Field(default=None, description="What to do about it.")


class NotReadyReason(Answer):
    """One cause of not being ready."""

    check: str = Field(examples=["states"])
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found} ({self.remedy})"


class PromotionAnswer(Answer):
    """Which bundle has which role now."""

    bundle: BundleId
    shadow: str | None = Field(description="Digest of the shadow bundle, which is only compared with it.")


class Version(Answer):
    """What is running."""

    version: str = Field(description="Version of u-bert.")
    bundle: BundleId
    shadow: str | None = Field(description="Digest of the shadow bundle, which is only compared with it; null: none.")
    encoder: str = Field(description="Digest of everything that determines a review's states before the codec.")
    codec: Codec
    states: StateVersion
    device: str = Field(description="Where the network runs: `cpu` or `cuda`.")
