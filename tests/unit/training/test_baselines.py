"""Baselines: trained on the training part, tuned on validation, and rated on the scale of the table."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.small_corpus import small_table
from ubert_model.config import RatingScale
from ubert_training.baselines import tuning
from ubert_training.baselines.bayesian_models import bayesian_baselines
from ubert_training.baselines.cornac_models import cornac_baselines
from ubert_training.baselines.surprise_models import surprise_baselines
from ubert_training.baselines.tuning import INNER_FOLDS, Baseline, Fit, Rate, combinations, tuned, with_other_domains
from ubert_training.errors import BaselineError
from ubert_training.pretraining.corpus_rows import allowed_rows, pretraining_rows
from ubert_training.reviews.table import ReviewTable, TableMetadata
from ubert_training.splits import Split, random_split

TABLE = small_table(users=40, items=12)
SPLIT = random_split(TABLE, np.arange(len(TABLE)), seed=0)
TRUTH = TABLE.rating[SPLIT.test].astype(np.float64)
CORNAC = {baseline.name: baseline for baseline in cornac_baselines()}


def prepare_constant(table: ReviewTable, split: Split) -> Fit:
    def fit(settings: Mapping[str, Any], seed: int) -> Rate:
        return lambda rows: np.full(len(rows), settings["value"])

    return fit


def prepare_column_vector(table: ReviewTable, split: Split) -> Fit:
    return lambda settings, seed: lambda rows: np.full((len(rows), 1), 4.0)


def constant_baseline(*values: float) -> Baseline:
    grid = combinations(value=values)
    return Baseline(name="constant", library="none", version=lambda: "1", grid=grid, prepare=prepare_constant)


def test_tuning_keeps_the_first_candidate_unless_another_is_better_by_a_standard_error() -> None:
    ratings = TABLE.rating.copy()
    ratings[SPLIT.validation] = np.resize([3.0, 3.0, 3.0, 4.0, 4.0], len(SPLIT.validation))
    table = replace(TABLE, rating=ratings)
    assert tuned(constant_baseline(3.45, 3.4, 2.0), table, SPLIT, seed=0).settings == {"value": 3.45}
    assert tuned(constant_baseline(4.5, 3.4, 2.0), table, SPLIT, seed=0).settings == {"value": 3.4}


def test_tuning_minimizes_the_validation_error_and_ignores_the_test_part() -> None:
    ratings = TABLE.rating.copy()
    ratings[SPLIT.validation], ratings[SPLIT.test] = 2.0, 5.0
    best = tuned(constant_baseline(1.0, 2.0, 5.0), replace(TABLE, rating=ratings), SPLIT, seed=0)
    assert best.settings == {"value": 2.0}


def test_quick_baselines_are_also_compared_on_folds_of_the_training_part() -> None:
    """There one that is only lucky on the validation part loses."""
    ratings = np.full_like(TABLE.rating, 3.0)
    ratings[SPLIT.validation] = 4.5
    table = replace(TABLE, rating=ratings)
    quick = replace(constant_baseline(4.5, 3.0), cross_validated=True)
    assert tuned(constant_baseline(4.5, 3.0), table, SPLIT, seed=0).settings == {"value": 4.5}
    assert tuned(quick, table, SPLIT, seed=0).settings == {"value": 3.0}


@pytest.mark.parametrize("domains", [(), ("domain-0",)])
def test_the_inner_folds_hold_every_training_pair_out_once_and_see_nothing_else_held_out(
    domains: tuple[str, ...],
) -> None:
    split = random_split(TABLE, TABLE.rows_of_domains(*domains) if domains else np.arange(len(TABLE)), seed=0)
    seen: list[Split] = []

    def prepare(table: ReviewTable, part: Split) -> Fit:
        seen.append(part)
        return prepare_constant(table, part)

    baseline = replace(constant_baseline(3.0, 4.0), prepare=prepare, cross_validated=True)
    tuned(baseline, TABLE, split, seed=0)
    outer, *inner = seen
    assert outer is split
    assert len(inner) == INNER_FOLDS
    np.testing.assert_array_equal(np.sort(np.concatenate([part.validation for part in inner])), split.train)
    held_out = np.union1d(split.validation, split.test)
    for part in inner:
        np.testing.assert_array_equal(np.union1d(part.train, part.validation), split.train)
        assert not np.isin(part.train, part.validation).any()
        np.testing.assert_array_equal(part.test, held_out)
        np.testing.assert_array_equal(np.sort(part.rows), np.sort(split.rows))  # so none counts as another domain


def test_a_large_validation_part_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "ENOUGH_PAIRS", len(SPLIT.validation))
    seen: list[Split] = []

    def prepare(table: ReviewTable, part: Split) -> Fit:
        seen.append(part)
        return prepare_constant(table, part)

    tuned(replace(constant_baseline(3.0, 4.0), prepare=prepare, cross_validated=True), TABLE, SPLIT, seed=0)
    assert seen == [SPLIT]


def test_a_baseline_with_other_domains_also_trains_on_what_pre_training_may_read() -> None:
    split = random_split(TABLE, TABLE.rows_of_domains("domain-0"), seed=0)
    mean = surprise_baselines()[0]
    extended = with_other_domains(mean)
    assert extended.name == f"{mean.name} with other domains"
    read = np.concatenate([split.train, pretraining_rows(TABLE, split, "other-domains", fraction=1.0, seed=0)])
    assert len(read) > len(split.train)
    for baseline, rows in ((mean, split.train), (extended, read)):
        expected = TABLE.rating[rows].mean(dtype=np.float64)
        assert tuned(baseline, TABLE, split, seed=0).ratings == pytest.approx(expected)


def test_a_baseline_with_other_domains_fails_if_it_may_read_nothing_there() -> None:
    """No user of the target wrote there. Pre-training on both still reads the target, so a bench goes on without it."""
    elsewhere = set(TABLE.rows_of_domains("domain-1").tolist())
    users = [f"{user}-there" if row in elsewhere else user for row, user in enumerate(TABLE.user)]
    table = replace(TABLE, user=users)
    split = random_split(table, table.rows_of_domains("domain-0"), seed=0)
    with pytest.raises(BaselineError, match="wrote nothing in other domains"):
        tuned(with_other_domains(surprise_baselines()[0]), table, split, seed=0)


def test_a_baseline_with_other_domains_also_trains_on_reviews_without_text() -> None:
    elsewhere = set(TABLE.rows_of_domains("domain-1").tolist())
    table = replace(TABLE, text=["" if row in elsewhere else text for row, text in enumerate(TABLE.text)])
    split = random_split(table, table.rows_of_domains("domain-0"), seed=0)
    read = np.union1d(split.train, allowed_rows(table, split, "other-domains"))
    assert len(read) > len(split.train)
    mean = table.rating[read].mean(dtype=np.float64)
    assert tuned(with_other_domains(surprise_baselines()[0]), table, split, seed=0).ratings == pytest.approx(mean)


def test_tuning_reports_progress_after_every_candidate() -> None:
    advanced: list[int] = []
    tuned(constant_baseline(1.0, 2.0, 5.0), TABLE, SPLIT, 0, advanced.append)
    assert advanced == [1, 1, 1]


def test_ratings_are_clipped_to_the_scale() -> None:
    assert set(tuned(constant_baseline(9.0), TABLE, SPLIT, seed=0).ratings) == {5.0}


@pytest.mark.parametrize(
    "baseline",
    [constant_baseline(float("nan")), replace(constant_baseline(4.0), prepare=prepare_column_vector)],
    ids=["NaN", "a column vector"],
)
def test_a_baseline_without_one_finite_number_per_pair_is_refused_by_name(baseline: Baseline) -> None:
    with pytest.raises(BaselineError, match=r"constant \(none\) does not give one number for each pair"):
        tuned(baseline, TABLE, SPLIT, seed=0)


each_fast_baseline = pytest.mark.parametrize(
    "baseline", [*surprise_baselines(), CORNAC["PMF"], CORNAC["biased MF"]], ids=lambda baseline: baseline.name
)


def fitted(baseline: Baseline, table: ReviewTable, seed: int = 0) -> NDArray[np.float64]:
    """The ratings of the test part by the first candidate of the grid."""
    if baseline.library == "Cornac":
        pytest.importorskip("cornac")
    return baseline.prepare(table, SPLIT)(baseline.grid[0], seed)(SPLIT.test)


@each_fast_baseline
def test_a_baseline_trains_on_training_ratings_only(baseline: Baseline) -> None:
    ratings = TABLE.rating.copy()
    ratings[SPLIT.validation] = ratings[SPLIT.test] = 1.0
    np.testing.assert_array_equal(fitted(baseline, TABLE), fitted(baseline, replace(TABLE, rating=ratings)))


@each_fast_baseline
def test_ratings_depend_on_the_seed_exactly_if_the_baseline_is_seeded(baseline: Baseline) -> None:
    """Those of the candidate that tuning chooses."""
    if baseline.library == "Cornac":
        pytest.importorskip("cornac")
    short = replace(baseline, grid=baseline.grid[:2]) if baseline.seeded else baseline
    first, other = (tuned(short, TABLE, SPLIT, seed).ratings for seed in (0, 1))
    assert (first != other).any() == baseline.seeded


def test_ratings_use_the_whole_scale_of_the_table() -> None:
    metadata = TableMetadata(scale=RatingScale(lowest=1, highest=10))
    table = replace(TABLE, rating=2 * TABLE.rating, metadata=metadata)
    for baseline in surprise_baselines()[1:3]:
        assert fitted(baseline, table).max() > 6


class FittedMachine:
    """Stands in for myFM, which needs an older setuptools than the other tools: records what it is given."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def fit(self, features: Any, target: NDArray[Any], **sampling: Any) -> "FittedMachine":
        self.features, self.target, self.sampling = features, target, sampling
        return self

    def predict_proba(self, features: Any) -> NDArray[np.float64]:
        """All is in the highest level."""
        return np.eye(self.target.max() + 1)[np.full(features.shape[0], self.target.max())]

    def predict(self, features: Any) -> NDArray[np.float64]:
        return np.full(features.shape[0], self.target.mean())


