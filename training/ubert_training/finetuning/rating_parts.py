"""From network outputs to ratings: the bias model beneath them, and the network's weight in the blend."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ubert_model.bundle import DEVIATIONS
from ubert_model.config import ModelConfig
from ubert_model.ids import Identities
from ubert_model.rating import Floats
from ubert_model.rating.blend import BiasModel, Blend
from ubert_model.rating.deviations import UsualDeviations
from ubert_model.rating.intervals import RatingIntervals
from ubert_model.running.atomic import replacing, write_text
from ubert_training.finetuning.histories import Histories
from ubert_training.running.stage import refusing_damage

RATING = "rating.json"


@dataclass(frozen=True, kw_only=True)
class RatingParts:
    """What turns network outputs into ratings; the bias is fitted on training, its weight and the intervals on
    validation.
    """

    blend: Blend
    deviations: UsualDeviations
    intervals: RatingIntervals

    def save(self, directory: Path) -> None:
        content = {
            "bias": self.blend.bias.to_json(),
            "blend_weight": self.blend.weight,
            "intervals": self.intervals.to_json(),
        }
        with replacing(directory / DEVIATIONS) as partial:
            self.deviations.save(partial)
        write_text(directory / RATING, json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path, config: ModelConfig, identities: Identities) -> "RatingParts":
        """Inverse of :meth:`save`, for a model of this configuration, these users and items.

        Raises ``InputError`` or ``BundleError`` for damaged files.
        """
        with refusing_damage(directory / RATING):
            content = json.loads((directory / RATING).read_text(encoding="utf-8"))
            bias = BiasModel.from_json(content["bias"])
            blend = Blend.of(config, bias, content["blend_weight"])
            intervals = RatingIntervals.from_json(content["intervals"])
        deviations = UsualDeviations.load(
            directory / DEVIATIONS, bias.user, bias.item, user_ids=identities.users, item_ids=identities.items
        )
        return cls(blend=blend, deviations=deviations, intervals=intervals)


def fit_blend_weight(outputs: Floats, residuals: Floats) -> float:
    """The network's weight in a rating, from 0 to 1, fitted on pairs that it was not trained on.

    The least-squares weight w has a standard error s; it is shrunk by the factor 1 − s²/w² (James and Stein), to 0
    where it is within s of 0: a weight that only fits noise costs accuracy. A single pair tells nothing about s.

    Shape:
        outputs: what the network adds; residuals: ratings minus the bias model's; (P,) in stars.
    """
    energy = float(outputs @ outputs)
    if energy == 0 or len(outputs) < 2:
        return 0.0
    weight = float(outputs @ residuals) / energy
    variance = float(np.square(residuals - weight * outputs).sum()) / (len(outputs) - 1) / energy  # s²
    return float(np.clip(weight - variance / weight, 0.0, 1.0)) if weight > 0 else 0.0


def final_ratings(blend: Blend, histories: Histories, outputs: Floats) -> Floats:
    """Ratings in stars, (P,), from :func:`network_outputs`."""
    return blend.rate(histories.sums.user, histories.sums.item, outputs, histories.has_both_sides)
