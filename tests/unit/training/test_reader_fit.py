"""The text reader is fitted on training reviews, and reads each item with weights that have not seen its group."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.small_corpus import small_table
from support.tiny_tokenizer import tiny_tokenizer_json
from ubert_model.config import RatingScale, preset
from ubert_model.rating.text_reader import ITEM_GROUPS, TextReader, item_group, word_buckets
from ubert_training.evaluation.rated_pairs import RatedPairs
from ubert_training.finetuning import reader_fit
from ubert_training.finetuning.bias_fit import FittedBias, fit_bias_model
from ubert_training.finetuning.finetune import finetune
from ubert_training.finetuning.finetune_options import FinetuneOptions
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.finetuning.histories import KnownReviews
from ubert_training.finetuning.reader_fit import RIDGE, fit_text_reader, surpluses_of
from ubert_training.optimization.loop import LoopOptions
from ubert_training.reviews.table import Review, ReviewTable, Rows
from ubert_training.splits import random_split

TABLE = small_table()
TRAIN, OTHERS = np.arange(100), np.arange(100, len(TABLE))
CONFIG = preset("tiny")
PRAISE = ["good", "great", "love", "excellent", "perfect", "sturdy"]
BLAME = ["bad", "broken", "poor", "awful", "useless", "wrong"]


def fit(table: ReviewTable, rows: Rows = TRAIN) -> TextReader:
    return fit_text_reader(table, rows, tiny_tokenizer_json())


def content(reader: TextReader, folder: Path) -> bytes:
    """All that a reader has learned, as it is saved."""
    reader.save(folder / "reader")
    return (folder / "reader").read_bytes()


def with_ratings(table: ReviewTable, rows: Rows) -> ReviewTable:
    """The table with other ratings at ``rows``."""
    ratings = table.rating.copy()
    ratings[rows] = 6.0 - ratings[rows]
    return replace(table, rating=ratings)


def with_texts(table: ReviewTable, rows: Rows) -> ReviewTable:
    """The table with other texts at ``rows``."""
    changed = set(rows.tolist())
    return replace(table, text=["worst waste" if row in changed else text for row, text in enumerate(table.text)])


def revealing_table(seed: int = 0) -> ReviewTable:
    """Ratings are noisy, and few per item; praise and blame in a text depend on the item's quality alone."""
    rng = np.random.default_rng(seed)
    quality, mood = rng.normal(0.0, 1.0, 100), rng.normal(0.0, 0.5, 60)
    reviews: list[Review] = []
    for user in range(60):
        for item in rng.choice(100, 20, replace=False).tolist():
            praised = rng.random(8) < 1.0 / (1.0 + np.exp(-2.0 * quality[item]))
            words = [str(rng.choice(PRAISE if praise else BLAME)) for praise in praised]
            rating = np.clip(np.round(3.0 + quality[item] + mood[user] + rng.normal(0.0, 1.2)), 1, 5)
            reviews.append(
                Review(
                    user=f"u{user}",
                    item=f"i{item}",
                    rating=float(rating),
                    text=" ".join(words),
                    domain="d",
                    timestamp=len(reviews),
                )
            )
    return ReviewTable.of(reviews)


def fitted_bias(table: ReviewTable, train: Rows, surpluses: np.ndarray | None) -> tuple[FittedBias, KnownReviews]:
    known = KnownReviews(table, train, np.ones(len(table), dtype=np.int64), CONFIG, surpluses=surpluses)
    return fit_bias_model(known, train, table.rating[train].astype(np.float64), CONFIG.scale), known


