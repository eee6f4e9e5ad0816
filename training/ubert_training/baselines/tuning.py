"""Baselines of any library: tuned without the test part of a split, then used once, to rate it."""

import contextlib
import importlib.metadata
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubert_training.errors import BaselineError
from ubert_training.optimization.loop import improves
from ubert_training.pretraining.corpus_rows import allowed_rows
from ubert_training.reviews.table import ReviewTable, Rows
from ubert_training.running.progress import Advance
from ubert_training.splits import Split, k_fold_splits

Settings = Mapping[str, Any]
Rate = Callable[[Rows], NDArray[np.float64]]
"""A fitted model: gives the ratings, in stars, of the pairs at these rows."""
Fit = Callable[[Settings, int], Rate]
"""Fits one candidate, given its settings and a seed."""

INNER_FOLDS = 3
ENOUGH_PAIRS = 10_000
"""A validation part of this size tells candidates apart without cross-validation."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A model to beat. ``prepare`` converts the training part to the library's form, once for all candidates; a library
    that selects its own best epoch also gets the validation part.

    ``grid``: the candidates, a cautious one first. ``seeded``: another seed gives other ratings. ``version``: of the
    library. ``cross_validated``: so quickly fitted that its candidates are also compared on folds of the training part.
    """

    name: str
    library: str
    version: Callable[[], str]
    grid: Sequence[Settings]
    prepare: Callable[[ReviewTable, Split], Fit]
    seeded: bool = True
    cross_validated: bool = False

    @property
    def compares_on_folds(self) -> bool:
        """Are there candidates to compare, on folds of the training part too?"""
        return self.cross_validated and len(self.grid) > 1


@dataclass(frozen=True, kw_only=True, eq=False)
class BaselineRatings:
    """A tuned baseline's ratings of the test part, (P,) in stars, clipped to the scale, and what tuning chose."""

    name: str
    settings: dict[str, Any]
    ratings: NDArray[np.float64]


def tuned(
    baseline: Baseline, table: ReviewTable, split: Split, seed: int, advance: Advance = lambda _: None
) -> BaselineRatings:
    """The candidate of the grid with the least squared error on held-out pairs, if that is lower than the first one's
    by more than a standard error, pair by pair; else the first. ``advance`` is called after each. ``seed`` has no
    effect on a baseline that is not seeded.

    Held out is the validation part, and if that is small and the baseline ``cross_validated``, each fold of the
    training part in turn: of many candidates, the best on a few hundred pairs is often best by chance. The ratings are
    those of the candidate as fitted on the whole training part.
    Raises ``BaselineError`` if the library is missing or fails, or does not give one finite rating per pair.
    """
    seed = seed if baseline.seeded else 0
    splits = [split, *(_inner_splits(table, split, seed) if baseline.compares_on_folds else ())]
    fits = [baseline.prepare(table, part) for part in splits]
    truth = table.rating[np.concatenate([part.validation for part in splits])].astype(np.float64)

    def candidate(settings: Settings) -> tuple[NDArray[np.float64], Settings, Rate]:
        rates = [fit(settings, seed) for fit in fits]
        held_out = zip(rates, splits, strict=True)
        rated = [_checked(baseline, rate, part.validation, table) for rate, part in held_out]
        advance(1)
        return np.square(np.concatenate(rated) - truth), settings, rates[0]

    first = best = candidate(baseline.grid[0])
    for settings in baseline.grid[1:]:
        other = candidate(settings)
        if other[0].mean() < best[0].mean():
            best = other
    _, settings, rate = best if improves(best[0], first[0], standard_errors=1.0) else first
    return BaselineRatings(
        name=baseline.name, settings=dict(settings), ratings=_checked(baseline, rate, split.test, table)
    )


def _inner_splits(table: ReviewTable, split: Split, seed: int) -> list[Split]:
    """The folds of the training part, each in turn the validation part; none if there is enough validation or too
    little training. What the split itself holds out stays out of training and validation.
    """
    pairs = {user_and_item(table, row) for row in split.train.tolist()}
    if len(split.validation) >= ENOUGH_PAIRS or len(pairs) < INNER_FOLDS:
        return []
    held_out = np.union1d(split.validation, split.test)
    return [
        replace(split, train=np.union1d(fold.train, fold.validation), validation=fold.test, test=held_out)
        for fold in k_fold_splits(table, split.train, INNER_FOLDS, seed)
    ]


def with_other_domains(baseline: Baseline) -> Baseline:
    """The same baseline, also trained on all that pre-training may read in other domains: what a model that has read
    there is to be compared with. Its ``prepare`` raises ``BaselineError`` if there is nothing to read.
    """

    def prepare(table: ReviewTable, split: Split) -> Fit:
        elsewhere = allowed_rows(table, split, "other-domains")
        if not len(elsewhere):
            raise BaselineError("the target's users wrote nothing in other domains that may be read")
        return baseline.prepare(table, replace(split, train=np.union1d(split.train, elsewhere)))

    return replace(baseline, name=f"{baseline.name} with other domains", prepare=prepare)


def combinations(**choices: Iterable[Any]) -> tuple[Settings, ...]:
    """Every combination of the choices; the first varies slowest."""
    return tuple(dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values()))


def user_and_item(table: ReviewTable, row: int) -> tuple[str, str]:
    """The identifiers of the pair at a row, as libraries take them."""
    return table.user[row], table.item[row]


@contextlib.contextmanager
def library_errors(name: str, library: str) -> Iterator[None]:
    """Raise whatever fails inside an optional library as ``BaselineError``: it is reported, and does not end a
    comparison. The library's warnings (on how Keras traces a layer, say) are suppressed.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except Exception as error:
        raise BaselineError(f"{name} ({library}): {type(error).__name__}: {error}") from error


def version_of(distribution: str) -> str:
    """The installed version of a library, for the record."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _checked(baseline: Baseline, rate: Rate, rows: Rows, table: ReviewTable) -> NDArray[np.float64]:
    ratings = rate(rows)
    if ratings.shape != rows.shape or not np.isfinite(ratings).all():
        raise BaselineError(f"{baseline.name} ({baseline.library}) does not give one number for each pair")
    return np.clip(ratings, table.scale.lowest, table.scale.highest)
