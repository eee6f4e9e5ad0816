"""Fitting the bias model beneath the network, leaving each pair out of its own statistics."""

import itertools
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from ubert_model.config import RatingScale
from ubert_model.rating.blend import BiasModel
from ubert_model.rating.curve import SEGMENTS, RatingCurve
from ubert_model.rating.deviations import SideBias, UsualDeviations
from ubert_training.finetuning.histories import KnownReviews, PairSums
from ubert_training.reviews.table import Rows

SHRINKAGES = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 50.0)
ELSEWHERE = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Which part of a rating one that the user gave in another domain may count for."""
PAIRS_AT_A_TIME = 65_536
EVENNESS = 10.0
"""How many ratings' worth of evidence there is, before any is seen, that each stretch of the scale counts the same."""


@dataclass(frozen=True, kw_only=True)
class FittedBias:
    """The bias model, and what is usual by its curves."""

    model: BiasModel
    usual: UsualDeviations


def fit_bias_model(known: KnownReviews, pairs: Rows, ratings: NDArray[np.float64], scale: RatingScale) -> FittedBias:
    """The curves and shrinkages with the least leave-one-out squared error on the training pairs.

    Every pair is predicted from statistics that lack it, so this error is honest and no validation part is spent.

    Shape:
        pairs: (P,); ratings: (P,), in stars.
    """
    segments = RatingCurve.segments(scale)
    fits: list[tuple[_Fit, float]] = []
    for elsewhere in ELSEWHERE if known.reads_elsewhere else (0.0,):
        sums = [known.sums(pairs, known.usual(segment, segment, elsewhere=elsewhere)) for segment in segments]
        columns = _Columns.of(sums, ratings)
        fits += [(columns.fit(user, item), elsewhere) for user, item in itertools.product(SHRINKAGES, repeat=2)]
    best, elsewhere = min(fits, key=lambda fit: fit[0].error)
    user_curve, item_curve = (RatingCurve.of_rises(scale, rises.tolist()) for rises in (best.user, best.item))
    usual = known.usual(user_curve, item_curve, elsewhere=elsewhere)
    model = BiasModel(
        mean=float(ratings.mean()),
        intercept=best.intercept,
        user=SideBias(curve=user_curve, mean=usual.user.mean, shrinkage=best.user_shrinkage),
        item=SideBias(curve=item_curve, mean=usual.item.mean, shrinkage=best.item_shrinkage),
    )
    return FittedBias(model=model, usual=usual)


def bias_ratings(model: BiasModel, sums: PairSums) -> NDArray[np.float64]:
    """The bias model's rating of each pair, (P,), in stars, not clipped; the mean leaves each pair's own rating out."""
    return model.rate(sums.user, sums.item, sums.mean)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fit:
    error: float
    intercept: float
    user: NDArray[np.float64]
    """Rises, (S,), in stars."""
    item: NDArray[np.float64]
    user_shrinkage: float
    item_shrinkage: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Columns:
    """All that any of the fits reads of P pairs, in few rows: least squares over the rows of a matrix are those over
    the triangle of its QR factors, and so it is for any of its columns.

    Shape:
        triangle: (C, C), C = 2 + 2·S·len(SHRINKAGES): ones, the user's segments by shrinkage, the item's, the target.
    """

    triangle: NDArray[np.float64]

    @classmethod
    def of(cls, sums: list[PairSums], ratings: NDArray[np.float64]) -> Self:
        """Some pairs at a time, so that the columns are never held whole."""
        triangle = np.zeros((0, 2 + 2 * SEGMENTS * len(SHRINKAGES)))
        for start in range(0, len(ratings), PAIRS_AT_A_TIME):
            some = slice(start, start + PAIRS_AT_A_TIME)
            target = (ratings - sums[0].mean)[some]
            sides = [
                side.shrunk_deviation(shrinkage)[some]
                for of_side in ([one.user for one in sums], [one.item for one in sums])
                for shrinkage in SHRINKAGES
                for side in of_side
            ]
            columns = np.stack([np.ones(len(target)), *sides, target], axis=1)
            triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, columns]), mode="r"))
        return cls(triangle=triangle)

    def fit(self, user_shrinkage: float, item_shrinkage: float) -> _Fit:
        """By least squares, for given shrinkages.

        Within one user, a high mean of the other ratings means that the target was low: their sum is fixed. On few
        entities a negative rise would exploit that, so rises stay at or above 0; and curves never decrease.
        """
        user = 1 + SEGMENTS * SHRINKAGES.index(user_shrinkage)
        item = 1 + SEGMENTS * (len(SHRINKAGES) + SHRINKAGES.index(item_shrinkage))
        segments = np.arange(SEGMENTS)
        chosen = self.triangle[:, np.r_[0, user + segments, item + segments, -1]]
        triangle = np.asarray(np.linalg.qr(chosen, mode="r"))
        even = np.sqrt(EVENNESS) * (np.eye(SEGMENTS) - 1 / SEGMENTS)
        pulls = np.zeros((2 * SEGMENTS, 1 + 2 * SEGMENTS))
        pulls[:SEGMENTS, 1 : 1 + SEGMENTS] = even
        pulls[SEGMENTS:, 1 + SEGMENTS :] = even
        solution = lsq_linear(
            np.concatenate([triangle[:, :-1], pulls]),
            np.concatenate([triangle[:, -1], np.zeros(len(pulls))]),
            bounds=(np.r_[-np.inf, np.zeros(2 * SEGMENTS)], np.inf),
        ).x
        return _Fit(
            error=float(np.square(triangle[:, :-1] @ solution - triangle[:, -1]).sum()),
            intercept=float(solution[0]),
            user=solution[1 : 1 + SEGMENTS],
            item=solution[1 + SEGMENTS :],
            user_shrinkage=user_shrinkage,
            item_shrinkage=item_shrinkage,
        )
