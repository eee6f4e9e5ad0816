"""A finished fine-tuning run's ratings of pairs, from exact states."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from ubert_model.nn.pair_model import PairModel
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.finetuning.histories import Histories
from ubert_training.finetuning.network_outputs import network_outputs
from ubert_training.finetuning.rating_parts import final_ratings


@dataclass(frozen=True, kw_only=True, eq=False)
class RatedPairs:
    """A fine-tuned model's ratings of pairs, (P,) each, in stars. ``bias``: those of its bias part alone."""

    histories: Histories
    truth: NDArray[np.float64]
    predicted: NDArray[np.float64]
    bias: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    coverage: float

    @classmethod
    def of(cls, run: FinishedRun, part: Literal["validation", "test"]) -> Self:
        """Rate all pairs of a part of the run's split."""
        blend, intervals = run.parts.blend, run.parts.intervals
        histories = run.histories(getattr(run.split, part))
        outputs = network_outputs(PairModel(run.model), run.source(run.bank), histories, run.accelerator)
        predicted = final_ratings(blend, histories, outputs)
        low, high = intervals.around(predicted, histories.user_count, blend.scale)
        return cls(
            histories=histories,
            truth=run.table.rating[histories.pairs].astype(np.float64),
            predicted=predicted,
            bias=final_ratings(replace(blend, weight=0.0), histories, outputs),
            low=low,
            high=high,
            coverage=intervals.coverage,
        )

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Does the interval hold the true rating? (P,)"""
        covered: NDArray[np.bool_] = (self.low <= self.truth) & (self.truth <= self.high)
        return covered
