"""Law 7 in training: without a readable pair, training succeeds and the bias model rates."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ubert_model.config import preset
from ubert_model.rating.intervals import Margins, RatingIntervals
from ubert_training.cli import make_app
from ubert_training.evaluation.rated_pairs import RatedPairs
from ubert_training.finetuning.finetune import finetune
from ubert_training.finetuning.finetune_options import FinetuneOptions, Mode, default_loop
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.optimization.loop import LoopOptions
from ubert_training.reviews.table import Review, ReviewTable
from ubert_training.splits import Split, random_split


def one_review_each() -> ReviewTable:
    """Every user and every item has one review."""
    rng = np.random.default_rng(0)
    return ReviewTable.of(review(n, n, rng, f"fine thing {n}") for n in range(40))


def without_text() -> ReviewTable:
    """Ratings only."""
    rng = np.random.default_rng(0)
    return ReviewTable.of(review(user, item, rng, " ") for user in range(12) for item in range(8))


def every_pair() -> ReviewTable:
    """Every user reviewed every item."""
    rng = np.random.default_rng(0)
    return ReviewTable.of(review(user, item, rng, f"fine {user} {item}") for user in range(6) for item in range(6))


def review(user: int, item: int, rng: np.random.Generator, text: str) -> Review:
    stars = float(rng.integers(1, 6))
    return Review(user=f"u{user}", item=f"i{item}", rating=stars, text=text, domain="d", timestamp=user * 100 + item)


def fine_tuned(table: ReviewTable, split: Split, directory: Path, mode: Mode, base: str) -> Path:
    config = preset("tiny").with_options(rating_base=base, history_ratings=base != "none")
    loop = replace(LoopOptions.of(default_loop(mode)), epochs=1)
    options = FinetuneOptions(mode=mode, device="cpu", loop=loop)
    return finetune(table, split, config, options, directory / "run", pretrained=None, states=directory / "states")


def rated_test_part(table: ReviewTable, run: Path) -> RatedPairs:
    return RatedPairs.of(FinishedRun.open(table, run, states=run.with_name("states"), device="cpu"), "test")


def saved(table: ReviewTable, directory: Path) -> list[str]:
    """Save a table and a split of it; returns the flags of a stage that reads them and trains for one epoch."""
    table.save(directory / "reviews.parquet")
    random_split(table, np.arange(len(table)), seed=0).save(directory / "split.parquet", table)
    paths = ["--reviews", str(directory / "reviews.parquet"), "--split", str(directory / "split.parquet")]
    return [*paths, "--out", str(directory / "run"), "--preset", "tiny", "--epochs", "1"]


@pytest.mark.parametrize("base", ["leave_one_out_bias", "none"])
@pytest.mark.parametrize("mode", ["cached", "end-to-end"])
@pytest.mark.parametrize("table_of", [one_review_each, without_text])
def test_without_a_readable_pair_the_bias_model_rates(
    tmp_path: Path, table_of: Callable[[], ReviewTable], mode: Mode, base: str
) -> None:
    table = table_of()
    split = random_split(table, np.arange(len(table)), seed=0)
    run = fine_tuned(table, split, tmp_path, mode, base)
    rated = rated_test_part(table, run)
    assert np.isfinite(rated.predicted).all()
    np.testing.assert_array_equal(rated.predicted, rated.bias)


@pytest.mark.parametrize("table_of", [one_review_each, every_pair])
def test_finetune_says_if_no_pair_trained_the_network(tmp_path: Path, table_of: Callable[[], ReviewTable]) -> None:
    flags = saved(table_of(), tmp_path)
    for _ in ("trained now", "trained before"):
        result = CliRunner().invoke(make_app(["finetune"]), ["finetune", *flags])
        assert result.exit_code == 0, result.output
        assert ("the biases alone rate" in " ".join(result.output.split())) == (table_of is one_review_each)


@pytest.mark.parametrize("words", ["fine\n", "gut\n"])
def test_pretrain_says_if_it_found_no_opinion_word_to_mask(tmp_path: Path, words: str) -> None:
    (tmp_path / "words.txt").write_text(words)
    flags = [*saved(one_review_each(), tmp_path), "--lexicon", str(tmp_path / "words.txt")]
    result = CliRunner().invoke(make_app(["pretrain"]), ["pretrain", *flags])
    assert result.exit_code == 0, result.output
    assert ("task 1 masked nothing" in " ".join(result.output.split())) == (words == "gut\n")


@pytest.mark.parametrize("base", ["leave_one_out_bias", "none"])
def test_a_network_trained_on_no_pair_rates_none(tmp_path: Path, base: str) -> None:
    """The test pair is readable, and no training pair is."""
    rng = np.random.default_rng(0)
    reviews = [review(n, n, rng, f"fine thing {n}") for n in range(20)] + [review(0, 1, rng, "new")]
    table = ReviewTable.of(reviews)
    new = next(row for row in range(len(table)) if table.text[row] == "new")
    others = np.array([row for row in range(len(table)) if row != new and table.item[row] not in ("i0", "i1")])
    known = np.setdiff1d(np.arange(len(table)), [new, *others[:3]])
    split = Split(train=known, validation=others[:3].copy(), test=np.array([new]), kind="random", seed=0)
    run = fine_tuned(table, split, tmp_path, "cached", base)
    rated = rated_test_part(table, run)
    assert rated.histories.has_both_sides.all()
    np.testing.assert_array_equal(rated.predicted, rated.bias)


def test_end_to_end_evaluation_rates_batches_without_any_review(tmp_path: Path) -> None:
    """Some pairs are readable; 200 users and items have one review each, enough for batches without any history."""
    rng = np.random.default_rng(0)
    reviews = [review(user, item, rng, f"good {user} {item}") for user in range(10) for item in range(4)]
    table = ReviewTable.of(reviews + [review(n, n, rng, f"fine {n}") for n in range(100, 300)])
    split = random_split(table, np.arange(len(table)), seed=0)
    run = fine_tuned(table, split, tmp_path, "end-to-end", "leave_one_out_bias")
    assert np.isfinite(rated_test_part(table, run).predicted).all()


def test_intervals_follow_the_users_history_and_cover_what_lies_within(tmp_path: Path) -> None:
    table = without_text()  # some items have ten reviews, no user has more than eight
    directory = fine_tuned(table, random_split(table, np.arange(len(table)), seed=0), tmp_path, "cached", "none")
    run = FinishedRun.open(table, directory, states=directory.with_name("states"), device="cpu")
    margins = tuple(Margins(predicted=(3.0,), below=(reach,), above=(reach / 2,)) for reach in (0.2, 0.4, 0.8, 1.6))
    intervals = RatingIntervals(coverage=0.9, margins=margins)
    rated = RatedPairs.of(replace(run, parts=replace(run.parts, intervals=intervals)), "test")
    assert rated.histories.item_count.max() >= 10
    reach = np.select([rated.histories.user_count >= 3, rated.histories.user_count >= 1], [0.8, 0.4], 0.2)
    np.testing.assert_allclose(rated.low, np.maximum(rated.predicted - reach, 1))
    np.testing.assert_allclose(rated.high, np.minimum(rated.predicted + reach / 2, 5))
    expected = [low <= stars <= high for low, stars, high in zip(rated.low, rated.truth, rated.high, strict=True)]
    assert rated.covered.tolist() == expected
