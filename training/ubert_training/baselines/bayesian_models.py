"""A Bayesian factorisation machine over users and items, by myFM, an optional library."""

import contextlib
import importlib
import io
from typing import Any

import numpy as np
from sklearn.preprocessing import OneHotEncoder

from ubert_training.baselines.tuning import (
    Baseline,
    Fit,
    Rate,
    Settings,
    combinations,
    library_errors,
    user_and_item,
    version_of,
)
from ubert_training.reviews.table import ReviewTable, Rows
from ubert_training.splits import Split

NAME, LIBRARY = "Bayesian FM", "myFM"
ITERATIONS = 300
KEPT_SAMPLES = 225
"""The last of the Gibbs sampler's iterations, over which ratings are averaged."""
MOST_LEVELS = 20
"""An ordered probit has a threshold between any two neighbouring ratings; a finer scale is regressed on."""


def bayesian_baselines() -> tuple[Baseline, ...]:
    """Users and items alone, with biases and ``rank`` factors; the sampler finds how much to regularise by itself."""
    return (
        Baseline(
            name=NAME,
            library=LIBRARY,
            version=lambda: version_of("myfm"),
            grid=combinations(rank=(0, 4, 8)),
            prepare=_prepare,
            cross_validated=True,
        ),
    )


def _prepare(table: ReviewTable, split: Split) -> Fit:
    ratings = table.rating[split.train].astype(np.float64)
    levels, level = np.unique(ratings, return_inverse=True)
    encoder = OneHotEncoder(handle_unknown="ignore")  # of someone unknown: nothing
    features = encoder.fit_transform(_pairs(table, split.train))
    sampling = {
        "n_iter": ITERATIONS,
        "n_kept_samples": KEPT_SAMPLES,
        "group_shapes": [len(names) for names in encoder.categories_],
    }

    def fit(settings: Settings, seed: int) -> Rate:
        with library_errors(NAME, LIBRARY), contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            myfm = importlib.import_module("myfm")
            if len(levels) <= MOST_LEVELS:
                probit = myfm.MyFMOrderedProbit(**settings, random_seed=seed).fit(features, level, **sampling)
                return lambda rows: probit.predict_proba(encoder.transform(_pairs(table, rows))) @ levels
            machine = myfm.MyFMRegressor(**settings, random_seed=seed).fit(features, ratings, **sampling)
            return lambda rows: machine.predict(encoder.transform(_pairs(table, rows)))

    return fit


def _pairs(table: ReviewTable, rows: Rows) -> Any:
    """User and item of each row, (P, 2) objects."""
    return np.array([user_and_item(table, row) for row in rows.tolist()], dtype=object).reshape(-1, 2)
