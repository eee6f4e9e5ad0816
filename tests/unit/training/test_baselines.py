"""Baselines: tuned without the test part, whatever their library does."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.small_corpus import small_table
from ubert_model.config import RatingScale
from ubert_model.errors import BaselineError
from ubert_training.baselines.cornac_models import cornac_baselines
from ubert_training.baselines.surprise_models import surprise_baselines
from ubert_training.baselines.tuning import Baseline, Fit, Rate, combinations, tuned, with_other_domains
from ubert_training.pretraining.corpus_rows import allowed_rows, pretraining_rows
from ubert_training.reviews.table import ReviewTable, TableMetadata
from ubert_training.splits import Split, random_split

TABLE = small_table(users=40, items=12)
SPLIT = random_split(TABLE, np.arange(len(TABLE)), seed=0)
TRUTH = TABLE.rating[SPLIT.test].astype(np.float64)
CORNAC = {baseline.name: baseline for baseline in cornac_baselines()}


def constant(table: ReviewTable, split: Split) -> Fit:
    def fit(settings: Mapping[str, Any], seed: int) -> Rate:
        return lambda rows: np.full(len(rows), settings["value"])

    return fit


def in_columns(table: ReviewTable, split: Split) -> Fit:
    return lambda settings, seed: lambda rows: np.full((len(rows), 1), 4.0)


def constant_baseline(*values: float) -> Baseline:
    grid = combinations(value=values)
    return Baseline(name="constant", library="none", version=lambda: "1", grid=grid, prepare=constant)


def test_tuning_looks_at_validation_and_never_at_the_test_part() -> None:
    ratings = TABLE.rating.copy()
    ratings[SPLIT.validation], ratings[SPLIT.test] = 2.0, 5.0
    best = tuned(constant_baseline(1.0, 2.0, 5.0), replace(TABLE, rating=ratings), SPLIT, seed=0)
    assert best.settings == {"value": 2.0}


def test_with_other_domains_a_baseline_learns_from_what_pre_training_may_read_there() -> None:
    split = random_split(TABLE, TABLE.rows_of_domains("domain-0"), seed=0)
    alone, told = surprise_baselines()[0], with_other_domains(surprise_baselines()[0])
    assert told.name == f"{alone.name} with other domains"
    read = np.concatenate([split.train, pretraining_rows(TABLE, split, "other-domains", fraction=1.0, seed=0)])
    assert len(read) > len(split.train)
    for baseline, rows in ((alone, split.train), (told, read)):
        mean = TABLE.rating[rows].mean(dtype=np.float64)
        assert tuned(baseline, TABLE, split, seed=0).ratings == pytest.approx(mean)


def test_where_nothing_elsewhere_may_be_read_a_baseline_with_other_domains_is_not_compared() -> None:
    """Nobody of the target wrote there; pre-training on both reads the target alone, and so the bench has to go on."""
    elsewhere = set(TABLE.rows_of_domains("domain-1").tolist())
    users = [f"{user}-there" if row in elsewhere else user for row, user in enumerate(TABLE.user)]
    strangers = replace(TABLE, user=users)
    split = random_split(strangers, strangers.rows_of_domains("domain-0"), seed=0)
    with pytest.raises(BaselineError, match="wrote nothing in other domains"):
        tuned(with_other_domains(surprise_baselines()[0]), strangers, split, seed=0)


def test_a_baseline_learns_from_reviews_elsewhere_that_have_no_text() -> None:
    elsewhere = set(TABLE.rows_of_domains("domain-1").tolist())
    silent = replace(TABLE, text=["" if row in elsewhere else text for row, text in enumerate(TABLE.text)])
    split = random_split(silent, silent.rows_of_domains("domain-0"), seed=0)
    read = np.union1d(split.train, allowed_rows(silent, split, "other-domains"))
    assert len(read) > len(split.train)
    mean = silent.rating[read].mean(dtype=np.float64)
    assert tuned(with_other_domains(surprise_baselines()[0]), silent, split, seed=0).ratings == pytest.approx(mean)


def test_tuning_tells_of_every_candidate() -> None:
    told: list[int] = []
    tuned(constant_baseline(1.0, 2.0, 5.0), TABLE, SPLIT, 0, told.append)
    assert told == [1, 1, 1]


def test_ratings_stay_on_the_scale_and_are_one_number_a_pair() -> None:
    assert set(tuned(constant_baseline(9.0), TABLE, SPLIT, seed=0).ratings) == {5.0}
    with pytest.raises(BaselineError, match="constant"):
        tuned(constant_baseline(float("nan")), TABLE, SPLIT, seed=0)
    with pytest.raises(BaselineError, match="one number for each pair"):
        tuned(replace(constant_baseline(4.0), prepare=in_columns), TABLE, SPLIT, seed=0)


FAST = pytest.mark.parametrize(
    "baseline", [*surprise_baselines(), CORNAC["PMF"], CORNAC["biased MF"]], ids=lambda baseline: baseline.name
)


def fitted(baseline: Baseline, table: ReviewTable, seed: int = 0) -> NDArray[np.float64]:
    """What the first candidate of the grid rates the test part."""
    if baseline.library == "Cornac":
        pytest.importorskip("cornac")
    return baseline.prepare(table, SPLIT)(baseline.grid[0], seed)(SPLIT.test)


@FAST
def test_a_baseline_learns_from_training_ratings_alone(baseline: Baseline) -> None:
    ratings = TABLE.rating.copy()
    ratings[SPLIT.validation] = ratings[SPLIT.test] = 1.0
    np.testing.assert_array_equal(fitted(baseline, TABLE), fitted(baseline, replace(TABLE, rating=ratings)))


@FAST
def test_another_seed_gives_other_ratings_exactly_where_a_baseline_says_so(baseline: Baseline) -> None:
    first, other = (fitted(baseline, TABLE, seed) for seed in (0, 1))
    assert (first != other).any() == baseline.seeded


def test_a_longer_scale_is_rated_beyond_five_stars() -> None:
    scale = TableMetadata(scale=RatingScale(lowest=1, highest=10))
    longer = replace(TABLE, rating=2 * TABLE.rating, metadata=scale)
    for baseline in surprise_baselines()[1:3]:
        assert fitted(baseline, longer).max() > 6


@pytest.mark.parametrize("name", ["PMF", "biased MF", "HFT"])
def test_a_baseline_of_cornac_learns_and_repeats_itself(name: str) -> None:
    pytest.importorskip("cornac")
    baseline = CORNAC[name]
    if name == "HFT":  # seconds a candidate
        baseline = replace(baseline, grid=({**baseline.grid[0], "max_iter": 1},))
    first, again = (tuned(baseline, TABLE, SPLIT, seed=0).ratings for _ in range(2))
    np.testing.assert_array_equal(first, again)
    mean = tuned(surprise_baselines()[0], TABLE, SPLIT, seed=0).ratings
    assert np.square(first - TRUTH).mean() < np.square(mean - TRUTH).mean()


def test_users_and_items_that_training_lacks_are_rated_too() -> None:
    pytest.importorskip("cornac")
    known = [row for row in SPLIT.train.tolist() if TABLE.user[row] != TABLE.user[SPLIT.test[0]]]
    fit = CORNAC["biased MF"].prepare(TABLE, replace(SPLIT, train=np.array(known)))
    assert np.isfinite(fit(CORNAC["biased MF"].grid[0], 0)(SPLIT.test[:1])).all()


def test_a_failure_inside_a_library_is_one_named_error() -> None:
    broken = replace(CORNAC["PMF"], grid=({"no_such_setting": 1},))
    with pytest.raises(BaselineError, match=r"PMF \(Cornac\): \w+: "):
        tuned(broken, TABLE, SPLIT, seed=0)
