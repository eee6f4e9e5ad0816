"""From the network's output to a rating: the bias model beneath it, the blend of the two, and the scale.

Numpy only: training, evaluation and the service all rate with these.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ubert_model.config import ModelConfig, RatingScale
from ubert_model.errors import InputError
from ubert_model.rating import Floats
from ubert_model.rating.deviations import RatingSums, SideBias
from ubert_model.review import Side


class BiasParts(NamedTuple):
    """The mean with the intercept, the user's bias and the item's, (B,) each, in stars."""

    mean: Floats
    user: Floats
    item: Floats


@dataclass(frozen=True, kw_only=True)
class BiasModel:
    """mean + intercept + shrunk mean deviation of the user's reviews + of the item's, in stars.

    A user's reviews are compared with what is usual for the items, an item's with what is usual for its users
    (:class:`UsualDeviations`), each by what it counts for on its side. The caller leaves the target review out of the
    sums (law 5), so the same arithmetic serves training pairs, test pairs and strangers (whose deviation is 0).
    """

    mean: float
    intercept: float
    user: SideBias
    item: SideBias

    def rate(self, user: RatingSums, item: RatingSums, mean: ArrayLike | None = None) -> Floats:
        """Ratings in stars, not yet clipped, (B,).

        ``mean`` replaces the fitted mean where that has to leave the target review out, too.
        """
        parts = self.parts(user, item, mean)
        return parts.mean + parts.user + parts.item

    def parts(self, user: RatingSums, item: RatingSums, mean: ArrayLike | None = None) -> BiasParts:
        """The terms that :meth:`rate` adds up."""
        centre = np.asarray(self.mean if mean is None else mean, dtype=np.float64)
        return BiasParts(
            mean=centre + self.intercept,
            user=self.user.bias(user),
            item=self.item.bias(item),
        )

    def on(self, side: Side) -> SideBias:
        """That of one side."""
        return self.user if side is Side.USER else self.item

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`."""
        sides = {side: SideBias.from_json(values[side]) for side in ("user", "item")}
        return cls(**{**values, **sides})


@dataclass(frozen=True, kw_only=True)
class Blend:
    """bias + weight · (network − bias), clipped to the scale; the bias alone for pairs that the network cannot read.

    ``above_bias``: the network predicts what is left above the bias model (``rating_base``), rather than the
    rating itself. ``weight`` is chosen on validation, so that a network that learned nothing costs nothing.
    """

    bias: BiasModel
    weight: float
    above_bias: bool
    scale: RatingScale

    @classmethod
    def of(cls, config: ModelConfig, bias: BiasModel, weight: float) -> Self:
        """The blend of a model of this configuration."""
        return cls(bias=bias, weight=weight, above_bias=config.above_bias, scale=config.scale)

    def rate(self, user: RatingSums, item: RatingSums, outputs: Floats, readable: NDArray[np.bool_]) -> Floats:
        """Ratings in stars, (B,), from the sums of both sides and the network's outputs, (B,).

        ``readable``: mask of the pairs whose output counts, (B,).
        """
        bias = self.bias.rate(user, item)
        text = np.where(readable, outputs if self.above_bias else outputs - bias, 0.0)
        return np.clip(bias + self.weight * text, self.scale.lowest, self.scale.highest)

    def bias_share(self, *, readable: bool) -> float:
        """The factor of the bias model in a pair's rating; the network's is ``weight`` if it can read the pair.

        A network that predicts whole ratings, not what is left above the bias, takes its share from the bias.
        """
        return 1.0 - self.weight if readable and not self.above_bias else 1.0


def stored_rating(rating: float, scale: RatingScale) -> float:
    """Round a caller's rating in stars to float32, as review tables store it, so that a review is the same wherever it
    comes from. Raises ``InputError`` outside the scale.
    """
    if not scale.lowest <= rating <= scale.highest:
        raise InputError(f"rating {rating!r} is outside the scale {scale} of the bundle")
    return float(np.float32(rating))
