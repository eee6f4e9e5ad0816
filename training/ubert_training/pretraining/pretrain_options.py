"""Options of pre-training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ubert_model.validation import require, require_declared_types
from ubert_training.optimization.loop import LoopOptions
from ubert_training.pretraining.corpus_rows import Corpus
from ubert_training.pretraining.masking import MaskingStrategy
from ubert_training.running.devices import DeviceChoice

PAPER_LOOP: Mapping[str, Any] = {"epochs": 3, "batch_size": 32, "learning_rate": 3e-5}
SMALL_LOOP: Mapping[str, Any] = {"epochs": 1, "batch_size": 32, "learning_rate": 1e-3}


def default_loop(preset: str) -> Mapping[str, Any]:
    """Epochs and learning rate of pre-training by preset: the paper's 3e-5, or one quick pass for a new head."""
    return PAPER_LOOP if preset == "paper" else SMALL_LOOP


def default_trainable_layers(preset: str) -> int | None:
    """How many of BERT's last layers pre-training updates, by preset: all (None) in the paper."""
    return 2 if preset == "minilm" else None


@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """What to pre-train on, and for which objective. ``beta`` weighs task 2 (Eq. 9; 3 in the paper)."""

    corpus: Corpus = "both"
    fraction: float = 1.0
    masking: MaskingStrategy = "opinion"
    beta: float = 3.0
    encoder_learning_rate: float = 3e-5
    trainable_layers: int | None = None
    device: DeviceChoice = "auto"
    loop: LoopOptions = field(default_factory=lambda: LoopOptions(**SMALL_LOOP))

    def __post_init__(self) -> None:
        require_declared_types(self)
        require(self.beta >= 0, "beta", self.beta, "use 0 (no task 2) or more")
        rate = self.encoder_learning_rate
        require(0 < rate < math.inf, "encoder_learning_rate", rate, "use a positive step size")
        tasks = self.masking != "none" or self.beta > 0
        require(tasks, "masking", self.masking, "keep at least one task: masking, or beta above 0")
