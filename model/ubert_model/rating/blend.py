"""From the network's output to a rating: the bias model beneath it, the blend of the two, and the scale.

Numpy only, and shared: training, evaluation and the service call these same functions.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ubert_model.config import RatingScale
from ubert_model.errors import InputError
from ubert_model.rating.deviations import RatingSums, SideBias

Ratings = NDArray[np.float64]


class BiasParts(NamedTuple):
    """The mean with the intercept, the user's bias and the item's, (B,) each, in stars."""

    mean: Ratings
    user: Ratings
    item: Ratings


@dataclass(frozen=True, kw_only=True)
class BiasModel:
    """mean + intercept + shrunk mean deviation of the user's ratings + of the item's, in stars.

    A user's ratings deviate from what is usual for the rated items, an item's from what is usual for their users
    (:class:`UsualDeviations`), each in what ratings count for on its side. The sums are those of histories that the
    caller has already rid of the target review (law 5), so that the same arithmetic serves a pair from training, from
    test and from a stranger (count 0: deviation 0).
    """

    mean: float
    intercept: float
    user: SideBias
    item: SideBias

    def rate(self, user: RatingSums, item: RatingSums, mean: ArrayLike | None = None) -> Ratings:
        """Ratings in stars, not yet clipped, (B,).

        ``mean`` replaces the fitted mean where the target review has to leave it, too.
        """
        parts = self.parts(user, item, mean)
        return parts.mean + parts.user + parts.item

    def parts(self, user: RatingSums, item: RatingSums, mean: ArrayLike | None = None) -> BiasParts:
        """What :meth:`rate` adds up."""
        centre = np.asarray(self.mean if mean is None else mean, dtype=np.float64)
        return BiasParts(
            mean=centre + self.intercept,
            user=self.user.bias(user),
            item=self.item.bias(item),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`."""
        sides = {side: SideBias.from_json(values[side]) for side in ("user", "item")}
        return cls(**{**values, **sides})


def blend(
    bias_rating: ArrayLike, network_output: ArrayLike, *, weight: float, above_bias: bool, scale: RatingScale
) -> Ratings:
    """bias + weight · (network − bias), clipped to the scale; all (B,), in stars.

    ``above_bias``: the network predicts what is left above the bias model (``rating_base``), rather than the
    rating itself. ``weight`` is chosen on validation, so that a network that learned nothing costs nothing.
    """
    bias = np.asarray(bias_rating, dtype=np.float64)
    network = np.asarray(network_output, dtype=np.float64)
    text = network if above_bias else network - bias
    return np.clip(bias + weight * text, scale.lowest, scale.highest)


def stored_rating(rating: float, scale: RatingScale) -> float:
    """A caller's rating in stars as a review table stores it, in float32, so that the same review is the same wherever
    it comes from. Raises ``InputError`` for one outside the scale.
    """
    if not scale.lowest <= rating <= scale.highest:
        raise InputError(f"rating {rating!r} is outside the scale {scale} of the bundle")
    return float(np.float32(rating))
