"""Intervals around predicted ratings."""

import json
from dataclasses import replace

import numpy as np
import pytest

from support.tiny_bundle import INTERVALS
from ubert_model.config import RatingScale
from ubert_model.errors import ConfigError
from ubert_model.rating.intervals import HISTORY_BUCKETS, Margins, RatingIntervals

WIDE = RatingScale(lowest=-100, highest=100)


def test_the_margins_depend_on_the_users_number_of_reviews() -> None:
    margins = tuple(
        Margins(predicted=(0.0,), below=(number,), above=(10.0 + number,)) for number in range(len(HISTORY_BUCKETS))
    )
    intervals = RatingIntervals(coverage=0.9, margins=margins)
    low, high = intervals.around(np.zeros(7), [0, 1, 2, 3, 9, 10, 500], WIDE)
    assert (-low).tolist() == (high - 10).tolist() == [0, 1, 1, 2, 2, 3, 3]


def test_the_margins_are_linear_between_bands_of_predictions_and_constant_beyond() -> None:
    margins = Margins(predicted=(2.0, 4.0), below=(1.0, 2.0), above=(3.0, 0.0))
    intervals = RatingIntervals(coverage=0.9, margins=(margins,) * len(HISTORY_BUCKETS))
    predicted = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    low, high = intervals.around(predicted, np.full(5, 4), WIDE)
    assert (predicted - low).tolist() == [1, 1, 1.5, 2, 2]
    assert (high - predicted).tolist() == [3, 3, 1.5, 0, 0]


def test_intervals_survive_json() -> None:
    assert RatingIntervals.from_json(json.loads(json.dumps(INTERVALS.to_json()))) == INTERVALS


def test_a_coverage_that_is_no_probability_is_refused_by_value() -> None:
    with pytest.raises(ConfigError, match=r"coverage = 1\.5"):
        replace(INTERVALS, coverage=1.5)


def test_margins_for_too_few_buckets_are_refused() -> None:
    with pytest.raises(ConfigError, match=f"one for each of {len(HISTORY_BUCKETS)}"):
        RatingIntervals(coverage=0.9, margins=(Margins(predicted=(3.0,), below=(1.0,), above=(1.0,)),))


def test_bands_without_a_margin_are_refused() -> None:
    with pytest.raises(ConfigError, match="one for each of 2 bands"):
        Margins(predicted=(3.0, 4.0), below=(1.0,), above=(1.0, 1.0))
