"""`ubert demo` pre-trains as `ubert pretrain` does, and its refusals name its own flags as remedies."""

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from support.small_corpus import small_table
from ubert_model.errors import ConfigError, InputError, UbertError
from ubert_service.schemas import MAX_CANDIDATES
from ubert_training import demo
from ubert_training.cli import make_app
from ubert_training.pretraining import pretrain as pretraining
from ubert_training.reviews.options import ImportOptions
from ubert_training.reviews.table import ReviewTable


class PretrainingReachedError(Exception):
    """Raised in place of pre-training."""


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configuration and options of every call of pre-training, which is not run."""
    calls: list[Any] = []

    def record(table: Any, split: Any, config: Any, lexicon: Any, options: Any, *rest: Any, **more: Any) -> None:
        calls.append((config, options))
        raise PretrainingReachedError

    monkeypatch.setattr(pretraining, "pretrain", record)
    return calls


def write_reviews(path: Path, *, seed: int = 0) -> Path:
    table = small_table(seed=seed)
    values = zip(table.user, table.item, table.rating.tolist(), table.text, table.timestamp.tolist(), strict=True)
    names = ("reviewerID", "asin", "overall", "reviewText", "unixReviewTime")
    path.write_text("".join(json.dumps(dict(zip(names, review, strict=True))) + "\n" for review in values))
    return path


def ubert(*arguments: str) -> Result:
    return CliRunner().invoke(make_app([arguments[0]]), list(arguments))


@pytest.mark.parametrize("preset", ["minilm", "tiny"])
def test_the_demo_pre_trains_as_the_command_does(recorded: list[Any], tmp_path: Path, preset: str) -> None:
    reviews, directory = write_reviews(tmp_path / "reviews.json"), tmp_path / "demo"
    shared = ["--preset", preset, "--seed", "3"]
    demo_result = ubert("demo", "--reviews", str(reviews), "--dir", str(directory), "--no-serve", *shared)
    given = ["--reviews", str(directory / "reviews"), "--split", str(tmp_path / "split.parquet")]
    ubert("split", *given[:2], "--out", given[3], "--seed", "3")
    command_result = ubert("pretrain", *given, "--out", str(tmp_path / "pretrained"), *shared)
    for result in (demo_result, command_result):
        assert type(result.exception) is PretrainingReachedError, result.output
    assert recorded[0] == recorded[1]


def test_a_demo_directory_of_other_reviews_is_replaced_only_with_force(recorded: list[Any], tmp_path: Path) -> None:
    for seed, flags, expected in (
        (0, [], PretrainingReachedError),
        (1, [], InputError),
        (1, ["--force"], PretrainingReachedError),
    ):
        reviews = write_reviews(tmp_path / f"{seed}.json", seed=seed)
        result = ubert("demo", "--reviews", str(reviews), "--dir", str(tmp_path / "demo"), "--no-serve", *flags)
        assert type(result.exception) is expected, result.output
        if expected is InputError:
            assert "give another directory, or --force to replace it" in str(result.exception)
            assert "--out" not in str(result.exception)
    assert len(recorded) == 2


def test_the_offline_demos_corpus_of_another_seed_is_replaced_only_with_force(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "fetch_musical_instruments", lambda: None)
    first = demo.choose_reviews(None, ImportOptions(), tmp_path, seed=0).files[0].read_bytes()
    with pytest.raises(ConfigError, match=r"holds another corpus \(seed = 0\); give another directory, or --force"):
        demo.choose_reviews(None, ImportOptions(), tmp_path, seed=1)
    assert demo.choose_reviews(None, ImportOptions(), tmp_path, seed=0).files[0].read_bytes() == first
    assert demo.choose_reviews(None, ImportOptions(), tmp_path, seed=1, force=True).files[0].read_bytes() != first


def test_the_demo_imports_reviews_as_its_flags_say(recorded: list[Any], tmp_path: Path) -> None:
    shop = tmp_path / "shop.csv"
    rows = [f"u{n % 5},i{n // 5},{n % 11},review {n}" for n in range(25)]
    shop.write_text("\n".join(["who,sku,stars,body", *rows, "u1,i9,99,off the scale"]))
    flags = ["--columns", "user=who,item=sku,rating=stars,text=body", "--scale", "0:10", "--core", "0"]
    result = ubert("demo", "--reviews", str(shop), "--dir", str(tmp_path / "demo"), *flags, "--max-bad", "0.1")
    assert type(result.exception) is PretrainingReachedError, result.output
    table = ReviewTable.load(tmp_path / "demo" / "reviews" / "reviews.parquet")
    assert (len(table), str(table.scale)) == (25, "0:10")


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--item-domains", "'items.tsv'"), ("--columns", "'user=u'"), ("--scale", "'0:10'"), ("--core", "0")],
)
def test_import_flags_without_reviews_are_refused(tmp_path: Path, flag: str, value: str) -> None:
    result = ubert("demo", flag, value.strip("'"), "--dir", str(tmp_path / "demo"))
    assert type(result.exception) is ConfigError, result.output
    assert str(result.exception).startswith(f"{flag} = {value}")
    assert "give it with --reviews" in str(result.exception)
    assert not (tmp_path / "demo").exists()


def test_the_demo_ranks_no_more_candidates_than_a_request_may_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo.MOST_CANDIDATES == MAX_CANDIDATES
    table = small_table()
    assert demo.rankable_items(table) == sorted(set(table.item))
    monkeypatch.setattr(demo, "MOST_CANDIDATES", 2)
    assert demo.rankable_items(table) == sorted(set(table.item))[:2]


def test_a_request_that_fails_or_times_out_is_an_error_that_names_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    request = httpx.Request("POST", "http://localhost:1/rank")

    def time_out(*_: Any, **__: Any) -> httpx.Response:
        raise httpx.ReadTimeout("timed out", request=request)

    for post in (time_out, lambda *_, **__: httpx.Response(503, request=request)):
        monkeypatch.setattr(httpx, "post", post)
        with pytest.raises(UbertError, match=r"the service gave no answer .*service\.log"):
            demo.best_items("http://localhost:1", "user", ["item"], 1)


def test_a_taken_port_is_refused_before_any_work(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = ubert("demo", "--dir", str(tmp_path / "demo"), "--port", str(port))
    assert isinstance(refused.exception, ConfigError)
    assert (
        str(refused.exception) == f"port = {port}: Address already in use; give another --port, or 0 for any free one"
    )
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_number_that_is_no_port_is_refused(tmp_path: Path, port: str) -> None:
    result = ubert("demo", "--port", port, "--dir", str(tmp_path / "demo"))
    assert result.exit_code == 2, result.output
    assert "--port" in result.output
    assert not (tmp_path / "demo").exists()
