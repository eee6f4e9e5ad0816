"""Mean, user and item bias, SVD and SVD++ (Surprise)."""

from collections.abc import Callable

import numpy as np
from surprise import SVD, AlgoBase, BaselineOnly, Dataset, Reader, SVDpp

from ubert_training.baselines.tuning import Baseline, Fit, Rate, Settings, combinations, user_and_item, version_of
from ubert_training.reviews.table import ReviewTable
from ubert_training.splits import Split

REGULARISATIONS = (5.0, 0.5, 1.0, 2.0, 3.0, 8.0, 12.0, 20.0)
"""The first is kept unless another is better by a standard error, as everywhere in a grid."""
LENGTHS = ({"n_epochs": 20}, {"n_epochs": 40}, {"n_epochs": 80, "lr_all": 0.02})
"""From little training, the best where ratings hardly depend on the match of user and item, to much. Without ``lr_all``
Surprise takes 0.005 for SVD and 0.007 for SVD++.
"""
FACTORISATIONS = tuple(
    {**shape, **length} for shape in combinations(n_factors=(10, 50), reg_all=(0.8, 0.1, 0.02)) for length in LENGTHS
)


def surprise_baselines() -> tuple[Baseline, ...]:
    """Mean, user and item bias, SVD, SVD++: the baselines that need no optional library."""
    biases = combinations(method=("als",), reg_u=REGULARISATIONS, reg_i=REGULARISATIONS, n_epochs=(10,))
    return (
        Baseline(name="mean", library="numpy", version=_numpy, grid=({},), prepare=_mean, seeded=False),
        _surprise("user + item bias", _bias, biases, seeded=False),
        _surprise("SVD", _factorisation(SVD), FACTORISATIONS),
        _surprise("SVD++", _factorisation(SVDpp), FACTORISATIONS),
    )


def _mean(table: ReviewTable, split: Split) -> Fit:
    mean = float(table.rating[split.train].mean(dtype=np.float64))
    return lambda _settings, _seed: lambda rows: np.full(len(rows), mean)


def _surprise(
    name: str, make: Callable[[Settings, int], AlgoBase], grid: tuple[Settings, ...], *, seeded: bool = True
) -> Baseline:
    def prepare(table: ReviewTable, split: Split) -> Fit:
        trainset = Dataset(Reader(rating_scale=(table.scale.lowest, table.scale.highest))).construct_trainset(
            [(*user_and_item(table, row), float(table.rating[row]), None) for row in split.train.tolist()]
        )

        def fit(settings: Settings, seed: int) -> Rate:
            algorithm = make(settings, seed).fit(trainset)
            return lambda rows: np.array([algorithm.predict(*user_and_item(table, row)).est for row in rows.tolist()])

        return fit

    return Baseline(
        name=name,
        library="Surprise",
        version=lambda: version_of("scikit-surprise"),
        grid=grid,
        prepare=prepare,
        seeded=seeded,
        cross_validated=True,
    )


def _bias(settings: Settings, _seed: int) -> AlgoBase:
    return BaselineOnly(bsl_options=dict(settings), verbose=False)


def _factorisation(algorithm: type[AlgoBase]) -> Callable[[Settings, int], AlgoBase]:
    return lambda settings, seed: algorithm(**settings, random_state=seed)


def _numpy() -> str:
    return np.__version__
