"""What the finished cells say: errors by model, differences on the same pairs, slices, coverage."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ubert_training.accuracy.cells import Cell, CellStore
from ubert_training.accuracy.folds import Fold
from ubert_training.accuracy.pooled_cells import Column, PooledCells
from ubert_training.accuracy.variants import SHUFFLED, UBERT, MeasuredVariant, is_baseline
from ubert_training.evaluation.metrics import Estimate, bootstrap_means, history_slices


@dataclass(frozen=True, kw_only=True)
class ModelErrors:
    """One model. ``mse`` and ``spread`` (standard deviation) are over its ``cells`` finished of ``planned``.

    ``difference``: U-BERT's MSE minus its own, on the pairs that both rated by the same seeds, averaged over these for
    each pair first.
    ``share_of_gain``: of the gain over biases that the texts of a synthetic corpus allow; it can be below 0.
    """

    name: str
    baseline: bool
    cells: int
    planned: int
    mse: float
    spread: float
    difference: Estimate | None
    share_of_gain: float | None
    failure: str | None


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Test pairs by the length of one side's history: U-BERT against the best baseline, and its intervals."""

    side: str
    reviews: str
    pairs: int
    ubert: Estimate
    baseline: Estimate
    difference: Estimate
    coverage: float


@dataclass(frozen=True, kw_only=True)
class PlantedTruth:
    """Errors that a synthetic corpus allows at best, in stars²."""

    best_with_text: float
    best_with_biases: float

    def share_of_gain(self, mse: float) -> float:
        """Of the gain over the best biases that the texts allow; 1 is all of it."""
        return (self.best_with_biases - mse) / (self.best_with_biases - self.best_with_text)


@dataclass(frozen=True, kw_only=True)
class AccuracyReport:
    """All of it. Differences are U-BERT's MSE minus the other's: below 0, U-BERT is better.

    ``difference`` and ``relative`` (as a share of its MSE) are to the best baseline, ``shuffled`` is to U-BERT
    trained on reviews that were shuffled over users and items, ``bias_part`` to its own bias part. ``codes``: how many
    states of this program computed U-BERT's cells. ``pretraining_seeds``: those of ``seeds`` that pre-training, where
    there is one, is drawn with.
    """

    split: str
    folds: int
    seeds: Sequence[int]
    pretraining_seeds: Sequence[int]
    missing: int
    failed: int
    planned: int
    models: Sequence[ModelErrors]
    best_baseline: str | None
    difference: Estimate | None
    relative: float | None
    shuffled: Estimate | None
    bias_part: Estimate | None
    codes: int
    slices: Sequence[Slice]
    coverage: float | None
    truth: PlantedTruth | None

    def model(self, name: str) -> ModelErrors | None:
        """A model by its name, if it has a finished cell."""
        return next((model for model in self.models if model.name == name and model.cells), None)


def summarise(cells: Sequence[Cell], store: CellStore, split: str, truth: PlantedTruth | None) -> AccuracyReport:
    """Read what is finished of the planned ``cells``."""
    folds = {cell.fold.number: cell.fold for cell in cells}
    contenders = {cell.contender.name: cell.contender for cell in cells}
    pooled = {name: PooledCells.of(contender, cells, store) for name, contender in contenders.items()}
    ubert = pooled.get(UBERT)
    shared = [fold for number, fold in folds.items() if ubert is not None and number in ubert.folds]
    best = _best_baseline(pooled.values(), ubert, shared)
    differences = _differences(pooled, folds)
    models = [_model(entry, differences, cells, store, truth) for entry in pooled.values()]
    to_best = differences[best] if best else None
    best_mse = float(pooled[best].beside(pooled[UBERT]).column(shared).mean()) if best else float("nan")
    return AccuracyReport(
        split=split,
        folds=len(folds),
        seeds=sorted({cell.seed for cell in cells}),
        pretraining_seeds=sorted(
            {
                contender.pretraining_seed(cell.seed)
                for cell in cells
                if isinstance(contender := cell.contender, MeasuredVariant)
            }
        ),
        missing=sum(not store.has(cell) and store.failure(cell) is None for cell in cells),
        failed=sum(store.failure(cell) is not None for cell in cells),
        planned=len(cells),
        models=sorted(models, key=lambda model: (model.cells == 0, model.mse)),
        best_baseline=best,
        difference=to_best,
        relative=to_best.value / best_mse if to_best else None,
        shuffled=differences.get(SHUFFLED),
        bias_part=bootstrap_means(ubert.above_bias_part(shared)[:, None])[0] if ubert is not None and shared else None,
        codes=len({ratings.code for ratings in ubert.ratings}) if ubert is not None else 0,
        slices=_slices(pooled[UBERT], pooled[best], shared) if best else [],
        coverage=float(ubert.covered(shared).mean()) if ubert is not None and shared else None,
        truth=truth,
    )


