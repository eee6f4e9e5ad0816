"""`ubert bench accuracy`: shared work, the report, and refused flags."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from support.accuracy_bench import BIAS, TABLE
from support.processes import running
from support.waiting import wait_until
from ubert_model.errors import ConfigError, UbertError
from ubert_training.accuracy import bench
from ubert_training.accuracy.cells import CLAIMS
from ubert_training.accuracy.variants import UBERT
from ubert_training.cli import make_app
from ubert_training.commands.bench_accuracy import read_recipe
from ubert_training.recipes.recipe import Recipe


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A directory with a review table."""
    TABLE.save(tmp_path / "reviews.parquet")
    return tmp_path


def invoke_bench(reviews: Path, out: Path, *flags: str) -> Result:
    arguments = ["bench", "accuracy", "--reviews", str(reviews), "--out", str(out), *flags]
    return CliRunner().invoke(make_app(["bench"]), arguments, env={"COLUMNS": "240"})


def test_the_bench_computes_what_is_missing_and_then_only_repeats_its_report(reviews: Path) -> None:
    out = reviews / "out"
    options = ["--folds", "2", "--seeds", "0", "--preset", "tiny", "--finetune-epochs", "1", "--target", "domain-0"]
    options += ["--variants", f"{UBERT},u-bert without pre-training,{BIAS.name}"]

    def output_of(*more: str) -> str:
        result = invoke_bench(reviews, out, *options, *more)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    assert "6 of 6 cells are missing" in output_of("--minutes", "0")
    assert "are missing" not in output_of()
    report = (out / "accuracy.json").read_bytes()
    assert not list((out / "states").iterdir())
    assert not list((out / "runs").iterdir())
    assert "fold 0" not in output_of()
    assert (out / "accuracy.json").read_bytes() == report


def test_two_processes_share_the_cells_and_write_the_report_of_one(
    reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second starts when the first has claimed a cell."""
    monkeypatch.setattr(bench, "POLL_SECONDS", 0.05)
    options = ["--preset", "tiny", "--finetune-epochs", "1", "--folds", "2", "--seeds", "0"]
    options += ["--variants", f"{UBERT},{BIAS.name}"]
    shared = reviews / "shared"
    alone = invoke_bench(reviews, reviews / "alone", *options)
    command = [sys.executable, "-m", "ubert_training.cli", "bench", "accuracy", "--reviews", str(reviews)]
    with running([*command, "--out", str(shared), *options]) as first:
        wait_until(lambda: first.poll() is not None or any(shared.glob(f"**/{CLAIMS}/*")))
        second = invoke_bench(reviews, shared, *options)
        outputs = [first.communicate(timeout=120)[0], second.output]
    assert [alone.exit_code, first.returncode, second.exit_code] == [0, 0, 0], (alone.exception, second.exception)
    cells = [line[len("   0.0 min") :] for output in outputs for line in output.splitlines() if ", seed " in line]
    assert len(cells) == len(set(cells)) == 4
    assert all(", seed " in output for output in outputs), "one of them computed nothing"
    for name in ("accuracy.json", "accuracy.md"):
        assert (shared / name).read_bytes() == (reviews / "alone" / name).read_bytes()
    assert "are missing" not in alone.output + "".join(outputs)


def test_a_recipe_file_with_null_for_pretraining_is_the_preset_without_it(reviews: Path) -> None:
    """The headline of the README is measured with such a file."""
    recipe = reviews / "plain.json"
    recipe.write_text('{"pretraining": null}')
    assert read_recipe(recipe, TABLE.scale) == Recipe.of_preset("minilm", TABLE.scale).varied(pretrained=False)
    flags = ["--recipe", str(recipe), "--variants", f"{UBERT},{BIAS.name}", "--folds", "2", "--minutes", "0"]
    assert "cells are missing" in invoke_bench(reviews, reviews / "out", *flags).output


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--truth", "nowhere.json", "nowhere.json"),
        ("--variants", "best", "variants = 'best': use default, all, or some of: u-bert"),
        ("--target", "nothing", "nothing"),
    ],
)
def test_a_refused_flag_is_named_and_leaves_no_directory(flag: str, value: str, message: str, reviews: Path) -> None:
    result = invoke_bench(reviews, reviews / "out", flag, value)
    assert isinstance(result.exception, UbertError)
    assert message in str(result.exception)
    assert not (reviews / "out").exists()


def test_a_directory_with_other_files_is_refused_and_left_as_it_is(reviews: Path) -> None:
    result = invoke_bench(reviews, reviews, "--minutes", "0")
    assert isinstance(result.exception, ConfigError)
    assert "holds other files" in str(result.exception)
    assert [path.name for path in reviews.iterdir()] == ["reviews.parquet"]
