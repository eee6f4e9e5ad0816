"""Fitting the bias model beneath the network, leaving each pair out of its own statistics."""

import itertools
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from ubert_model.config import RatingScale
from ubert_model.deviations import SideBias, UsualDeviations
from ubert_model.rating import BiasModel
from ubert_model.rating_curve import SEGMENTS, RatingCurve
from ubert_training.finetuning.histories import KnownReviews, PairSums, Rows

SHRINKAGES = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 50.0)
ELSEWHERE = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Which part of a rating one that the user gave in another domain may count for."""
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
        shrinkages = itertools.product(SHRINKAGES, repeat=2)
        fits += [(_Fit.of(sums, ratings, user, item), elsewhere) for user, item in shrinkages]
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

    @classmethod
    def of(
        cls, sums: list[PairSums], ratings: NDArray[np.float64], user_shrinkage: float, item_shrinkage: float
    ) -> Self:
        """By least squares, for given shrinkages.

        Within one user, a high mean of the other ratings means that the target was low: their sum is fixed. On few
        entities a negative rise would exploit that, so rises stay at or above 0; and curves never decrease.
        """
        user = [one.user.shrunk_deviation(user_shrinkage) for one in sums]
        item = [one.item.shrunk_deviation(item_shrinkage) for one in sums]
        inputs = np.stack([np.ones(len(ratings)), *user, *item], axis=1)  # (P, 1 + 2 S)
        target = ratings - sums[0].mean
        # The same least squares in few rows.
        triangle = np.asarray(np.linalg.qr(np.column_stack([inputs, target]), mode="r"))
        even = np.sqrt(EVENNESS) * (np.eye(SEGMENTS) - 1 / SEGMENTS)
        pulls = np.zeros((2 * SEGMENTS, inputs.shape[1]))
        pulls[:SEGMENTS, 1 : 1 + SEGMENTS] = even
        pulls[SEGMENTS:, 1 + SEGMENTS :] = even
        solution = lsq_linear(
            np.concatenate([triangle[:, :-1], pulls]),
            np.concatenate([triangle[:, -1], np.zeros(len(pulls))]),
            bounds=(np.r_[-np.inf, np.zeros(2 * SEGMENTS)], np.inf),
        ).x
        return cls(
            error=float(np.square(inputs @ solution - target).mean()),
            intercept=float(solution[0]),
            user=solution[1 : 1 + SEGMENTS],
            item=solution[1 + SEGMENTS :],
            user_shrinkage=user_shrinkage,
            item_shrinkage=item_shrinkage,
        )
