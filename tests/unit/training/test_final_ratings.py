"""Ratings from network outputs, where a side has no text that the network could read."""

import numpy as np
import pytest

from ubert_model.config import preset
from ubert_model.rating.blend import BiasModel, Blend
from ubert_model.rating.curve import RatingCurve
from ubert_model.rating.deviations import RatingSums, SideBias
from ubert_model.rating.worth import ReviewWorth
from ubert_training.finetuning.histories import Histories, PairSums
from ubert_training.finetuning.rating_parts import final_ratings
from ubert_training.ragged import RaggedArray


@pytest.mark.parametrize(("base", "network_rating"), [("none", 1.0), ("leave_one_out_bias", 4.5)])
def test_a_pair_without_text_on_a_side_is_rated_by_the_bias_model(base: str, network_rating: float) -> None:
    """As in the service, and also if the network rates other pairs without a bias model beneath it."""
    config = preset("tiny").with_options(rating_base=base, history_ratings=base != "none")
    worth = ReviewWorth(curve=RatingCurve.of_rises(config.scale, [1.0] * 4))
    side = SideBias(worth=worth, mean=3.0, shrinkage=1.0)
    bias = BiasModel(mean=3.0, intercept=0.0, user=side, item=side)
    sums = RatingSums(count=np.ones(4), above_usual=np.array([0.5, -0.5, 0.25, 0.0]))
    none = RaggedArray(values=np.zeros(0), starts=np.zeros(5, dtype=np.int64))
    histories = Histories(
        pairs=np.arange(4),
        user_rows=RaggedArray(values=np.array([7, 7]), starts=np.array([0, 1, 1, 2, 2])),
        item_rows=RaggedArray(values=np.array([7, 7]), starts=np.array([0, 1, 2, 2, 2])),
        user_residuals=none,
        item_residuals=none,
        sums=PairSums(user=sums, item=sums, mean=np.full(4, 3.0)),
    )
    rated = final_ratings(Blend.of(config, bias, 1.0), histories, np.array([1.0, 0.0, 0.0, 0.0]))
    assert rated.tolist() == [network_rating, 2.5, 3.25, 3.0]