def test_texts_that_tell_more_than_stars_count_and_improve_held_out_ratings_and_others_do_not() -> None:
    table = revealing_table()
    drawn = np.random.default_rng(1).permutation(len(table))
    train, test = np.sort(drawn[:600]), np.sort(drawn[600:])
    shuffled = replace(table, text=[table.text[row] for row in np.random.default_rng(2).permutation(len(table))])
    weights, errors = {}, {}
    for name, read in (("own", table), ("shuffled", shuffled), ("none", None)):
        surpluses = None if read is None else surpluses_of(fit(read, train), read, train)
        fitted, known = fitted_bias(table, train, surpluses)
        sums = known.sums(test, fitted.usual)
        weights[name] = fitted.model.item.worth.surplus_weight
        errors[name] = np.square(fitted.model.rate(sums.user, sums.item) - table.rating[test]).mean()
    assert weights["own"] > 0.3
    assert errors["own"] < 0.97 * errors["none"]
    assert weights["shuffled"] < 0.05
    assert errors["shuffled"] == pytest.approx(errors["none"], rel=0.01)


def test_a_surplus_counts_the_same_on_every_scale() -> None:
    table = revealing_table()
    train = np.arange(900)
    weights = []
    for scale in (RatingScale(), RatingScale(lowest=0.0, highest=100.0), RatingScale(lowest=0.0, highest=0.01)):
        stars = (scale.highest - scale.lowest) / 4
        rescaled = replace(
            table,
            rating=(scale.lowest + stars * (table.rating - 1.0)).astype(np.float32),
            metadata=replace(table.metadata, scale=scale),
        )
        surpluses = surpluses_of(fit(rescaled, train), rescaled, train)
        known = KnownReviews(rescaled, train, np.ones(len(table), dtype=np.int64), CONFIG, surpluses=surpluses)
        fitted = fit_bias_model(known, train, rescaled.rating[train].astype(np.float64), scale)
        weights.append(fitted.model.item.worth.surplus_weight)
    assert weights[0] > 0.1
    np.testing.assert_allclose(weights, weights[0], rtol=1e-2)


@pytest.mark.parametrize("changed", [with_ratings, with_texts])
def test_the_weights_for_an_item_do_not_depend_on_the_reviews_of_its_group(
    changed: Callable[[ReviewTable, Rows], ReviewTable],
) -> None:
    before = fit(TABLE)
    groups = np.array([item_group(item) for item in TABLE.item])
    for group in set(groups.tolist()):
        after = fit(changed(TABLE, np.flatnonzero(groups == group)))
        for other in range(ITEM_GROUPS):
            same = after.weights[other].tobytes() == before.weights[other].tobytes()
            assert same == (other == group), (group, other)
        assert after.intercepts[group] == before.intercepts[group]


def test_reviews_outside_the_training_rows_change_nothing(tmp_path: Path) -> None:
    changed = with_ratings(with_texts(TABLE, OTHERS), OTHERS)
    assert content(fit(changed), tmp_path) == content(fit(TABLE), tmp_path)


def test_two_fits_are_the_same_to_the_bit(tmp_path: Path) -> None:
    assert content(fit(TABLE), tmp_path) == content(fit(TABLE), tmp_path)


def test_the_readings_are_those_of_a_ridge_on_the_other_groups() -> None:
    """Solved in its dual form, with one row of length 1 for each text."""
    reader = fit(TABLE)
    rows = [row for row in TRAIN.tolist() if TABLE.text[row]]
    token_ids = reader.tokenizer.encode([TABLE.text[row] for row in rows])
    buckets = [word_buckets(pieces) for pieces in token_ids]
    words = np.array([np.isin(np.unique(np.concatenate(buckets)), found) for found in buckets], dtype=np.float64)
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    groups = np.array([item_group(TABLE.item[row]) for row in rows])
    ratings = TABLE.rating[rows].astype(np.float64)
    for group in set(groups.tolist()):
        others, own = groups != group, np.flatnonzero(groups == group)
        centered = words[others] - words[others].mean(axis=0)
        above = ratings[others] - ratings[others].mean()
        dual = np.linalg.solve(centered @ centered.T + RIDGE * np.eye(len(above)), above)
        expected = ratings[others].mean() + (words[own] - words[others].mean(axis=0)) @ (centered.T @ dual)
        found = [reader.reading(token_ids[row], TABLE.item[rows[row]]) for row in own.tolist()]
        assert found == pytest.approx(expected.tolist(), abs=0.01)


