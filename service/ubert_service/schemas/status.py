"""What runs, and how good it is."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ubert_service.schemas.common import Answer, BundleId, Codec, StateVersion

if TYPE_CHECKING:
    from ubert_model.bundle import Manifest
    from ubert_model.ids import Identities


class Scale(Answer):
    """Lowest and highest rating, in stars."""

    lowest: float
    highest: float


class Estimate(Answer):
    """A figure over the test part with its 95% bootstrap interval."""

    value: float
    low: float
    high: float


class Scores(Answer):
    """Errors of one model over ``pairs`` test pairs; ``mse`` in stars squared, the others in stars."""

    pairs: int
    mse: Estimate
    rmse: Estimate
    mae: Estimate


class ModelAccuracy(Scores):
    """Errors of one model on the test part."""

    model: str


class About(Answer):
    """The model that answers."""

    bundle: BundleId
    scale: Scale
    users: int = Field(description="Users that training has seen.")
    items: int = Field(description="Items that training has seen.")
    max_reviews: int = Field(description="Reviews that a prediction reads of each side, at most.")
    max_tokens: int = Field(description="Rows of states that a prediction reads of each side, at most.")
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
            max_tokens=config.max_rows,
            store=store,
            accuracy=sorted(models, key=lambda model: model.mse.value),
        )


class Alive(Answer):
    """The process runs; whether it can serve, `/readyz` tells."""

    status: str = "alive"


class Ready(Answer):
    """All that predictions need is there."""

    status: Literal["ready", "degraded"] = "ready"
    bundle: BundleId
    detail: str | None = Field(default=None, description="Why it is degraded.")


class PromotionAnswer(Answer):
    """Who has which role now."""

    bundle: BundleId
    shadow: str | None = Field(description="Digest of the bundle that is only compared with it.")


class Version(Answer):
    """What is running."""

    version: str = Field(description="Version of u-bert.")
    bundle: BundleId
    shadow: str | None = Field(description="Digest of the bundle that is only compared with it; null: none.")
    encoder: str = Field(description="Digest of all that determines a review's states before the codec.")
    codec: Codec
    states: StateVersion
    device: str = Field(description="Where the network runs: `cpu` or `cuda`.")
