"""`ubert plan` by numbers worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from support.store_contents import VERSION
from ubert_model.errors import ConfigError
from ubert_model.states import Namespace
from ubert_model.states.codec import make_codec, stored_bytes
from ubert_training.cli import main, make_app
from ubert_training.commands.plan import format_value
from ubert_training.planning.demand import Demand
from ubert_training.planning.plan import Figure, pair_flops, plan, side_rows
from ubert_training.planning.rates import Rates

# One million reviews of 50 tokens, 10 a user and 100 an item; a side takes 4 reviews, 200 tokens.
DEMAND = Demand(
    users=100_000,
    items=10_000,
    reviews=1_000_000,
    tokens=50,
    tokens_a_row=1,
    requests_per_s=30,
    candidates=10,
    latency_ms=10,
    codec="fp16",
    state_dim=10,
    max_reviews=4,
    max_rows=1_000,
    resident=0.1,
    hits=0.5,
    replica_cores=2,
    replica_bytes=2e9,
    redis_bytes=1e9,
    redis_copies=2,
    encoding_cores=10,
    training_bytes=1.2e9,
    utilization=0.5,
)
RATES = Rates(
    encode_tokens_per_core=1_000,
    score_flops_per_core=256e6,
    request_core_ms=1,
    candidate_core_ms=0.5,
    review_core_ms=0.25,
    read_list_core_ms=0.1,
    read_review_core_ms=0.01,
    redis_bytes_per_s=1e6,
    redis_round_trip_ms=1,
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state of a review", 28 + 50 * 10 * 2),
        ("Redis memory", 1_000_000 * (1.1 * 1_028 + 340)),  # 1.4708e9
        ("Redis servers", 4),  # 2 × 1.4708e9 ÷ 0.75e9 = 3.9
        ("resident states a replica", 0.1 * (1_000_000 * (50 * 10 * 4 + 1_360) + 110_000 * 700)),  # 343.7e6
        ("embeddings and identifiers a replica", 110_000 * (10 * 4 + 190)),
        ("memory a replica", 343.7e6 + 25.3e6 + 1e9),
        (
            "time of a pair in the network",
            1_000 * (6 * 200 * 200 * 10 + 4 * 10 * 10 * 400) / 256e6,
        ),  # 2.56e6 operations: 10 ms
        ("reading what is not resident", 0.5 * (11 * 0.1 + (4 + 10 * 4) * 0.01)),  # 0.77
        ("around the network", 1 + 10 * 0.5 + (4 + 10 * 4) * 0.25),  # 17
        ("time of a request", 17 + 0.77 + 10 * 10),
        ("cores", 30 * 0.11777 / 0.5),  # 7.07
        ("replicas", 4),
        ("read from Redis a request", 0.5 * (4 + 10 * 4) * 1_028),  # 22 616
        ("answer of an idle replica", 2 * 1 + 22.616 + 17 + 0.77 + 10 * 10 / 2),
        ("Redis throughput", 30 * 22_616),
        ("monthly traffic inside", 30 * 22_616 * 2_592_000),
        ("monthly traffic outside", 30 * 10 * 600 * 2_592_000),
        ("precompute", 50e6 / 10_000 / 3_600),
        ("review table in one process", 1_000_000 * (350 + 250)),
        ("id embeddings in one process", 110_000 * 10 * 20),
    ],
)
def test_a_figure_equals_its_calculation_by_hand(name: str, value: float) -> None:
    assert plan(DEMAND, RATES).figures[name].value == pytest.approx(value)


def test_limits_are_sorted_by_what_breaks_first_and_name_a_setting() -> None:
    limits = plan(DEMAND, RATES).limits
    times = {limit.step: limit.times for limit in limits}
    assert list(times.values()) == sorted(times.values(), reverse=True)
    assert next(iter(times)) == "the latency asked for"
    assert times["the latency asked for"] == pytest.approx(9.2386)
    assert times["one replica's cores"] == pytest.approx(3.5331)
    assert times["one Redis server's throughput"] == pytest.approx(0.67848)
    assert times["one Redis server's memory"] == pytest.approx(1.4708e9 / 0.75e9)
    assert times["one replica's memory"] == pytest.approx((343.7e6 + 25.3e6 + 1e9) / 2e9)
    assert times["a night (8 h) of precompute"] == pytest.approx(50e6 / 10_000 / 3_600 / 8)
    assert times["one training machine's memory"] == pytest.approx((600e6 + 22e6) / 1.2e9)
    assert all(limit.setting for limit in limits)


def test_a_plan_has_at_least_two_replicas() -> None:
    assert plan(replace(DEMAND, requests_per_s=0.01), RATES).figures["replicas"].value == 2


def test_the_rows_of_a_side_are_limited_by_its_reviews_and_the_budgets() -> None:
    assert side_rows(DEMAND, DEMAND.users) == 200
    assert side_rows(DEMAND, 500_000) == 100
    assert side_rows(DEMAND, 10**9) == 50, "a requested user or item has at least one review"
    assert side_rows(replace(DEMAND, max_rows=128), DEMAND.users) == 128


def test_tokens_a_row_reduces_the_rows_and_not_the_encoding() -> None:
    shared = replace(DEMAND, tokens_a_row=7)  # [CLS], and seven rows of seven
    assert (shared.rows, shared.state_bytes) == (8, 28 + 8 * 10 * 2)
    assert side_rows(shared, DEMAND.users) == 4 * 8
    assert side_rows(replace(shared, max_rows=20), DEMAND.users) == 20, "the budget of a side counts rows"
    figures, unshared = plan(shared, RATES).figures, plan(DEMAND, RATES).figures
    assert figures["resident states a replica"].value == pytest.approx(
        unshared["resident states a replica"].value - 0.1 * 1_000_000 * 42 * 10 * 4
    )
    assert figures["precompute"].value == unshared["precompute"].value


def test_a_pooling_codec_stores_fewer_rows_than_the_budget_counts() -> None:
    pooled = replace(DEMAND, codec="fp16/pool2")
    assert (pooled.listed_rows, pooled.rows) == (50, 26)
    assert side_rows(replace(pooled, max_rows=100), DEMAND.users) == 2 * 26


def test_at_a_hit_rate_of_1_nothing_is_read_from_the_store() -> None:
    figures = plan(replace(DEMAND, hits=1.0), RATES).figures
    assert figures["reading what is not resident"].value == 0
    assert figures["answer of an idle replica"].value == pytest.approx(17 + 10 * 10 / 2)


def test_the_operations_of_a_pair_grow_with_both_sides() -> None:
    assert pair_flops(200, 200, 64) == 4 * pair_flops(100, 100, 64) - 2 * 4 * 64 * 64 * 200


def test_without_embeddings_a_replica_holds_identifiers_only() -> None:
    figures = plan(replace(DEMAND, id_embeddings=False), RATES).figures
    assert figures["embeddings and identifiers a replica"].value == 110_000 * 190
    assert figures["id embeddings in one process"].value == 0


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "int4", "int8/pool2", "int4/pool3"])
@pytest.mark.parametrize("tokens", [0, 1, 7])
def test_stored_bytes_is_the_size_of_an_encoded_review(name: str, tokens: int) -> None:
    namespace = Namespace(version=VERSION, encoder_digest="e", codec=name, state_dim=6, max_length=9)
    states = np.ones((tokens, 6), dtype=np.float32)
    assert stored_bytes(name, tokens, 6) == len(make_codec(namespace).encode(states))


def test_stored_bytes_of_a_product_code_follow_from_its_bits() -> None:
    assert stored_bytes("pq2", 10, 64) == 28 + 10 * 16
    assert stored_bytes("pq1/pool2", 11, 64) == 28 + 6 * 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"encode": 1}', "encode"),
        ('{"request_core_ms": 0}', "request_core_ms = 0"),
        ('{"request_core_ms": Infinity}', "request_core_ms = inf"),
        ("[1]", "rates"),
        ("{", "rates file"),
        ('{"request_core_ms": "5"}', "request_core_ms = '5': use a number"),
        ('{"request_core_ms": true}', "request_core_ms = True: use a number"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_an_invalid_rates_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "rates.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        Rates.load(tmp_path / "rates.json")


@pytest.mark.parametrize(
    "wrong",
    [
        {"users": 0},
        {"tokens_a_row": 0},
        {"hits": 1.1},
        {"utilization": 0},
        {"codec": "int5"},
        {"requests_per_s": float("inf")},
    ],
)
def test_an_impossible_demand_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        plan(replace(DEMAND, **wrong), RATES)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--users", "nan", "--users = nan: use a number above 0"),
        ("--reviews", "inf", "--reviews = inf: use a number above 0"),
        ("--rps", "0", "--rps = 0.0: use a number above 0"),
        ("--redis-gb", "-1", "--redis-gb = -1.0: use a number above 0"),
        ("--latency-ms", "inf", "--latency-ms = inf"),
        ("--hits", "nan", "--hits = nan: use a share from 0 to 1"),
        ("--rps", "1e308", "these numbers overflow"),
    ],
)
def test_an_unusable_number_is_a_one_line_error(
    flag: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--users", "9", "--items", "9", "--reviews", "9", flag, value])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ubert: ")
    assert message in line


def test_the_command_shows_every_figure_with_its_formula_and_takes_measured_rates(tmp_path: Path) -> None:
    (tmp_path / "rates.json").write_text('{"encode_tokens_per_core": 2000}')
    flags = ["plan", "--users", "1e8", "--items", "5e6", "--reviews", "1e9", "--utilization", "0.5"]
    flags += ["--rates", str(tmp_path / "rates.json")]
    shown = CliRunner().invoke(make_app(["plan"]), flags)
    assert shown.exit_code == 0, shown.output
    planned = json.loads(CliRunner().invoke(make_app(["plan"]), [*flags, "--json"]).stdout)
    assert planned["rates"]["encode_tokens_per_core"] == 2000
    assert planned["demand"]["utilization"] == 0.5
    for name, figure in planned["figures"].items():
        assert any(line.startswith(name) and figure["formula"] in line for line in shown.stdout.splitlines())
    assert [limit["step"] in shown.stdout for limit in planned["limits"]] == [True] * 7


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(2.9e12, "B", "2.9 TB"), (999, "B", "999 B"), (1234, "", "1,234"), (0.479, "core ms", "0.479 core ms")],
)
def test_values_are_shown_rounded_with_their_unit(value: float, unit: str, shown: str) -> None:
    assert format_value(Figure(name="n", value=value, unit=unit, formula="")) == shown
