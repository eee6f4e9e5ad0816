"""`ubert demo` on a small synthetic corpus with the tiny preset, and a killed precompute of its reviews."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from support.processes import running
from support.store_contents import item_reviews, user_reviews
from ubert_model.bundle import Bundle
from ubert_model.errors import UbertError
from ubert_model.review import Side
from ubert_model.states import DEFAULT_CODEC, FloatMatrix, open_store
from ubert_training.cli import make_app
from ubert_training.corpora.synth import SynthOptions, write_corpus
from ubert_training.reviews.table import ReviewTable
from ubert_training.splits import Split

pytestmark = pytest.mark.timeout(900)  # they train, in processes that may share the cores with others
TIMEOUT_S = 600
KILLED_PRECOMPUTE = """
import os, signal
from ubert_model.states.lmdb_store import LmdbStore
from ubert_training.cli import main

written, put = [], LmdbStore.put

def put_or_die(store, version, reviews):
    if len(written) == {batches}:
        os.kill(os.getpid(), signal.SIGKILL)
    put(store, version, reviews)
    written.append(len(reviews))

LmdbStore.put = put_or_die
main()
"""
"""`ubert precompute` that kills itself with SIGKILL after ``batches`` batches."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo")
    corpus = write_corpus(directory / "corpus", SynthOptions(users=120, items=60, domains=2, reviews=1800))
    run_demo(directory / "demo", corpus.reviews, corpus.item_domains)
    return directory / "demo"


def demo_arguments(directory: Path, reviews: Path, item_domains: Path, *, serve: bool = False) -> list[str]:
    where = ["--reviews", str(reviews), "--item-domains", str(item_domains), "--dir", str(directory)]
    return ["demo", "--preset", "tiny", "--serve" if serve else "--no-serve", "--port", "0", *where]


def corpus_of(demo: Path) -> tuple[Path, Path]:
    """The files of reviews and of item domains that the demo was given."""
    reviews, item_domains = sorted((demo.parent / "corpus").glob("synthetic-*"), reverse=True)
    return reviews, item_domains


def run_demo(directory: Path, reviews: Path, item_domains: Path) -> None:
    command = [sys.executable, "-m", "ubert_training.cli", *demo_arguments(directory, reviews, item_domains)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def ubert(arguments: Sequence[str]) -> str:
    """The output of a command, run in this process, where the imports are done already."""
    result = CliRunner().invoke(make_app([arguments[0]]), arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_ratings_over_http_equal_offline_evaluation(demo: Path) -> None:
    served = json.loads((demo / "served.json").read_text())
    assert served["pairs"] > 100
    assert served["largest_difference"] < 1e-4


def test_the_evaluation_scores_every_baseline_and_its_history_slices_cover_all_pairs(demo: Path) -> None:
    evaluation = json.loads((demo / "finetuned" / "evaluation.json").read_text())
    names = {
        "U-BERT",
        "U-BERT's bias part",
        "bias part, no text",
        "mean",
        "user + item bias",
        "SVD",
        "SVD++",
    }
    assert set(evaluation["scores"]) == names
    assert set(evaluation["differences"]) == names - {"U-BERT"}
    for slices in (evaluation["by_user_history"], evaluation["by_item_history"]):
        assert sum(scored["mean"]["pairs"] for scored in slices.values()) == evaluation["scores"]["mean"]["pairs"]
    assert (demo / "finetuned" / "evaluation.png").stat().st_size > 10_000


def test_the_store_holds_exactly_the_training_reviews(demo: Path) -> None:
    table = ReviewTable.load(demo / "reviews" / "reviews.parquet")
    split = Split.load(demo / "split.parquet", table)
    version = Bundle.load(demo / "bundle").manifest.namespace(DEFAULT_CODEC).version
    store = open_store(f"lmdb:{demo / 'store'}")
    lists = user_reviews(store, version, store.entities(version, Side.USER))
    listed = {entry.review_id for reviews in lists for entry in reviews}
    store.close()
    assert listed == {table.review_id[row] for row in split.train.tolist()}


def test_a_second_run_trains_nothing_again_and_ends_its_service_when_terminated(demo: Path) -> None:
    bundle = Bundle.load(demo / "bundle").manifest.bundle_id
    before = (demo / "finetuned" / "model.safetensors").stat().st_mtime_ns
    command = [sys.executable, "-m", "ubert_training.cli", *demo_arguments(demo, *corpus_of(demo), serve=True)]
    with running(command) as demonstration:
        assert demonstration.stdout is not None
        url = next(found.group(1) for line in demonstration.stdout if (found := re.search(r"running at (\S+)", line)))
        answer = httpx.get(f"{url}/version", timeout=30, trust_env=False)
        assert answer.json()["bundle"] == bundle
        assert (demo / "finetuned" / "model.safetensors").stat().st_mtime_ns == before
        demonstration.terminate()
        assert demonstration.wait(timeout=60) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz", timeout=30, trust_env=False)


def stored(demo: Path, url: str) -> dict[str, FloatMatrix]:
    """The states of every listed review. Checks that users' and items' lists agree and that no state is missing."""
    codec = Bundle.load(demo / "bundle").codec("fp32")
    version = codec.namespace.version
    store = open_store(url)
    users, items = (store.entities(version, side) for side in Side)
    by_user = {entry.review_id for reviews in user_reviews(store, version, users) for entry in reviews}
    by_item = {entry.review_id for reviews in item_reviews(store, version, items) for entry in reviews}
    assert by_user == by_item
    payloads = dict(zip(sorted(by_user), store.states(version, sorted(by_user)), strict=True))
    store.close()
    assert None not in payloads.values()
    return {name: codec.decode(payload) for name, payload in payloads.items() if payload}


def precompute_arguments(demo: Path, url: str) -> list[str]:
    paths = ["--reviews", str(demo / "reviews"), "--bundle", str(demo / "bundle"), "--store", url]
    return ["precompute", *paths, "--codec", "fp32"]


@pytest.fixture(scope="module")
def expected(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, FloatMatrix]:
    """What an uninterrupted precompute writes."""
    url = f"lmdb:{tmp_path_factory.mktemp('uninterrupted') / 'states'}"
    ubert(precompute_arguments(demo, url))
    return stored(demo, url)


@pytest.mark.parametrize("batches", [0, 3])
def test_a_killed_precompute_run_again_writes_the_rest(
    demo: Path, expected: dict[str, FloatMatrix], tmp_path: Path, batches: int
) -> None:
    url = f"lmdb:{tmp_path / 'killed'}"
    arguments = precompute_arguments(demo, url)
    program = [sys.executable, "-c", KILLED_PRECOMPUTE.format(batches=batches)]
    killed = subprocess.run([*program, *arguments], capture_output=True, timeout=TIMEOUT_S, check=False)
    assert killed.returncode == -signal.SIGKILL
    before = stored(demo, url)
    assert bool(before) == bool(batches)
    assert f"{len(before)} already there" in " ".join(ubert(arguments).split())
    found = stored(demo, url)
    assert found.keys() == expected.keys()
    for name, states in expected.items():  # encoded in other batches, so equal up to rounding
        np.testing.assert_allclose(found[name], states, atol=1e-5)


def test_another_seed_is_refused_and_changes_no_file(demo: Path) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in demo.rglob("*") if path.is_file()}

    before = files()
    result = CliRunner().invoke(make_app(["demo"]), [*demo_arguments(demo, *corpus_of(demo)), "--seed", "1"])
    assert isinstance(result.exception, UbertError)
    assert "another configuration" in str(result.exception)
    assert files() == before