def _best_baseline(pooled: Iterable[PooledCells], ubert: PooledCells | None, shared: Sequence[Fold]) -> str | None:
    """Of those that stand beside U-BERT on each of its folds, ``shared``. Chosen on the test pairs themselves: of
    several equals that favours the baselines, never U-BERT.
    """
    if ubert is None or not shared:
        return None
    besides = (entry.beside(ubert) for entry in pooled if is_baseline(entry.contender))
    competing = [entry for entry in besides if entry.folds == ubert.folds]
    best = min(competing, key=lambda entry: float(entry.column(shared).mean()), default=None)
    return best.contender.name if best is not None else None


def _differences(pooled: Mapping[str, PooledCells], folds: Mapping[int, Fold]) -> dict[str, Estimate]:
    """U-BERT's MSE minus each other's, on the folds and seeds that both have; equal folds are resampled at once."""
    ubert = pooled.get(UBERT)
    if ubert is None:
        return {}
    groups: dict[tuple[int, ...], dict[str, Column]] = {}
    for name, entry in pooled.items():
        mine, theirs = ubert.beside(entry), entry.beside(ubert)
        chosen = [folds[number] for number in sorted(mine.folds)]
        if name != UBERT and chosen:
            by_pair = mine.column(chosen) - theirs.column(chosen)  # (P,)
            groups.setdefault(tuple(fold.number for fold in chosen), {})[name] = by_pair
    differences: dict[str, Estimate] = {}
    for of_group in groups.values():
        columns = np.stack(list(of_group.values()), axis=1)  # (P, models)
        differences |= zip(of_group, bootstrap_means(columns), strict=True)
    return differences


def _model(
    entry: PooledCells,
    differences: Mapping[str, Estimate],
    cells: Sequence[Cell],
    store: CellStore,
    truth: PlantedTruth | None,
) -> ModelErrors:
    mine = [cell for cell in cells if cell.contender is entry.contender]
    failures = [failure for cell in mine if (failure := store.failure(cell)) is not None]
    mses = entry.mses
    mse = float(np.mean(mses)) if mses else float("nan")
    return ModelErrors(
        name=entry.contender.name,
        baseline=is_baseline(entry.contender),
        cells=len(mses),
        planned=len(mine),
        mse=mse,
        spread=float(np.std(mses)) if mses else float("nan"),
        difference=differences.get(entry.contender.name),
        share_of_gain=truth.share_of_gain(mse) if truth is not None and mses else None,
        failure=failures[0] if failures else None,
    )


def _slices(ubert: PooledCells, best: PooledCells, folds: Sequence[Fold]) -> list[Slice]:
    sides: Mapping[str, Callable[[Fold], Column]] = {
        "user": lambda fold: fold.user_counts,
        "item": lambda fold: fold.item_counts,
    }
    errors = np.stack([ubert.beside(best).column(folds), best.beside(ubert).column(folds)], axis=1)  # (P, 2)
    columns = np.concatenate([errors, errors[:, :1] - errors[:, 1:]], axis=1)  # (P, 3)
    covered = ubert.covered(folds)
    slices = []
    for side, counts in sides.items():
        for name, index in history_slices(np.concatenate([counts(fold) for fold in folds])).items():
            mine, theirs, difference = bootstrap_means(columns[index])
            slices.append(
                Slice(
                    side=side,
                    reviews=name,
                    pairs=len(index),
                    ubert=mine,
                    baseline=theirs,
                    difference=difference,
                    coverage=float(covered[index].mean()),
                )
            )
    return slices