def test_a_bayesian_machine_gets_training_pairs_and_levels_of_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[FittedMachine] = []

    def machine(**settings: Any) -> FittedMachine:
        fitted.append(FittedMachine(**settings))
        return fitted[-1]

    library = SimpleNamespace(MyFMOrderedProbit=machine, MyFMRegressor=machine)
    monkeypatch.setitem(sys.modules, "myfm", library)
    (baseline,) = bayesian_baselines()
    rate = baseline.prepare(TABLE, SPLIT)({"rank": 4}, 7)
    known = fitted[-1]
    assert known.settings == {"rank": 4, "random_seed": 7}
    users = {TABLE.user[row] for row in SPLIT.train.tolist()}
    items = {TABLE.item[row] for row in SPLIT.train.tolist()}
    assert known.sampling["group_shapes"] == [len(users), len(items)]
    assert known.features.shape == (len(SPLIT.train), len(users) + len(items))
    assert known.features.sum(axis=1).tolist() == [[2]] * len(SPLIT.train)
    levels = np.unique(TABLE.rating[SPLIT.train])
    np.testing.assert_array_equal(levels[known.target], TABLE.rating[SPLIT.train])
    assert set(rate(SPLIT.test)) == {levels[-1]}
    fine = replace(TABLE, rating=np.linspace(1, 5, len(TABLE)).astype(np.float32))
    rate = baseline.prepare(fine, SPLIT)({"rank": 4}, 7)
    np.testing.assert_allclose(fitted[-1].target, fine.rating[SPLIT.train])
    assert rate(SPLIT.test) == pytest.approx(fine.rating[SPLIT.train].mean(dtype=np.float64))


