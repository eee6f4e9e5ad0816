"""Law 8: a training stage killed with SIGKILL continues to the same weights."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from support.small_corpus import small_table
from ubert_model.bundle import WEIGHTS
from ubert_training.loop import CHECKPOINT
from ubert_training.splits import random_split

TIMEOUT_S = 120


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    table = small_table(users=40)
    table.save(directory / "reviews.parquet")
    random_split(table, np.arange(len(table)), seed=0).save(directory / "split.parquet", table)
    (directory / "words.txt").write_text("good\nsolid\nexcellent\nlove\nterrible\njunk\nweak\ndecent\n")
    return directory


def pretrain_command(corpus: Path, out: Path) -> list[str]:
    flags = ["--preset", "tiny", "--epochs", "6", "--batch-size", "8", "--lexicon", str(corpus / "words.txt")]
    return command("pretrain", corpus, out, *flags)


def finetune_command(corpus: Path, out: Path) -> list[str]:
    return command("finetune", corpus, out, "--preset", "tiny", "--epochs", "12", "--batch-size", "4")


def command(name: str, corpus: Path, out: Path, *flags: str) -> list[str]:
    shared = ["--reviews", str(corpus), "--split", str(corpus / "split.parquet"), "--out", str(out)]
    return [sys.executable, "-m", "ubert_training.cli", name, *shared, "--checkpoint-seconds", "0", *flags]


def kill_at_a_checkpoint(arguments: list[str], checkpoint: Path) -> None:
    """Start, wait until some steps are saved, and kill without warning."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + TIMEOUT_S
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the stage ended before it could be killed: give it more work"


@pytest.mark.parametrize("make", [pretrain_command, finetune_command], ids=["pretrain", "finetune"])
def test_a_killed_stage_ends_with_the_weights_of_an_unkilled_one(make, corpus: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    subprocess.run(make(corpus, whole), check=True, timeout=TIMEOUT_S, capture_output=True)
    kill_at_a_checkpoint(make(corpus, killed), killed / CHECKPOINT)
    assert not (killed / WEIGHTS).exists()
    subprocess.run(make(corpus, killed), check=True, timeout=TIMEOUT_S, capture_output=True)
    expected, found = load_file(whole / WEIGHTS), load_file(killed / WEIGHTS)
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        np.testing.assert_allclose(found[name], weight, atol=1e-5, err_msg=name)


def test_a_finished_stage_started_again_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    arguments = pretrain_command(corpus, tmp_path / "run")
    subprocess.run(arguments, check=True, timeout=TIMEOUT_S, capture_output=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    subprocess.run(arguments, check=True, timeout=TIMEOUT_S, capture_output=True)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
