"""Fitting the bias model beneath the network, leaving each pair out of its own statistics."""

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from ubert_model.rating import BiasModel
from ubert_training.finetuning.histories import Histories

SHRINKAGES = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 50.0)


def fit_bias_model(histories: Histories, ratings: NDArray[np.float64]) -> BiasModel:
    """The shrinkages and weights with the least leave-one-out squared error on the training pairs.

    Every pair is predicted from statistics that lack it, so this error is honest and no validation part is spent.

    Shape:
        ratings: (P,), in stars, of the histories' pairs.
    """
    return min(
        (_fit(histories, ratings, user, item) for user, item in itertools.product(SHRINKAGES, repeat=2)),
        key=lambda fitted: fitted[0],
    )[1]


def bias_ratings(model: BiasModel, histories: Histories) -> NDArray[np.float64]:
    """The bias model's rating of each pair, (P,), in stars, not clipped."""
    return model.rate(histories.user_sums, histories.item_sums, histories.mean)


def _fit(
    histories: Histories, ratings: NDArray[np.float64], user_shrinkage: float, item_shrinkage: float
) -> tuple[float, BiasModel]:
    user = histories.user_sums.shrunk_deviation(histories.mean, user_shrinkage)
    item = histories.item_sums.shrunk_deviation(histories.mean, item_shrinkage)
    inputs = np.stack([np.ones_like(user), user, item], axis=1)  # (P, 3)
    above_mean = ratings - histories.mean
    # Within one user, a high mean of the other ratings means that the target was low: their sum is fixed. On few
    # entities a negative weight would exploit that, so weights stay at or above 0.
    weights = lsq_linear(inputs, above_mean, bounds=([-np.inf, 0.0, 0.0], np.inf)).x
    error = float(np.square(inputs @ weights - above_mean).mean())
    intercept, user_weight, item_weight = (float(weight) for weight in weights)
    return error, BiasModel(
        mean=float(ratings.mean()),
        intercept=intercept,
        user_weight=user_weight,
        item_weight=item_weight,
        user_shrinkage=user_shrinkage,
        item_shrinkage=item_shrinkage,
    )
