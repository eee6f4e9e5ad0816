"""Law 2, from training to HTTP: the service rates test pairs as their offline evaluation did."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from support.app_settings import settings_for
from support.running_app import serving
from support.training_stage import TinyCorpus, run_in_process
from ubert_model.bundle import Bundle
from ubert_model.states import open_store
from ubert_training.evaluation.evaluate import PREDICTIONS

pytestmark = pytest.mark.timeout(900)  # it trains, on cores that may be shared with others


def test_ratings_after_pre_training_in_another_domain_equal_their_evaluation(tmp_path: Path) -> None:
    corpus = TinyCorpus.write(tmp_path, target="domain-0")
    reviews, run, bundle, store = (
        ["--reviews", str(tmp_path)],
        tmp_path / "run",
        tmp_path / "bundle",
        tmp_path / "store",
    )
    pretraining = ["--epochs", "1", "--corpus", "other-domains"]
    finetuning = ["--epochs", "1", "--precision", "fp32", "--pretrained", str(tmp_path / "pretrained")]
    train_part = ["--split", str(tmp_path / "split.parquet"), "--part", "train"]
    for command in (
        corpus.arguments("pretrain", tmp_path / "pretrained", *pretraining),
        corpus.arguments("finetune", run, *finetuning),
        ["evaluate", *reviews, "--run", str(run)],
        ["export", "--run", str(run), "--out", str(bundle)],
        ["precompute", *reviews, *train_part, "--bundle", str(bundle), "--store", f"lmdb:{store}", "--codec", "fp32"],
    ):
        run_in_process(command)
    opened = Bundle.load(bundle)
    expected = [json.loads(line) for line in (run / PREDICTIONS).read_text().splitlines()]
    assert opened.manifest.blend_weight > 0
    assert opened.deviations.elsewhere.sums[:, 0].sum() > 100, "the bias model reads ratings in the other domain"
    with closing(open_store(f"lmdb:{store}")) as states, serving(settings_for(opened), states) as client:
        pairs = [{name: pair[name] for name in ("user", "item")} for pair in expected]
        served = client.post("/predict", json={"pairs": pairs}).raise_for_status().json()["predictions"]
    found = [(one["rating"], one["interval"]["low"], one["interval"]["high"]) for one in served]
    wanted = [(one["predicted"], one["low"], one["high"]) for one in expected]
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)
