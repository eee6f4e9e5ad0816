"""How narrow an interval may become where the fitted line of the variance ends."""

import numpy as np
import pytest

from ubert_model.config import RatingScale
from ubert_model.rating.intervals import RatingIntervals


def test_no_prediction_is_taken_for_four_times_as_sure_as_the_usual_one() -> None:
    random = np.random.default_rng(0)
    predicted = random.uniform(2, 5, 4000)
    truth = predicted + random.normal(0, np.sqrt(0.2 + 0.5 * (5 - predicted)))  # the line is 0 at 5.4
    intervals = RatingIntervals.fit(predicted, truth, np.full(4000, 5.0))
    asked = np.array([intervals.centre, *np.linspace(5, 8, 31)])
    low, high = intervals.around(asked, 5, RatingScale(lowest=-100, highest=100))
    shares = (high - low) / (high[0] - low[0])
    assert shares.min() == shares[-1] == pytest.approx(0.26, abs=0.01)