@pytest.mark.parametrize("name", ["PMF", "biased MF", "HFT"])
def test_a_cornac_baseline_beats_the_mean_and_is_reproducible(name: str) -> None:
    pytest.importorskip("cornac")
    baseline = CORNAC[name]
    if name == "HFT":  # seconds a candidate
        baseline = replace(baseline, grid=({**baseline.grid[0], "max_iter": 1},))
    first, again = (tuned(baseline, TABLE, SPLIT, seed=0).ratings for _ in range(2))
    np.testing.assert_array_equal(first, again)
    mean = tuned(surprise_baselines()[0], TABLE, SPLIT, seed=0).ratings
    assert np.square(first - TRUTH).mean() < np.square(mean - TRUTH).mean()


def test_a_user_without_a_training_rating_gets_a_finite_rating() -> None:
    pytest.importorskip("cornac")
    known = [row for row in SPLIT.train.tolist() if TABLE.user[row] != TABLE.user[SPLIT.test[0]]]
    fit = CORNAC["biased MF"].prepare(TABLE, replace(SPLIT, train=np.array(known)))
    assert np.isfinite(fit(CORNAC["biased MF"].grid[0], 0)(SPLIT.test[:1])).all()


def test_an_error_of_a_library_becomes_a_baseline_error() -> None:
    broken = replace(CORNAC["PMF"], grid=({"no_such_setting": 1},))
    with pytest.raises(BaselineError, match=r"PMF \(Cornac\): \w+: "):
        tuned(broken, TABLE, SPLIT, seed=0)


@pytest.mark.parametrize("name", ["SVD", "SVD++", "biased MF"])
def test_factorisations_may_be_regularised_strongly_where_there_is_nothing_to_learn(name: str) -> None:
    """With 0.1 at most, the best of Musical Instruments lay beyond the grid in every fold: SVD++ lost 1.2% by it."""
    if name in CORNAC:
        pytest.importorskip("cornac")
    baseline = {**{baseline.name: baseline for baseline in surprise_baselines()}, **CORNAC}[name]
    noise = np.random.default_rng(0).integers(1, 6, len(TABLE)).astype(np.float32)
    settings = tuned(baseline, replace(TABLE, rating=noise), SPLIT, seed=0).settings
    assert settings["lambda_reg" if name in CORNAC else "reg_all"] > 0.1


@pytest.mark.parametrize("name", ["SVD", "SVD++", "biased MF"])
def test_factorisations_may_train_long_enough_to_learn_who_likes_what(name: str) -> None:
    """With 40 slow epochs at most they missed it: of a synthetic corpus SVD had 0.57 where it can have 0.44."""
    if name in CORNAC:
        pytest.importorskip("cornac")
    table = small_table(users=60, items=40)
    users, items = (np.unique(names, return_inverse=True)[1] for names in (table.user, table.item))
    matched = np.where((users + items) % 2 == 0, 4.0, 3.0).astype(np.float32)
    split = random_split(table, np.arange(len(table)), seed=0)
    baseline = {**{baseline.name: baseline for baseline in surprise_baselines()}, **CORNAC}[name]
    ratings = tuned(baseline, replace(table, rating=matched), split, seed=0).ratings
    assert np.mean((ratings - matched[split.test]) ** 2) < 0.01
