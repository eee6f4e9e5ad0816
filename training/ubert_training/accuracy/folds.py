"""The folds that every model is measured on, and what is known of each test pair."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ubert_training.reviews.table import ReviewTable, Rows
from ubert_training.splits import Split, k_fold_splits, time_split

SplitBy = Literal["folds", "time"]
SPLITTING_SEED = 0
"""Folds are the same for all seeds of the models, so that their errors can be averaged pair by pair."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """One split of the table; its test pairs have (P,) entries everywhere."""

    number: int
    table: ReviewTable
    split: Split

    @property
    def truth(self) -> NDArray[np.float64]:
        """The ratings of the test pairs, in stars."""
        return self.table.rating[self.split.test].astype(np.float64)

    @cached_property
    def user_counts(self) -> NDArray[np.float64]:
        """Reviews in each test pair's user's history: those of the training part."""
        return self._counts(self.table.user)

    @cached_property
    def item_counts(self) -> NDArray[np.float64]:
        """The same for its item."""
        return self._counts(self.table.item)

    @cached_property
    def digests(self) -> dict[str, str]:
        """The reviews of each part, for the inputs of a cell."""
        return self.split.digests(self.table)

    def _counts(self, names: Sequence[str]) -> NDArray[np.float64]:
        known = Counter(names[row] for row in self.split.train.tolist())
        return np.array([known[names[row]] for row in self.split.test.tolist()], dtype=np.float64)


def make_folds(table: ReviewTable, rows: Rows, by: SplitBy, count: int, directory: Path) -> list[Fold]:
    """The folds, saved in ``directory`` for `ubert finetune` and the like; one fold only for a split by time.

    A pair's test review is in no training part, and no other review of the same user on the same item is.
    """
    splits = [time_split(table, rows)] if by == "time" else k_fold_splits(table, rows, count, SPLITTING_SEED)
    for number, split in enumerate(splits):
        split.save(directory / f"{by}-{number}.parquet", table)
    return [Fold(number=number, table=table, split=split) for number, split in enumerate(splits)]
