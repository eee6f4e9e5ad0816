"""The folds that every model is measured on, and the lengths of their test pairs' histories."""

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """One split of the table; P is the number of its test pairs."""

    number: int
    table: ReviewTable
    split: Split

    @property
    def truth(self) -> NDArray[np.float64]:
        """The ratings of the test pairs, (P,), in stars."""
        return self.table.rating[self.split.test].astype(np.float64)

    @cached_property
    def user_counts(self) -> NDArray[np.float64]:
        """Training reviews by each test pair's user, (P,)."""
        return self._counts(self.table.user)

    @cached_property
    def item_counts(self) -> NDArray[np.float64]:
        """Training reviews of each test pair's item, (P,)."""
        return self._counts(self.table.item)

    @cached_property
    def digests(self) -> dict[str, str]:
        """The reviews of each part, for the inputs of a cell."""
        return self.split.digests(self.table)

    def _counts(self, names: Sequence[str]) -> NDArray[np.float64]:
        known = Counter(names[row] for row in self.split.train.tolist())
        return np.array([known[names[row]] for row in self.split.test.tolist()], dtype=np.float64)


def make_folds(
    table: ReviewTable, rows: Rows, by: SplitBy, count: int, directory: Path, *, seed: int = 0
) -> list[Fold]:
    """The folds, each saved in ``directory`` for `ubert finetune` and the like, in place of those of an earlier
    division; a split by time is a single fold.

    ``seed`` deals out the pairs. It is one for all seeds of the models: with the same folds, their errors can be
    averaged pair by pair.
    No training part of a fold holds a review by a test pair's user on its item.
    """
    splits = [time_split(table, rows)] if by == "time" else k_fold_splits(table, rows, count, seed)
    paths = [directory / f"{by}-{number}.parquet" for number in range(len(splits))]
    for path, split in zip(paths, splits, strict=True):
        split.save(path, table)
    for former in set(directory.glob(f"{by}-*.parquet")).difference(paths):
        former.unlink(missing_ok=True)  # another process may do the same
    return [Fold(number=number, table=table, split=split) for number, split in enumerate(splits)]
