"""`ubert` at its edge: precedence of settings, and one clear line for every expected error."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from support.small_corpus import small_table
from ubert_model.errors import ConfigError
from ubert_training.cli import make_app, read_config
from ubert_training.splits import Split


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    small_table().save(tmp_path / "reviews.parquet")
    return tmp_path


def seed_of(reviews: Path) -> int | None:
    return Split.load(reviews / "split.parquet", small_table()).seed


def test_flags_beat_environment_beats_file_beats_default(reviews: Path) -> None:
    config = reviews / "run.toml"
    config.write_text("[split]\nseed = 1\n")
    base = ["split", "--reviews", str(reviews), "--out", str(reviews / "split.parquet")]
    runner = CliRunner()
    for environment, flags, expected in (
        ({}, [], 1),
        ({"UBERT_SPLIT_SEED": "2"}, [], 2),
        ({"UBERT_SPLIT_SEED": "2"}, ["--seed", "3"], 3),
    ):
        result = runner.invoke(make_app(["split"]), ["--config", str(config), *base, *flags], env=environment)
        assert result.exit_code == 0, result.output
        assert seed_of(reviews) == expected
    assert runner.invoke(make_app(["split"]), base).exit_code == 0
    assert seed_of(reviews) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[splitt]\nseed = 1\n", r"\[splitt\] is no command"),
        ("[split]\nsede = 1\n", r"\[split\] has no sede"),
        ("[split\n", "run.toml"),
    ],
)
def test_a_config_file_is_refused_by_what_it_asks_for(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "run.toml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "run.toml", {"split": {"seed", "out"}, "evaluate": {"run"}})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "--split", "s", "--out", "o", "--reviews", "nowhere"], "no review table at nowhere"),
        (["evaluate", "--reviews", "{reviews}", "--run", "{reviews}"], "holds no stage.json"),
        (["split", "--reviews", "{reviews}", "--out", "s", "--target", "Toys"], "no review is of domain Toys"),
        (["split", "--reviews", "{reviews}", "--out", "s", "--kind", "best"], "kind = 'best'"),
        (
            ["precompute", "--reviews", "{reviews}", "--bundle", "nowhere", "--store", "lmdb:x"],
            "holds no manifest.json",
        ),
        (["import", "{reviews}/reviews.parquet", "--out", "o", "--ray-address", "h:1"], "with --engine ray"),
    ],
)
def test_an_expected_error_is_one_line_and_no_traceback(reviews: Path, arguments: list[str], message: str) -> None:
    filled = [argument.format(reviews=reviews) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "ubert_training.cli", *filled],
        capture_output=True,
        check=False,
        text=True,
        cwd=reviews,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("ubert: ")
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_splits_of_every_kind_are_written(reviews: Path) -> None:
    runner = CliRunner()
    base = ["split", "--reviews", str(reviews), "--out", str(reviews / "split.parquet")]
    assert (
        runner.invoke(make_app(["split"]), [*base, "--kind", "folds", "--folds", "3", "--target", "domain-0"]).exit_code
        == 0
    )
    tests = [Split.load(reviews / f"split-{fold}.parquet", small_table()).test for fold in range(3)]
    covered = np.sort(np.concatenate(tests)).tolist()
    assert covered == small_table().rows_of_domains("domain-0").tolist()
    assert runner.invoke(make_app(["split"]), [*base, "--kind", "time"]).exit_code == 0
    assert Split.load(reviews / "split.parquet", small_table()).kind == "time"
