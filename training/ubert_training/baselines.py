"""What a rating prediction has to beat, each tuned on the validation part of the same split (Surprise)."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from surprise import SVD, AlgoBase, BaselineOnly, Dataset, Reader, SVDpp

from ubert_training.reviews.table import ReviewTable
from ubert_training.splits import Split

REGULARISATIONS = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class BaselineRatings:
    """A tuned baseline's ratings of the test part, (P,) in stars, clipped to the scale, and what tuning chose."""

    name: str
    settings: dict[str, Any]
    ratings: NDArray[np.float64]


def baseline_ratings(table: ReviewTable, split: Split, seed: int) -> Iterator[BaselineRatings]:
    """Mean, user and item bias, SVD, SVD++, in this order; the test part is rated once, by the tuned model."""
    mean = float(table.rating[split.train].mean(dtype=np.float64))
    yield BaselineRatings(name="mean", settings={}, ratings=np.full(len(split.test), mean))
    trainset = Dataset(Reader(rating_scale=(table.scale.lowest, table.scale.highest))).construct_trainset(
        [(*_pair(table, row), float(table.rating[row]), None) for row in split.train.tolist()]
    )
    for name, candidates in (("user + item bias", _biases), ("SVD", _svd(SVD, seed)), ("SVD++", _svd(SVDpp, seed))):
        yield _tuned(name, candidates, trainset, table, split)


Candidates = Callable[[], Iterator[tuple[dict[str, Any], AlgoBase]]]


def _biases() -> Iterator[tuple[dict[str, Any], AlgoBase]]:
    for user, item in itertools.product(REGULARISATIONS, repeat=2):
        settings = {"method": "als", "reg_u": user, "reg_i": item, "n_epochs": 10}
        yield settings, BaselineOnly(bsl_options=settings, verbose=False)


def _svd(algorithm: type[AlgoBase], seed: int) -> Candidates:
    def candidates() -> Iterator[tuple[dict[str, Any], AlgoBase]]:
        for factors, regularisation, epochs in itertools.product((10, 50), (0.02, 0.1), (20, 40)):
            settings = {"n_factors": factors, "reg_all": regularisation, "n_epochs": epochs}
            yield settings, algorithm(**settings, random_state=seed)

    return candidates


def _tuned(name: str, candidates: Candidates, trainset: Any, table: ReviewTable, split: Split) -> BaselineRatings:
    """The candidate with the least squared error on validation."""
    truth = table.rating[split.validation].astype(np.float64)

    def error(algorithm: AlgoBase) -> float:
        algorithm.fit(trainset)
        return float(np.square(_rate(algorithm, table, split.validation) - truth).mean())

    settings, best = min(candidates(), key=lambda candidate: error(candidate[1]))
    return BaselineRatings(name=name, settings=settings, ratings=_rate(best, table, split.test))


def _rate(algorithm: AlgoBase, table: ReviewTable, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.array([algorithm.predict(*_pair(table, row), clip=True).est for row in rows.tolist()])


def _pair(table: ReviewTable, row: int) -> tuple[str, str]:
    return table.user[row], table.item[row]
