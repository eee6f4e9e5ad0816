"""The finished cells of one model, averaged over seeds pair by pair, and beside those of another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ubert_training.accuracy.cells import Cell, CellRatings, CellStore, Contender
from ubert_training.accuracy.folds import Fold

Column = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PooledCells:
    """A model's finished cells, by fold and seed; of each test pair the mean over the seeds counts."""

    contender: Contender
    cells: Mapping[int, Mapping[int, CellRatings]]

    @classmethod
    def of(cls, contender: Contender, planned: Sequence[Cell], store: CellStore) -> Self:
        """What is finished of a model's planned cells; those of other models are passed over."""
        finished: dict[int, dict[int, CellRatings]] = {}
        for cell in planned:
            if cell.contender is contender and (ratings := store.load(cell)) is not None:
                finished.setdefault(cell.fold.number, {})[cell.seed] = ratings
        return cls(contender=contender, cells=finished)

    @property
    def folds(self) -> set[int]:
        return set(self.cells)

    @property
    def ratings(self) -> list[CellRatings]:
        """Of every cell."""
        return [ratings for of_fold in self.cells.values() for ratings in of_fold.values()]

    @property
    def mses(self) -> list[float]:
        """Of every cell, in stars²."""
        return [float(ratings.squared_errors.mean()) for ratings in self.ratings]

    def beside(self, other: "PooledCells") -> "PooledCells":
        """The cells of folds and seeds that ``other`` has as well; what draws nothing stands beside every seed."""
        common: dict[int, dict[int, CellRatings]] = {}
        for fold in sorted(self.folds & other.folds):
            any_seed = not (self.contender.seeded and other.contender.seeded)
            of_fold = {
                seed: ratings for seed, ratings in self.cells[fold].items() if any_seed or seed in other.cells[fold]
            }
            if of_fold:
                common[fold] = of_fold
        return PooledCells(contender=self.contender, cells=common)

    def column(self, folds: Sequence[Fold]) -> Column:
        """Of all test pairs of these folds, end to end."""
        return self._mean(folds, lambda cell: cell.squared_errors)

    def covered(self, folds: Sequence[Fold]) -> Column:
        """Share of the seeds whose interval held the rating."""
        return self._mean(folds, lambda cell: cell.covered)

    def above_bias_part(self, folds: Sequence[Fold]) -> Column:
        """Squared errors minus those of the model's own bias part."""
        return self.column(folds) - self._mean(folds, lambda cell: cell.bias_squared_errors)

    def _mean(self, folds: Sequence[Fold], column_of: Callable[[CellRatings], NDArray[Any] | None]) -> Column:
        means: list[Column] = []
        for fold in folds:
            cells = self.cells[fold.number].values()
            columns = [column for cell in cells if (column := column_of(cell)) is not None]
            means.append(np.mean(columns, axis=0))
        return np.concatenate(means)
