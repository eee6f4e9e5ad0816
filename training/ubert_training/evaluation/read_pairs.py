"""Ratings as from a store of some codec, computed offline: the states are encoded and decoded again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ubert_model.nn.pair_model import PairModel
from ubert_model.states import FloatMatrix, StateCodec
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.finetuning.histories import Histories
from ubert_training.finetuning.network_outputs import network_outputs
from ubert_training.finetuning.rating_parts import final_ratings
from ubert_training.ragged import flat_indices
from ubert_training.reviews.table import Rows
from ubert_training.states.state_bank import StateBank


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadPairs:
    """Pairs of a run's split, the table rows of the reviews that they read, and the exact states of these, (L, D)
    each.
    """

    run: FinishedRun
    histories: Histories
    rows: Rows
    states: Sequence[FloatMatrix]

    @classmethod
    def of(cls, run: FinishedRun, pairs: Rows) -> "ReadPairs":
        """``pairs``: rows of reviews that training has not read."""
        histories = run.histories(pairs)
        read = np.union1d(histories.user_rows.values, histories.item_rows.values)
        batches = run.states.batches(read)
        return cls(
            run=run,
            histories=histories,
            rows=np.concatenate([*batches, np.zeros(0, dtype=np.int64)]),
            states=[matrix for batch in batches for matrix in run.states.projected(batch)],
        )

    @property
    def truth(self) -> NDArray[np.float64]:
        """Stars, (P,)."""
        return self.run.table.rating[self.histories.pairs].astype(np.float64)

    def stored_ratings(self, codec: StateCodec) -> NDArray[np.float64]:
        """The service's ratings from a store of this codec, in stars, (P,)."""
        return self.ratings(*codec.decode_many([codec.encode(matrix) for matrix in self.states]))

    def ratings(self, states: FloatMatrix, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Ratings in stars, (P,), from states as ``StateCodec.decode_many`` gives them for the reviews at ``rows``."""
        model, source = PairModel(self.run.model, projected=True), self.run.source(self._bank(states, offsets))
        outputs = network_outputs(model, source, self.histories, self.run.accelerator)
        return final_ratings(self.run.parts.blend, self.histories, outputs)

    def _bank(self, states: FloatMatrix, offsets: NDArray[np.int64]) -> StateBank:
        """The states in table order, as a bank expects them; reviews that no pair reads have none."""
        read_lengths = np.diff(offsets)
        lengths = np.zeros(len(self.run.table), dtype=np.int64)
        lengths[self.rows] = read_lengths
        ordered = flat_indices(np.argsort(self.rows), offsets[:-1], read_lengths)
        return StateBank(states[ordered], np.concatenate([[0], np.cumsum(lengths)]))
