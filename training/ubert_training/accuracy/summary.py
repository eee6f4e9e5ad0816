"""Summary of the finished cells: errors by model, differences on the same pairs, slices, coverage."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ubert_training.accuracy.cells import Cell, CellStore
from ubert_training.accuracy.folds import Fold
from ubert_training.accuracy.pooled_cells import Column, PooledCells
from ubert_training.accuracy.variants import SHUFFLED, UBERT, MeasuredVariant, is_baseline
from ubert_training.evaluation.metrics import Estimate, bootstrap_means, history_slices, prediction_slices


@dataclass(frozen=True, kw_only=True)
class ModelErrors:
    """One model. ``mse``, its ``spread`` (standard deviation of a sample, NaN below two) and ``mae`` are over its
    finished ``cells`` of those ``planned``.

    ``difference``: U-BERT's MSE minus this one's, on the pairs that both rated by the same seeds; each pair's errors
    are averaged over these first.
    ``share_of_gain``: of the gain over biases that the texts of a synthetic corpus allow; it can be below 0.
    """

    name: str
    baseline: bool
    cells: int
    planned: int
    mse: float
    spread: float
    mae: float
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
class PredictionSlice:
    """Test pairs that U-BERT predicts alike, and the share whose ratings its intervals hold."""

    predicted: str
    pairs: int
    coverage: float


@dataclass(frozen=True, kw_only=True)
class PlantedTruth:
    """The least errors that a synthetic corpus allows, in stars²."""

    best_with_text: float
    best_with_biases: float

    def share_of_gain(self, mse: float) -> float:
        """Share of the gain over the best biases that the texts allow; 1 is all of it."""
        return (self.best_with_biases - mse) / (self.best_with_biases - self.best_with_text)


@dataclass(frozen=True, kw_only=True)
class AccuracyReport:
    """The whole comparison. Differences are U-BERT's MSE minus the other's: below 0, U-BERT is better.

    ``difference`` and ``relative`` (as a share of its MSE) are to the best baseline, ``shuffled`` is to U-BERT
    trained on reviews that were shuffled over users and items, ``bias_part`` to its own bias part. ``codes``: how many
    versions of this program computed the cells of U-BERT and its variants. ``folds_seed`` dealt out the folds (None: a
    split by time). ``pretraining_seeds``: those that pre-training uses.
    """

    split: str
    folds: int
    folds_seed: int | None
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
    coverage_by_prediction: Sequence[PredictionSlice]
    truth: PlantedTruth | None

    def model(self, name: str) -> ModelErrors | None:
        """The model of that name, if it has a finished cell."""
        return next((model for model in self.models if model.name == name and model.cells), None)


def summarise(cells: Sequence[Cell], store: CellStore, split: str, truth: PlantedTruth | None) -> AccuracyReport:
    """Summarise the finished ones of the planned ``cells``."""
    folds = {cell.fold.number: cell.fold for cell in cells}
    contenders = {cell.contender.name: cell.contender for cell in cells}
    pooled = {name: PooledCells.of(contender, cells, store) for name, contender in contenders.items()}
    ubert = pooled.get(UBERT)
    shared = [fold for number, fold in folds.items() if ubert is not None and number in ubert.folds]
    best = _best_baseline(pooled.values(), ubert, shared)
    differences = _differences(pooled, folds)
    models = [_model_errors(entry, differences, cells, folds, store, truth) for entry in pooled.values()]
    to_best = differences[best] if best else None
    best_mse = float(pooled[best].matching(pooled[UBERT]).squared_errors(shared).mean()) if best else float("nan")
    return AccuracyReport(
        split=split,
        folds=len(folds),
        folds_seed=cells[0].fold.split.seed,
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
        relative=_share(to_best.value, best_mse) if to_best else None,
        shuffled=differences.get(SHUFFLED),
        bias_part=bootstrap_means(ubert.above_bias_part(shared)[:, None])[0] if ubert is not None and shared else None,
        codes=len(
            {ratings.code for entry in pooled.values() if not is_baseline(entry.contender) for ratings in entry.ratings}
        ),
        slices=_slices(pooled[UBERT], pooled[best], shared) if best else [],
        coverage=float(ubert.covered(shared).mean()) if ubert is not None and shared else None,
        coverage_by_prediction=_by_prediction(ubert, shared) if ubert is not None and shared else [],
        truth=truth,
    )


def _share(difference: float, mse: float) -> float:
    """The difference as a share of the MSE; of an MSE of 0, as where all ratings are the same, nothing or infinite."""
    if mse:
        return difference / mse
    return math.inf if difference else 0.0


def _best_baseline(pooled: Iterable[PooledCells], ubert: PooledCells | None, shared: Sequence[Fold]) -> str | None:
    """The best baseline among those measured on each of U-BERT's folds, ``shared``. It is chosen on the test pairs
    themselves, which favours the baselines, never U-BERT.
    """
    if ubert is None or not shared:
        return None
    matching = (entry.matching(ubert) for entry in pooled if is_baseline(entry.contender))
    competing = [entry for entry in matching if entry.folds == ubert.folds]
    best = min(competing, key=lambda entry: float(entry.squared_errors(shared).mean()), default=None)
    return best.contender.name if best is not None else None


def _differences(pooled: Mapping[str, PooledCells], folds: Mapping[int, Fold]) -> dict[str, Estimate]:
    """U-BERT's MSE minus each other's, on the folds and seeds that both have; models with equal folds share the
    resamples.
    """
    ubert = pooled.get(UBERT)
    if ubert is None:
        return {}
    groups: dict[tuple[int, ...], dict[str, Column]] = {}
    for name, entry in pooled.items():
        mine, theirs = ubert.matching(entry), entry.matching(ubert)
        common = [folds[number] for number in sorted(mine.folds)]
        if name != UBERT and common:
            by_pair = mine.squared_errors(common) - theirs.squared_errors(common)  # (P,)
            groups.setdefault(tuple(fold.number for fold in common), {})[name] = by_pair
    differences: dict[str, Estimate] = {}
    for group in groups.values():
        columns = np.stack(list(group.values()), axis=1)  # (P, models)
        differences |= zip(group, bootstrap_means(columns), strict=True)
    return differences


def _model_errors(
    entry: PooledCells,
    differences: Mapping[str, Estimate],
    cells: Sequence[Cell],
    folds: Mapping[int, Fold],
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
        spread=float(np.std(mses, ddof=1)) if len(mses) > 1 else float("nan"),
        mae=float(np.mean(entry.maes(folds))) if mses else float("nan"),
        difference=differences.get(entry.contender.name),
        share_of_gain=truth.share_of_gain(mse) if truth is not None and mses else None,
        failure=failures[0] if failures else None,
    )


def _slices(ubert: PooledCells, best: PooledCells, folds: Sequence[Fold]) -> list[Slice]:
    sides: Mapping[str, Callable[[Fold], Column]] = {
        "user": lambda fold: fold.user_counts,
        "item": lambda fold: fold.item_counts,
    }
    mine, theirs = ubert.matching(best).squared_errors(folds), best.matching(ubert).squared_errors(folds)  # (P,)
    columns = np.stack([mine, theirs, mine - theirs], axis=1)  # (P, 3)
    covered = ubert.covered(folds)
    slices = []
    for side, counts in sides.items():
        for name, index in history_slices(np.concatenate([counts(fold) for fold in folds])).items():
            of_ubert, of_baseline, difference = bootstrap_means(columns[index])
            slices.append(
                Slice(
                    side=side,
                    reviews=name,
                    pairs=len(index),
                    ubert=of_ubert,
                    baseline=of_baseline,
                    difference=difference,
                    coverage=float(covered[index].mean()),
                )
            )
    return slices


def _by_prediction(ubert: PooledCells, folds: Sequence[Fold]) -> list[PredictionSlice]:
    covered = ubert.covered(folds)
    return [
        PredictionSlice(predicted=name, pairs=len(index), coverage=float(covered[index].mean()))
        for name, index in prediction_slices(ubert.predicted(folds)).items()
    ]
