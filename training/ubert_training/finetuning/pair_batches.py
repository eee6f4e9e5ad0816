"""Collation: pairs, the two sides of their histories and the reviews in these, as padded tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ubert_model.ids import Identities
from ubert_model.nn.pair_model import PairBatch, SideIndex
from ubert_model.rating.deviations import Residuals
from ubert_training.finetuning.histories import Histories
from ubert_training.optimization.batches import Indices
from ubert_training.ragged import flat_indices
from ubert_training.reviews.table import ReviewTable, Rows
from ubert_training.states.state_bank import StateBank
from ubert_training.states.tokens import TokenizedReviews


@dataclass(frozen=True, kw_only=True, eq=False)
class PairSource:
    """Makes batches of one table's pairs. ``bank`` holds cached states; None leaves encoding to the model.

    A bank decides how many rows of states a review has; without one the model makes a row of ``tokens_a_row`` tokens.
    """

    table: ReviewTable
    identities: Identities
    tokens: TokenizedReviews
    bank: StateBank | None
    tokens_a_row: int = 1

    def batch(self, histories: Histories, index: Indices) -> PairBatch:
        """The batch of the pairs at ``index`` of ``histories``."""
        pairs = histories.pairs[index].tolist()
        user_rows = [histories.user_rows[number] for number in index.tolist()]
        item_rows = [histories.item_rows[number] for number in index.tolist()]
        reviews = np.unique(np.concatenate([*user_rows, *item_rows, np.zeros(0, dtype=np.int64)]))
        token_ids, token_mask = (None, None) if self.bank else self.tokens.padded(reviews)
        return PairBatch(
            user=torch.tensor([self.identities.users.row(self.table.user[row]) for row in pairs]),
            item=torch.tensor([self.identities.items.row(self.table.item[row]) for row in pairs]),
            domain=torch.tensor([self.identities.domain_row(self.table.item[row]) for row in pairs]),
            user_side=self._side(user_rows, [histories.user_residuals[number] for number in index.tolist()], reviews),
            item_side=self._side(item_rows, [histories.item_residuals[number] for number in index.tolist()], reviews),
            states=self._cached(reviews),
            token_ids=token_ids,
            token_mask=token_mask,
        )

    def sizes(self, histories: Histories) -> NDArray[np.int64]:
        """Rows of states on each pair's user and item side, (P, 2)."""
        sides = []
        for reviews in (histories.user_rows, histories.item_rows):
            rows_before = np.concatenate([[0], np.cumsum(self._lengths[reviews.values])])
            sides.append(np.diff(rows_before[reviews.starts]))
        return np.stack(sides, axis=1)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Where the rows of each review begin, and where the last end, (R + 1,)."""
        return self.tokens.row_starts(self.tokens_a_row) if self.bank is None else self.bank.starts

    @cached_property
    def _lengths(self) -> NDArray[np.int64]:
        """Rows of each review, (R,)."""
        return np.diff(self._starts)

    def _cached(self, reviews: Rows) -> Tensor | None:
        if self.bank is None:
            return None
        index = flat_indices(reviews, self._starts[:-1], self._lengths)
        return torch.from_numpy(np.ascontiguousarray(self.bank.states[index]))

    def _side(self, histories: Sequence[Rows], history_residuals: Sequence[Residuals], reviews: Rows) -> SideIndex:
        """Line up the rows of each pair's reviews, padded to the longest side; at least one (masked) column."""
        lengths = self._lengths[reviews]
        starts = np.cumsum(lengths) - lengths
        local = [np.searchsorted(reviews, rows) for rows in histories]
        width = max(1, *(int(lengths[rows].sum()) for rows in local))
        state_index = np.zeros((len(local), width), dtype=np.int64)
        residuals = np.zeros((len(local), width), dtype=np.float32)
        mask = np.zeros((len(local), width), dtype=bool)
        for pair, (rows, review_residuals) in enumerate(zip(local, history_residuals, strict=True)):
            index = flat_indices(rows, starts, lengths)
            state_index[pair, : len(index)] = index
            residuals[pair, : len(index)] = np.repeat(review_residuals, lengths[rows])
            mask[pair, : len(index)] = True
        return SideIndex(torch.from_numpy(state_index), torch.from_numpy(residuals), torch.from_numpy(mask))