def test_surpluses_are_those_of_each_training_review_and_0_elsewhere() -> None:
    reader = fit(TABLE)
    surpluses = surpluses_of(reader, TABLE, TRAIN)
    expected = [reader.surplus(TABLE.text[row], TABLE.item[row], float(TABLE.rating[row])) for row in TRAIN.tolist()]
    assert surpluses[TRAIN].tolist() == expected
    assert len(surpluses) == len(TABLE)
    assert not surpluses[OTHERS].any()
    assert surpluses[TRAIN].std() > 0.01
    assert abs(surpluses[TRAIN].mean()) < 0.05


def test_usual_readings_never_decrease() -> None:
    """Of random ratings, texts read lower the higher they are rated: those that were left out are the opposite."""
    for seed in range(3):
        ratings = np.random.default_rng(seed).integers(1, 6, len(TABLE)).astype(np.float32)
        usual = fit(replace(TABLE, rating=ratings)).usual
        assert usual.knots == (1.0, 2.0, 3.0, 4.0, 5.0)
        assert (np.diff(usual.values) >= 0).all()
        assert 1 < usual.values[0] <= usual.values[-1] < 5


@pytest.mark.parametrize("text", ["", " \n", "\N{COMBINING ACUTE ACCENT}"])
def test_where_no_review_has_words_all_surpluses_are_0(text: str) -> None:
    table = replace(TABLE, text=[text] * len(TABLE))
    reader = fit(table)
    assert not surpluses_of(reader, table, TRAIN).any()
    assert np.isfinite(reader.surplus("A good guitar.", "item-01", 4.0))


@pytest.mark.parametrize("rows", [np.zeros(0, dtype=np.int64), np.array([7])], ids=["none", "one"])
def test_a_reader_can_be_fitted_on_no_review_and_on_one(rows: Rows) -> None:
    assert TABLE.text[7]
    reader = fit(TABLE, rows)
    assert np.isfinite(surpluses_of(reader, TABLE, np.arange(len(TABLE)))).all()
    assert surpluses_of(reader, TABLE, rows) == pytest.approx(0.0, abs=1e-6)


def test_where_all_items_are_of_one_group_their_texts_say_nothing_beyond_the_stars() -> None:
    """No review is left to fit their weights on."""
    names = [name for name in map(str, range(1_000)) if item_group(name) == 2]
    items = sorted(set(TABLE.item))
    table = replace(TABLE, item=[names[items.index(item)] for item in TABLE.item])
    reader = fit(table)
    assert surpluses_of(reader, table, TRAIN) == pytest.approx(0.0, abs=1e-5)
    assert not reader.weights[2].any()
    assert all(reader.weights[group].any() for group in range(ITEM_GROUPS) if group != 2)
    assert np.isfinite(reader.surplus("A good guitar.", "item-01", 4.0))


def test_of_too_many_texts_a_reader_is_fitted_on_some_of_all_times(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = TRAIN[[0, 33, 66, 99]]
    few = content(fit(TABLE, chosen), tmp_path)
    monkeypatch.setattr(reader_fit, "TEXTS_READ", 4)
    assert content(fit(TABLE), tmp_path) == few


def test_ratings_without_text_are_those_of_a_bias_model_that_never_had_any(tmp_path: Path) -> None:
    table = revealing_table()
    split = random_split(table, np.arange(len(table)), seed=0)
    options = FinetuneOptions(loop=LoopOptions(epochs=1, batch_size=64, learning_rate=1e-3))
    runs = {}
    for name, texts in (("telling", table.text), ("wordless", ["same"] * len(table))):
        read, states = replace(table, text=list(texts)), tmp_path / name / "states"
        directory = finetune(read, split, CONFIG, options, tmp_path / name / "run", pretrained=None, states=states)
        runs[name] = FinishedRun.open(read, directory, states=states)
    without = runs["telling"].ratings_without_text(split.test)
    np.testing.assert_allclose(without, RatedPairs.of(runs["wordless"], "test").bias, atol=1e-6)
    assert np.abs(without - RatedPairs.of(runs["telling"], "test").bias).max() > 0.1
