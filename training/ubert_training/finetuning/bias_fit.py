"""Fitting the bias model beneath the network, leaving each pair out of its own statistics."""

import itertools
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.linalg import block_diag
from scipy.optimize import lsq_linear

from ubert_model.config import RatingScale
from ubert_model.rating import Floats
from ubert_model.rating.blend import BiasModel
from ubert_model.rating.curve import RatingCurve
from ubert_model.rating.deviations import SideBias, UsualDeviations
from ubert_model.rating.worth import ReviewWorth
from ubert_training.finetuning.curve_segments import SEGMENTS, curve_segments
from ubert_training.finetuning.histories import KnownReviews, PairSums
from ubert_training.reviews.table import Rows

SHRINKAGES = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 50.0)
TARGET_WEIGHT = 4.0
"""How many pairs of other domains a training pair counts as, where there are any: curves need more than a small target
has, and other domains differ.
"""
PAIRS_AT_A_TIME = 65_536
EVENNESS = 10.0
"""Strength, in ratings, of the priors that every segment of the scale counts the same, and a text's surplus nothing."""
ITEM_TERMS = SEGMENTS + 1
"""Of an item's worth: the segments of its curve, and the surplus of a text."""


@dataclass(frozen=True, kw_only=True)
class FittedBias:
    """The bias model, and the usual deviations by its worths of reviews."""

    model: BiasModel
    usual: UsualDeviations


def fit_bias_model(known: KnownReviews, pairs: Rows, ratings: Floats, scale: RatingScale) -> FittedBias:
    """The curves, surplus weight and shrinkages with the least leave-one-out squared error on the training pairs.

    Every pair is predicted from statistics without it, so this error is honest and uses up no validation pairs. (The
    text reader has read the pair among all others, which moves its prediction by thousandths of a star.) The reviews
    known elsewhere are training pairs, too.

    Shape:
        pairs: (P,); ratings: (P,), in stars.
    """
    segments = [ReviewWorth(curve=curve) for curve in curve_segments(scale)]
    segment_stars = (scale.highest - scale.lowest) / SEGMENTS
    flat = RatingCurve.of_rises(scale, [0.0] * SEGMENTS)
    surplus = ReviewWorth(curve=flat, surplus_weight=1.0 / segment_stars)
    everywhere, terms = known.everywhere(), [*segments, surplus]
    every_pair = np.concatenate([pairs, known.elsewhere])
    every_rating = np.concatenate([ratings, known.ratings_elsewhere])
    weights = np.ones(len(every_pair))
    weights[: len(pairs)] = TARGET_WEIGHT if len(known.elsewhere) else 1.0
    sums = [everywhere.sums(every_pair, everywhere.usual(term, term)) for term in terms]
    design = _Design.of(sums, every_rating, weights)
    fits = [design.fit(user, item) for user, item in itertools.product(SHRINKAGES, repeat=2)]
    best = min(fits, key=lambda fit: fit.error)
    user = ReviewWorth(curve=RatingCurve.of_rises(scale, best.user_rises.tolist()))
    item = ReviewWorth(
        curve=RatingCurve.of_rises(scale, best.item_rises.tolist()),
        surplus_weight=best.item_surplus_rise / segment_stars,
    )
    usual = known.usual(user, item)
    model = BiasModel(
        mean=float(every_rating.mean()),
        intercept=best.intercept,
        user=SideBias(worth=user, mean=usual.user.mean, shrinkage=best.user_shrinkage),
        item=SideBias(worth=item, mean=usual.item.mean, shrinkage=best.item_shrinkage),
    )
    return FittedBias(model=model, usual=usual)


def bias_ratings(model: BiasModel, sums: PairSums) -> Floats:
    """The bias model's rating of each pair, (P,), in stars, not clipped; each mean leaves the pair's own rating out."""
    return model.rate(sums.user, sums.item, sums.mean)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fit:
    """Rises of the curves, (S,), and of a surplus of one segment, in stars."""

    error: float
    intercept: float
    user_rises: Floats
    item_rises: Floats
    item_surplus_rise: float
    user_shrinkage: float
    item_shrinkage: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Design:
    """The design matrix of all fits over P pairs, target included, as the R factor of its QR decomposition: least
    squares over any of its columns have the same solution there, in few rows.

    Shape:
        triangle: (C, C), C = 2 + (2·S + 1)·len(SHRINKAGES): ones, the user's segments by shrinkage, the item's terms,
        the target.
    """

    triangle: Floats

    @classmethod
    def of(cls, sums: list[PairSums], ratings: Floats, weights: Floats) -> Self:
        """From the sums of each term, first the segments, then the surplus; in blocks of pairs, so that the matrix is
        never whole in memory. ``weights``: how many pairs each counts as, (P,).
        """
        triangle = np.zeros((0, 2 + (SEGMENTS + ITEM_TERMS) * len(SHRINKAGES)))
        for start in range(0, len(ratings), PAIRS_AT_A_TIME):
            block = slice(start, start + PAIRS_AT_A_TIME)
            target = (ratings - sums[0].mean)[block]
            sides = [
                side.shrunk_deviation(shrinkage)[block]
                for by_term in ([term.user for term in sums[:SEGMENTS]], [term.item for term in sums])
                for shrinkage in SHRINKAGES
                for side in by_term
            ]
            columns = np.stack([np.ones(len(target)), *sides, target], axis=1) * np.sqrt(weights[block])[:, None]
            triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, columns]), mode="r"))
        return cls(triangle=triangle)

    def fit(self, user_shrinkage: float, item_shrinkage: float) -> _Fit:
        """Least squares for given shrinkages, with rises and a surplus weight of at least 0: curves never decrease.

        Within one user, a high mean of the other ratings means that the target was low, since their sum is fixed. On
        few entities a negative rise would exploit that.
        """
        user = 1 + SEGMENTS * SHRINKAGES.index(user_shrinkage)
        item = 1 + SEGMENTS * len(SHRINKAGES) + ITEM_TERMS * SHRINKAGES.index(item_shrinkage)
        chosen = self.triangle[:, np.r_[0, user + np.arange(SEGMENTS), item + np.arange(ITEM_TERMS), -1]]
        triangle = np.asarray(np.linalg.qr(chosen, mode="r"))
        # Pulls the rises of a side to their mean, and hardly to 0: without histories, the columns are rounding errors.
        even = np.sqrt(EVENNESS) * ((1 + 1e-6) * np.eye(SEGMENTS) - 1 / SEGMENTS)
        # None on the intercept: (2 S + 1, 2 S + 2).
        prior = np.pad(block_diag(even, even, np.sqrt(EVENNESS)), ((0, 0), (1, 0)))
        solution = lsq_linear(
            np.concatenate([triangle[:, :-1], prior]),
            np.concatenate([triangle[:, -1], np.zeros(len(prior))]),
            bounds=(np.r_[-np.inf, np.zeros(SEGMENTS + ITEM_TERMS)], np.inf),
            method="bvls",
        ).x
        return _Fit(
            error=float(np.square(triangle[:, :-1] @ solution - triangle[:, -1]).sum()),
            intercept=float(solution[0]),
            user_rises=solution[1 : 1 + SEGMENTS],
            item_rises=solution[1 + SEGMENTS : -1],
            item_surplus_rise=float(solution[-1]),
            user_shrinkage=user_shrinkage,
            item_shrinkage=item_shrinkage,
        )
