"""`ubert bench rates` measures this machine, and prints the flags with which `ubert plan` uses what it measured."""

import json
import shlex
from pathlib import Path

from typer.testing import CliRunner

from support.small_corpus import small_table
from support.tiny_bundle import TinyBundle
from ubert_training.cli import make_app


def test_the_flags_that_bench_rates_prints_give_a_plan_its_rates_and_sizes(tiny: TinyBundle, tmp_path: Path) -> None:
    table, rates = tmp_path / "reviews.parquet", tmp_path / "rates.json"
    small_table().save(table)
    bench = ["bench", "rates", "--reviews", str(table), "--bundle", str(tiny.bundle.path), "--out", str(rates)]
    printed = CliRunner().invoke(make_app(["bench"]), bench, catch_exceptions=False).stdout
    measured = json.loads(rates.read_text(encoding="utf-8"))
    assert set(measured) == {"encode_tokens_per_core", "score_flops_per_core"}

    flags = shlex.split(" ".join(printed.split("for ubert plan ")[1].splitlines()))
    plan = ["plan", "--users", "1e6", "--items", "1e5", "--reviews", "1e7", "--json", *flags]
    planned = json.loads(CliRunner().invoke(make_app(["plan"]), plan, catch_exceptions=False).stdout)
    assert measured.items() <= planned["rates"].items()
    config = tiny.bundle.manifest.config
    assert planned["demand"]["state_dim"] == tiny.bundle.manifest.state_dim
    assert planned["demand"]["tokens_a_row"] == config.tokens_a_row
    assert (planned["demand"]["max_reviews"], planned["demand"]["max_rows"]) == (config.max_reviews, config.max_rows)
