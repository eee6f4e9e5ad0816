"""A small table, contenders that are not trained, and their cells, for tests of `ubert bench accuracy`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from support.small_corpus import small_table
from ubert_model.config import RatingScale
from ubert_training.accuracy.bench import compute_cells, ordered_cells
from ubert_training.accuracy.cells import Cell, CellRatings, CellStore, Contender
from ubert_training.accuracy.folds import Fold
from ubert_training.accuracy.summary import AccuracyReport, summarise
from ubert_training.accuracy.variants import VARIANTS, MeasuredBaseline
from ubert_training.baselines.surprise_models import surprise_baselines
from ubert_training.errors import BaselineError
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.recipes.recipe import Recipe

TABLE = small_table(users=40)
ROWS = np.arange(len(TABLE))
MEAN, BIAS = surprise_baselines()[:2]
MEASURED_MEAN = MeasuredBaseline(baseline=MEAN, round=0)
VARIANT = {variant.name: variant for variant in VARIANTS}
TINY = Recipe.of_preset("tiny", RatingScale())
LEXICON = Lexicon(words=frozenset({"good"}), source="the test")


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A contender that is not trained: its squared errors are the mean baseline's plus ``above``, plus ``per_seed``
    times the seed, plus some noise; ``coverage`` is the share of the pairs whose interval holds the rating.
    """

    name: str
    above: float = 0.0
    per_seed: float = 0.0
    coverage: float = 1.0
    round: int = 0
    seeded: bool = True
    fails: bool = False
    code_per_seed: bool = False

    def inputs(self, fold: Fold, seed: int) -> Mapping[str, Any]:
        return {"planted": self.name}

    def rate(self, fold: Fold, seed: int) -> CellRatings:
        if self.fails:
            raise BaselineError("the library is missing")
        squared = np.square(fold.truth - float(TABLE.rating[fold.split.train].mean(dtype=np.float64)))
        noise = np.random.default_rng([seed, fold.number]).normal(0, 0.01, len(squared))
        squared_errors = squared + self.above + seed * self.per_seed + noise
        return CellRatings(
            squared_errors=squared_errors,
            predicted=fold.truth + np.sqrt(np.abs(squared_errors)),
            covered=np.arange(len(squared)) < self.coverage * len(squared),
            bias_squared_errors=squared + 1.0,
            code=f"code of seed {seed if self.code_per_seed else 0}",
        )


def computed(tmp_path: Path, folds: list[Fold], *contenders: Contender) -> tuple[list[Cell], CellStore]:
    store = CellStore(tmp_path / "cells")
    cells = ordered_cells(folds, [0, 1], [MEASURED_MEAN, *contenders])
    compute_all(cells, store)
    return cells, store


def compute_all(cells: Sequence[Cell], store: CellStore) -> list[Cell]:
    """Compute the cells that the store lacks; returns these."""
    begun: list[Cell] = []
    compute_cells(cells, store, until=float("inf"), began=begun.append, ended=lambda _: None)
    return begun


def report_of(tmp_path: Path, folds: list[Fold], *contenders: Contender) -> AccuracyReport:
    return summarise(*computed(tmp_path, folds, *contenders), "folds", None)
