"""`ubert demo` does what the commands that it stands for do, and its refusals name a remedy that it has."""

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


class ReachedError(Exception):
    """Pre-training was about to begin."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Configuration and options that a command pre-trains with, in place of pre-training."""
    heard: list[Any] = []

    def stand_in(table: Any, split: Any, config: Any, lexicon: Any, options: Any, *rest: Any, **more: Any) -> None:
        heard.append((config, options))
        raise ReachedError

    monkeypatch.setattr(pretraining, "pretrain", stand_in)
    return heard


def write_reviews(path: Path, *, seed: int = 0) -> Path:
    table = small_table(seed=seed)
    values = zip(table.user, table.item, table.rating.tolist(), table.text, table.timestamp.tolist(), strict=True)
    names = ("reviewerID", "asin", "overall", "reviewText", "unixReviewTime")
    path.write_text("".join(json.dumps(dict(zip(names, review, strict=True))) + "\n" for review in values))
    return path


def ubert(*arguments: str) -> Result:
    return CliRunner().invoke(make_app([arguments[0]]), list(arguments))


@pytest.mark.parametrize("preset", ["minilm", "tiny"])
def test_the_demo_pre_trains_as_the_command_does(asked: list[Any], tmp_path: Path, preset: str) -> None:
    reviews, directory = write_reviews(tmp_path / "reviews.json"), tmp_path / "demo"
    shared = ["--preset", preset, "--seed", "3"]
    demonstrated = ubert("demo", "--reviews", str(reviews), "--dir", str(directory), "--no-serve", *shared)
    given = ["--reviews", str(directory / "reviews"), "--split", str(tmp_path / "split.parquet")]
    ubert("split", *given[:2], "--out", given[3], "--seed", "3")
    command = ubert("pretrain", *given, "--out", str(tmp_path / "pretrained"), *shared)
    assert [type(result.exception) for result in (demonstrated, command)] == [ReachedError, ReachedError], (
        demonstrated.output + command.output
    )
    assert asked[0] == asked[1]


def test_the_demo_in_a_directory_of_other_reviews_is_refused_until_it_is_forced(
    asked: list[Any], tmp_path: Path
) -> None:
    for seed, flags, expected in ((0, [], ReachedError), (1, [], InputError), (1, ["--force"], ReachedError)):
        reviews = write_reviews(tmp_path / f"{seed}.json", seed=seed)
        result = ubert("demo", "--reviews", str(reviews), "--dir", str(tmp_path / "demo"), "--no-serve", *flags)
        assert type(result.exception) is expected, result.output
        if expected is InputError:
            assert "give another directory, or --force to replace it" in str(result.exception)
            assert "--out" not in str(result.exception)
    assert len(asked) == 2


def test_an_offline_demo_of_another_seed_leaves_the_synthetic_corpus_until_it_is_forced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "fetch_musical_instruments", lambda: None)
    first = demo.choose_reviews(None, None, tmp_path, seed=0).files[0].read_bytes()
    with pytest.raises(ConfigError, match=r"holds another corpus \(seed = 0\); give another directory, or --force"):
        demo.choose_reviews(None, None, tmp_path, seed=1)
    assert demo.choose_reviews(None, None, tmp_path, seed=0).files[0].read_bytes() == first
    assert demo.choose_reviews(None, None, tmp_path, seed=1, force=True).files[0].read_bytes() != first


def test_domains_of_items_are_refused_without_the_file_of_their_reviews(tmp_path: Path) -> None:
    result = ubert("demo", "--item-domains", "items.tsv", "--dir", str(tmp_path / "demo"))
    assert type(result.exception) is ConfigError, result.output
    assert str(result.exception).startswith("--item-domains = 'items.tsv'")
    assert "give it with --reviews" in str(result.exception)
    assert not (tmp_path / "demo").exists()


def test_the_demo_asks_for_no_more_candidates_than_a_request_may_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo.MOST_CANDIDATES == MAX_CANDIDATES
    table = small_table()
    assert demo.rankable_items(table) == sorted(set(table.item))
    monkeypatch.setattr(demo, "MOST_CANDIDATES", 2)
    assert demo.rankable_items(table) == sorted(set(table.item))[:2]


def test_a_service_that_refuses_or_is_gone_ends_the_demo_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    request = httpx.Request("POST", "http://localhost:1/rank")

    def gone(*_: Any, **__: Any) -> httpx.Response:
        raise httpx.ReadTimeout("timed out", request=request)

    for answer in (gone, lambda *_, **__: httpx.Response(503, request=request)):
        monkeypatch.setattr(httpx, "post", answer)
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
