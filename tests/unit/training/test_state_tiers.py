"""`ubert bench states`: the command and its parts, on runs of the tiny preset."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from support.small_corpus import small_table
from ubert_model.config import preset
from ubert_model.errors import InputError
from ubert_model.states import Namespace, codec_names, make_codec
from ubert_training.cli import make_app
from ubert_training.evaluation.metrics import Estimate
from ubert_training.evaluation.rated_pairs import RatedPairs
from ubert_training.evaluation.read_pairs import ReadPairs
from ubert_training.evaluation.state_tiers import Tier, TierReport, measure_tiers
from ubert_training.evaluation.tier_report import verdict
from ubert_training.finetuning.finetune import finetune
from ubert_training.finetuning.finetune_options import FinetuneOptions
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.optimization.loop import LoopOptions
from ubert_training.splits import random_split

TABLE = small_table(users=30)


def fine_tuned(directory: Path, **config: int) -> Path:
    split = random_split(TABLE, np.arange(len(TABLE)), seed=0)
    options = FinetuneOptions(loop=LoopOptions(epochs=2, batch_size=16, learning_rate=1e-2))
    model_config = preset("tiny").with_options(**config)
    return finetune(
        TABLE, split, model_config, options, directory, pretrained=None, states=directory.with_name("states")
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("work")
    TABLE.save(directory / "reviews.parquet")
    return fine_tuned(directory / "run")


@pytest.fixture(scope="module")
def report(run: Path) -> dict[str, object]:
    arguments = ["bench", "states", "--reviews", str(run.parent / "reviews.parquet"), "--run", str(run)]
    done = CliRunner().invoke(make_app(["bench"]), arguments, env={"COLUMNS": "240"}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "is the smallest codec whose change of MSE" in done.output
    found: dict[str, object] = json.loads((run / "states.json").read_text(encoding="utf-8"))
    return found


def test_a_run_whose_test_pairs_have_no_text_is_refused_by_name(tmp_path: Path) -> None:
    table = replace(TABLE, text=[""] * len(TABLE))
    split = random_split(table, np.arange(len(table)), seed=0)
    options = FinetuneOptions(loop=LoopOptions(epochs=1, batch_size=16, learning_rate=1e-2))
    states = tmp_path / "states"
    directory = finetune(table, split, preset("tiny"), options, tmp_path / "run", pretrained=None, states=states)
    opened = FinishedRun.open(table, directory, states=states)
    with pytest.raises(InputError, match=f"no test pair of {directory} reads a review that has text"):
        measure_tiers([opened], "test", lambda _: None)


def test_every_codec_is_measured_and_shown(run: Path, report: dict[str, object]) -> None:
    tiers = report["tiers"]
    assert isinstance(tiers, list)
    assert [tier["codec"] for tier in tiers] == list(codec_names())
    assert all(tier["change"]["low"] <= tier["change"]["value"] <= tier["change"]["high"] for tier in tiers)
    markdown = (run / "states.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in markdown for name in codec_names())
    assert (run / "states.png").stat().st_size > 10_000


def test_fp32_changes_no_rating_and_its_bytes_include_the_header(report: dict[str, object]) -> None:
    tiers = report["tiers"]
    assert isinstance(tiers, list)
    (exact,) = (tier for tier in tiers if tier["codec"] == "fp32")
    assert (exact["change"]["value"], exact["largest_difference"], exact["ratio_same_dim"]) == (0.0, 0.0, 1.0)
    tokens, state_dim = report["tokens_a_review"], preset("tiny").state_dim
    assert isinstance(tokens, float)
    assert state_dim is not None
    assert exact["bytes_a_review"] == pytest.approx(4 * state_dim * tokens + 28)


def test_runs_are_pooled_by_state_dimension(run: Path) -> None:
    narrow = fine_tuned(run.with_name("narrow"), state_dim=8)
    opened = [FinishedRun.open(TABLE, one, states=run.with_name("states")) for one in (narrow, run, run)]
    advanced: list[int] = []
    report = measure_tiers(opened, "validation", advanced.append)
    assert [tier.state_dim for tier in report.tiers] == [16] * len(codec_names()) + [8] * len(codec_names())
    assert sum(advanced) == 3 * len(codec_names())
    assert report.pairs == 3 * len(opened[0].split.validation)
    width = opened[0].model.review_encoder.hidden_dim
    for measured in report.tiers:
        added = 4 * (width - measured.state_dim) * report.tokens_a_review / measured.bytes_a_review
        assert measured.ratio_full_width == pytest.approx(measured.ratio_same_dim + added)


def test_of_a_large_part_a_reproducible_sample_of_pairs_is_measured(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = FinishedRun.open(TABLE, run, states=run.with_name("states"))
    whole = measure_tiers([opened], "test", lambda _: None)
    monkeypatch.setattr("ubert_training.evaluation.state_tiers.MOST_PAIRS", 5)
    first, again = (measure_tiers([opened], "test", lambda _: None) for _ in range(2))
    assert (first.pairs, whole.pairs) == (5, len(opened.split.test))
    assert first.reviews < whole.reviews
    assert [tier.mse for tier in first.tiers] == [tier.mse for tier in again.tiers]


def test_ratings_from_stored_fp32_states_equal_those_of_evaluation(run: Path) -> None:
    states = run.with_name("states")
    opened = FinishedRun.open(TABLE, run, states=states)
    namespace = Namespace(version="0" * 16, encoder_digest="", codec="fp32", state_dim=16, max_length=16)
    stored = ReadPairs.of(opened, opened.split.test).stored_ratings(make_codec(namespace))
    np.testing.assert_allclose(stored, RatedPairs.of(opened, "test").predicted, atol=1e-5)


def tier(codec: str, size: float, high: float) -> Tier:
    numbers = dict.fromkeys(
        ("ratio_same_dim", "ratio_full_width", "mse", "typical_difference", "largest_difference"), 0.0
    ) | dict.fromkeys(("bytes_a_token", "bytes_a_review"), size)
    change = Estimate(value=0.0, low=-high, high=high)
    return Tier(
        codec=codec,
        state_dim=16,
        change=change,
        reviews_decoded_a_second=1,
        pairs_rated_a_second=1,
        **numbers,
    )


def test_no_codec_is_recommended_if_none_changes_a_rating() -> None:
    tiers = [tier("fp32", 64, 0), tier("int8", 20, 0)]
    report = TierReport(runs=[], part="test", pairs=1, reviews=1, tokens_a_review=1, tiers=tiers)
    (unchanged,) = verdict(report)
    assert (
        unchanged == "D = 16: no codec moves any rating, since the network has no share in them: the biases alone rate"
    )
    (changed,) = verdict(replace(report, tiers=[tiers[0], replace(tiers[1], largest_difference=0.1)]))
    assert changed.startswith("D = 16: int8 is the smallest codec")


def test_the_smallest_codec_whose_change_is_surely_small_is_chosen() -> None:
    tiers = [tier("fp32", 64, 0), tier("int8", 20, 0.0009), tier("pq1", 2, 0.0011), tier("int4", 12, 0.0002)]
    report = TierReport(runs=[], part="test", pairs=1, reviews=1, tokens_a_review=1, tiers=tiers)
    assert report.smallest(16).codec == "int4"
