"""The scores that a bundle's evaluation recorded, as far as the service shows them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from ubert_model.bundle import METRICS
from ubert_model.errors import BundleError
from ubert_service.schemas import Scores


class _Evaluation(BaseModel):
    scores: dict[str, Scores] = {}


def scores_of(evaluation: Any) -> Mapping[str, Scores]:
    """Scores by name of the model; empty if the bundle was exported without evaluation.

    Raises ``BundleError`` if the bundle's metrics have another shape.
    """
    try:
        return _Evaluation.model_validate(evaluation).scores
    except ValidationError as error:
        raise BundleError(f"{METRICS}: {error.errors()[0]['msg']}; export the bundle again") from error
