"""Law 7 in training: data in which nothing can be read trains, and is rated by the bias model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ubert_model.config import preset
from ubert_training.cli import make_app
from ubert_training.evaluation.rated_pairs import RatedPairs
from ubert_training.finetuning.finetune import finetune
from ubert_training.finetuning.finetune_options import FinetuneOptions, Mode, default_loop
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.optimization.loop import LoopOptions
from ubert_training.reviews.table import Review, ReviewTable
from ubert_training.splits import Split, random_split


def strangers() -> ReviewTable:
    """Nobody and nothing is reviewed twice."""
    rng = np.random.default_rng(0)
    return ReviewTable.of(review(n, n, rng, f"fine thing {n}") for n in range(40))


def speechless() -> ReviewTable:
    """Ratings alone."""
    rng = np.random.default_rng(0)
    return ReviewTable.of(review(user, item, rng, " ") for user in range(12) for item in range(8))


def neighbours() -> ReviewTable:
    """Everybody wrote on everything."""
    rng = np.random.default_rng(0)
    return ReviewTable.of(review(user, item, rng, f"fine {user} {item}") for user in range(6) for item in range(6))


def review(user: int, item: int, rng: np.random.Generator, text: str) -> Review:
    stars = float(rng.integers(1, 6))
    return Review(user=f"u{user}", item=f"i{item}", rating=stars, text=text, domain="d", timestamp=user * 100 + item)


def trained(table: ReviewTable, split: Split, directory: Path, mode: Mode, base: str) -> Path:
    config = preset("tiny").with_options(rating_base=base, history_ratings=base != "none")
    loop = replace(LoopOptions.of(default_loop(mode)), epochs=1)
    options = FinetuneOptions(mode=mode, device="cpu", loop=loop)
    return finetune(table, split, config, options, directory / "run", pretrained=None, states=directory / "states")


@pytest.mark.parametrize("base", ["leave_one_out_bias", "none"])
@pytest.mark.parametrize("mode", ["cached", "end-to-end"])
@pytest.mark.parametrize("table_of", [strangers, speechless])
def test_without_a_readable_pair_the_bias_model_rates(
    tmp_path: Path, table_of: Callable[[], ReviewTable], mode: Mode, base: str
) -> None:
    table = table_of()
    split = random_split(table, np.arange(len(table)), seed=0)
    run = trained(table, split, tmp_path, mode, base)
    rated = RatedPairs.of(FinishedRun.open(table, run, states=tmp_path / "states", device="cpu"), "test")
    assert np.isfinite(rated.predicted).all()
    np.testing.assert_array_equal(rated.predicted, rated.bias)


@pytest.mark.parametrize("table_of", [strangers, neighbours])
def test_the_command_says_so_if_nothing_trained_the_network(
    tmp_path: Path, table_of: Callable[[], ReviewTable]
) -> None:
    table = table_of()
    reviews, split = tmp_path / "reviews.parquet", tmp_path / "split.parquet"
    table.save(reviews)
    random_split(table, np.arange(len(table)), seed=0).save(split, table)
    given = ["--reviews", str(reviews), "--split", str(split), "--out", str(tmp_path / "run")]
    for _ in ("trained", "finished before"):
        result = CliRunner().invoke(make_app(["finetune"]), ["finetune", *given, "--preset", "tiny", "--epochs", "1"])
        assert result.exit_code == 0, result.output
        assert ("the biases alone rate" in " ".join(result.output.split())) == (table_of is strangers)


@pytest.mark.parametrize("words", ["fine\n", "gut\n"])
def test_pre_training_says_so_if_it_finds_no_opinion_word_to_mask(tmp_path: Path, words: str) -> None:
    table = strangers()
    reviews, split, lexicon = tmp_path / "reviews.parquet", tmp_path / "split.parquet", tmp_path / "words.txt"
    table.save(reviews)
    random_split(table, np.arange(len(table)), seed=0).save(split, table)
    lexicon.write_text(words)
    given = [
        "--reviews",
        str(reviews),
        "--split",
        str(split),
        "--out",
        str(tmp_path / "run"),
        "--lexicon",
        str(lexicon),
    ]
    result = CliRunner().invoke(make_app(["pretrain"]), ["pretrain", *given, "--preset", "tiny", "--epochs", "1"])
    assert result.exit_code == 0, result.output
    assert ("task 1 masked nothing" in " ".join(result.output.split())) == (words == "gut\n")


@pytest.mark.parametrize("base", ["leave_one_out_bias", "none"])
def test_a_network_that_was_shown_no_pair_rates_none(tmp_path: Path, base: str) -> None:
    """Here the test pair can be read, and no training pair can."""
    rng = np.random.default_rng(0)
    reviews = [review(n, n, rng, f"fine thing {n}") for n in range(20)] + [review(0, 1, rng, "new")]
    table = ReviewTable.of(reviews)
    new = next(row for row in range(len(table)) if table.text[row] == "new")
    others = np.array([row for row in range(len(table)) if row != new and table.item[row] not in ("i0", "i1")])
    known = np.setdiff1d(np.arange(len(table)), [new, *others[:3]])
    split = Split(train=known, validation=others[:3].copy(), test=np.array([new]), kind="random", seed=0)
    run = trained(table, split, tmp_path, "cached", base)
    rated = RatedPairs.of(FinishedRun.open(table, run, states=tmp_path / "states", device="cpu"), "test")
    assert rated.histories.has_both_sides.all()
    np.testing.assert_array_equal(rated.predicted, rated.bias)


def test_a_batch_of_evaluation_without_any_review_is_rated_end_to_end(tmp_path: Path) -> None:
    """Pairs that can be read are trained on; among 200 strangers whole batches have nothing to read."""
    rng = np.random.default_rng(0)
    reviews = [review(user, item, rng, f"good {user} {item}") for user in range(10) for item in range(4)]
    table = ReviewTable.of(reviews + [review(n, n, rng, f"fine {n}") for n in range(100, 300)])
    split = random_split(table, np.arange(len(table)), seed=0)
    run = trained(table, split, tmp_path, "end-to-end", "leave_one_out_bias")
    rated = RatedPairs.of(FinishedRun.open(table, run, states=tmp_path / "states", device="cpu"), "test")
    assert np.isfinite(rated.predicted).all()
