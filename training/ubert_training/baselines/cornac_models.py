"""Factorisations and review models of Cornac, an optional library: PMF, biased MF, HFT, NARRE and HRDR.

Only training reviews reach it, so the review of a rated pair is never an input. In training, NARRE and HRDR do read
the target review among the others, as published.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

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

LIBRARY = "Cornac"
MOST_WORDS = 2000
"""Vocabulary of HFT, whose sampler visits every word of every review in Python."""
HFT_LENGTH: Mapping[str, tuple[int, ...]] = MappingProxyType({"k": (10,), "max_iter": (10,), "grad_iter": (10,)})
"""Its objective visits every user and item in Python, too: more rounds cost minutes per candidate."""
NEURAL: Settings = MappingProxyType(
    {"n_factors": 32, "max_num_review": 10, "max_text_length": 50, "model_selection": "best", "user_based": False}
)
"""Settings of NARRE and HRDR, such as reviews per side and words per review. The library keeps the epoch with the least
squared error on validation; HRDR's is one of the first."""
Make = Callable[[Any, Settings, int, Any], Any]
"""(the module ``cornac.models``, settings, seed, training set) → a recommender to fit."""

NOT_COMPARED: Mapping[str, str] = MappingProxyType(
    {
        "GMF and NeuMF": "Cornac trains them on clicks and sampled non-clicks: they predict probabilities, not ratings",
        "DeepCoNN": "in no maintained library; Cornac has NARRE, which the paper finds better",
        "RMG, AHN and DAML": "in no maintained library",
    }
)
"""Models of the literature that are left out, and why."""


def cornac_baselines() -> tuple[Baseline, ...]:
    """Cornac's rating predictors; a missing library raises only when one of them is prepared or fitted."""
    return (
        _cornac(
            "PMF",
            _plain("PMF"),
            combinations(
                variant=("linear", "non_linear"),
                k=(10,),
                lambda_reg=(0.001, 0.01, 0.1),
                learning_rate=(0.001, 0.005),
                max_iter=(300, 1000),
            ),
        ),
        _cornac(
            "biased MF",
            _plain("MF", use_bias=True),
            combinations(k=(10,), lambda_reg=(0.8, 0.1, 0.02), learning_rate=(0.005, 0.01), max_iter=(20, 50, 200)),
            cross_validated=True,
        ),
        _cornac("HFT", _hft, combinations(lambda_text=(0.5, 2.0), l2_reg=(5.0, 20.0), **HFT_LENGTH), text="item"),
        _cornac("NARRE", _plain("NARRE"), ({**NEURAL, "max_iter": 8},), text="review", validates=True),
        _cornac("HRDR", _plain("HRDR"), ({**NEURAL, "max_iter": 3},), text="review", validates=True),
    )


def _cornac(
    name: str,
    make: Make,
    grid: Sequence[Settings],
    *,
    text: str | None = None,
    validates: bool = False,
    cross_validated: bool = False,
) -> Baseline:
    """``text``: how the model reads reviews: ``item`` (one document per item), ``review``, or not at all (None).
    ``validates``: it reads the validation part while it trains. ``cross_validated`` as in :class:`Baseline`.
    """

    def prepare(table: ReviewTable, split: Split) -> Fit:
        with library_errors(name, LIBRARY):
            importlib.import_module("cornac")
            training = _training_set(table, split.train, text)
            validation = _validation_set(table, split.validation, training) if validates else None

        def fit(settings: Settings, seed: int) -> Rate:
            with library_errors(name, LIBRARY):
                # HFT draws from numpy's global generator, whatever its seed.
                np.random.seed(seed)
                model = make(importlib.import_module("cornac.models"), settings, seed, training)
                model.fit(training, validation)
            return lambda rows: _ratings(name, model, table, rows)

        return fit

    return Baseline(
        name=name,
        library=LIBRARY,
        version=lambda: version_of("cornac"),
        grid=grid,
        prepare=prepare,
        cross_validated=cross_validated,
    )


def _plain(model: str, **fixed: Any) -> Make:
    return lambda models, settings, seed, _: getattr(models, model)(**fixed, **settings, seed=seed, verbose=False)


def _hft(models: Any, settings: Settings, seed: int, training: Any) -> Any:
    return models.HFT(**settings, vocab_size=training.item_text.vocab.size, seed=seed, verbose=False)


def _training_set(table: ReviewTable, train: Rows, text: str | None) -> Any:
    cornac_data = importlib.import_module("cornac.data")
    rows = list({user_and_item(table, row): row for row in train.tolist()}.values())  # the newest of each pair
    training = cornac_data.Dataset.from_uir(_rated(table, rows))
    if text is not None:
        reviews = cornac_data.ReviewModality(
            data=[(*user_and_item(table, row), table.text[row]) for row in rows],
            group_by="item" if text == "item" else None,
            max_vocab=MOST_WORDS,
        )
        reviews.build(uid_map=training.uid_map, iid_map=training.iid_map, dok_matrix=training.dok_matrix)
        training.add_modalities(**{f"{text}_text": reviews})
    return training


def _validation_set(table: ReviewTable, rows: Rows, training: Any) -> Any:
    """The pairs whose user and item are in training, numbered as there."""
    return importlib.import_module("cornac.data").Dataset.build(
        _rated(table, rows.tolist()),
        global_uid_map=dict(training.uid_map),
        global_iid_map=dict(training.iid_map),
        exclude_unknowns=True,
    )


def _rated(table: ReviewTable, rows: Iterable[int]) -> list[tuple[str, str, float]]:
    return [(*user_and_item(table, row), float(table.rating[row])) for row in rows]


def _ratings(name: str, model: Any, table: ReviewTable, rows: Rows) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Users and items that training lacks get the library's default, the mean."""
    with library_errors(name, LIBRARY):
        pairs = (user_and_item(table, row) for row in rows.tolist())
        rated = [
            model.rate(model.uid_map.get(user, -1), model.iid_map.get(item, -1), clipping=False) for user, item in pairs
        ]
        return np.array([np.asarray(rating).item() for rating in rated])  # some models give arrays of one number
