"""Baselines of any library: tuned on the validation part of a split, then used once, to rate its test part."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubert_model.errors import BaselineError
from ubert_training.optimization.loop import improves
from ubert_training.pretraining.corpus_rows import allowed_rows
from ubert_training.reviews.table import ReviewTable, Rows
from ubert_training.running.progress import Advance
from ubert_training.splits import Split

Settings = Mapping[str, Any]
Rate = Callable[[Rows], NDArray[np.float64]]
"""A fitted model: gives the ratings, in stars, of the pairs at these rows."""
Fit = Callable[[Settings, int], Rate]
"""Fits one candidate, given its settings and a seed."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A model to beat. ``prepare`` converts the training part to the library's form, once for all candidates; a library
    that selects its own best epoch also gets the validation part.

    ``grid``: the candidates, a cautious one first. ``seeded``: another seed gives other ratings. ``version``: of the
    library.
    """

    name: str
    library: str
    version: Callable[[], str]
    grid: Sequence[Settings]
    prepare: Callable[[ReviewTable, Split], Fit]
    seeded: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class BaselineRatings:
    """A tuned baseline's ratings of the test part, (P,) in stars, clipped to the scale, and what tuning chose."""

    name: str
    settings: dict[str, Any]
    ratings: NDArray[np.float64]


def tuned(
    baseline: Baseline, table: ReviewTable, split: Split, seed: int, advance: Advance = lambda _: None
) -> BaselineRatings:
    """The candidate of the grid with the least squared error on validation, if that is lower than the first one's by
    more than a standard error, pair by pair; else the first. ``advance`` is called after each.

    So does U-BERT choose its epoch, too: of many candidates, the best on a few hundred pairs is often best by chance.
    Raises ``BaselineError`` if the library is missing or fails, or does not give one finite rating per pair.
    """
    fit = baseline.prepare(table, split)
    truth = table.rating[split.validation].astype(np.float64)

    def candidate(settings: Settings) -> tuple[NDArray[np.float64], Settings, Rate]:
        rate = fit(settings, seed)
        errors = np.square(_checked(baseline, rate, split.validation, table) - truth)
        advance(1)
        return errors, settings, rate

    first = best = candidate(baseline.grid[0])
    for settings in baseline.grid[1:]:
        other = candidate(settings)
        if other[0].mean() < best[0].mean():
            best = other
    _, settings, rate = best if improves(best[0], first[0], standard_errors=1.0) else first
    return BaselineRatings(
        name=baseline.name, settings=dict(settings), ratings=_checked(baseline, rate, split.test, table)
    )


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


def _checked(baseline: Baseline, rate: Rate, rows: Rows, table: ReviewTable) -> NDArray[np.float64]:
    ratings = rate(rows)
    if ratings.shape != rows.shape or not np.isfinite(ratings).all():
        raise BaselineError(f"{baseline.name} ({baseline.library}) does not give one number for each pair")
    return np.clip(ratings, table.scale.lowest, table.scale.highest)
