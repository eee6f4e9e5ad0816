"""The finished cells of one model, averaged over seeds pair by pair, and matched with another model's."""

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
    """A model's finished cells, by fold and seed. Columns hold each test pair's mean over the seeds."""

    contender: Contender
    cells: Mapping[int, Mapping[int, CellRatings]]

    @classmethod
    def of(cls, contender: Contender, planned: Sequence[Cell], store: CellStore) -> Self:
        """The finished ones among the contender's planned cells; those of others are ignored."""
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
        """One for each cell."""
        return [ratings for by_seed in self.cells.values() for ratings in by_seed.values()]

    @property
    def mses(self) -> list[float]:
        """One for each cell, in stars²."""
        return [float(ratings.squared_errors.mean()) for ratings in self.ratings]

    def maes(self, folds: Mapping[int, Fold]) -> list[float]:
        """Mean absolute errors, one for each cell, in stars."""
        return [
            float(np.abs(ratings.predicted - folds[number].truth).mean())
            for number, by_seed in self.cells.items()
            for ratings in by_seed.values()
        ]

    def matching(self, other: "PooledCells") -> "PooledCells":
        """The cells of folds and seeds that ``other`` has, too; a model that is not seeded matches every seed."""
        any_seed = not (self.contender.seeded and other.contender.seeded)
        matched: dict[int, dict[int, CellRatings]] = {}
        for fold in sorted(self.folds & other.folds):
            by_seed = {
                seed: ratings for seed, ratings in self.cells[fold].items() if any_seed or seed in other.cells[fold]
            }
            if by_seed:
                matched[fold] = by_seed
        return PooledCells(contender=self.contender, cells=matched)

    def squared_errors(self, folds: Sequence[Fold]) -> Column:
        """In stars²."""
        return self._column(folds, lambda cell: cell.squared_errors)

    def predicted(self, folds: Sequence[Fold]) -> Column:
        """In stars."""
        return self._column(folds, lambda cell: cell.predicted)

    def covered(self, folds: Sequence[Fold]) -> Column:
        """Share of the seeds whose interval holds the rating."""
        return self._column(folds, lambda cell: cell.covered)

    def above_bias_part(self, folds: Sequence[Fold]) -> Column:
        """Squared errors minus those of the model's own bias part."""
        return self.squared_errors(folds) - self._column(folds, lambda cell: cell.bias_squared_errors)

    def _column(self, folds: Sequence[Fold], column_of: Callable[[CellRatings], NDArray[Any] | None]) -> Column:
        """Mean over the seeds for each test pair of these folds, end to end."""
        means: list[Column] = []
        for fold in folds:
            cells = self.cells[fold.number].values()
            columns = [column for cell in cells if (column := column_of(cell)) is not None]
            means.append(np.mean(columns, axis=0))
        return np.concatenate(means)
