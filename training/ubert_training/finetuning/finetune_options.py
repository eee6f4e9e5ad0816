"""Options of fine-tuning."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ubert_model.validation import require, require_declared_types
from ubert_training.optimization.loop import LoopOptions
from ubert_training.running.devices import DeviceChoice

Mode = Literal["cached", "end-to-end"]

CACHED_LOOP: Mapping[str, Any] = {
    "epochs": 10,
    "batch_size": 32,
    "learning_rate": 1e-4,
    "patience": 3,
    "least_improvement": 1.0,
    "averaging": 0.99,
}
END_TO_END_LOOP: Mapping[str, Any] = {"epochs": 5, "batch_size": 8, "learning_rate": 3e-5, "patience": 2}


def default_loop(mode: str) -> Mapping[str, Any]:
    """Epochs and learning rate of fine-tuning by mode: a new head over cached states, or the paper's 3e-5."""
    return CACHED_LOOP if mode == "cached" else END_TO_END_LOOP


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """How to fine-tune.

    ``cached``: the review encoder is frozen, its states are computed once, and only the layers above it train.
    ``end-to-end``: everything trains, the last ``trainable_layers`` of BERT (None: all) at their own learning rate.
    The projection of states, which decides how they are aligned, has its own learning rate in both.
    """

    mode: Mode = "cached"
    projection_learning_rate: float = 3e-3
    encoder_learning_rate: float = 3e-5
    trainable_layers: int | None = None
    device: DeviceChoice = "auto"
    loop: LoopOptions = field(default_factory=lambda: LoopOptions(**CACHED_LOOP))

    def __post_init__(self) -> None:
        require_declared_types(self)
        for name in ("encoder_learning_rate", "projection_learning_rate"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "use a positive step size")
