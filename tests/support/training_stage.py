"""Training stages as users start them: on one process or several, killed in the middle or not."""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Self

import numpy as np
import pytest
from safetensors.numpy import load_file

from support.processes import running
from support.small_corpus import small_table
from support.waiting import wait_until
from ubert_model.bundle import WEIGHTS
from ubert_training.cli import main
from ubert_training.splits import random_split

TIMEOUT_S = 600
CHECKPOINTS = 3
"""How many a stage saves, at least, before it is stopped, so that the signal comes somewhere in the middle."""

NO_CHECKPOINTS = ("--checkpoint-seconds", str(TIMEOUT_S))
"""For a stage that runs to completion: a checkpoint at every step would take as long as the steps."""


@dataclass(frozen=True, kw_only=True)
class TinyCorpus:
    """The files that the training commands read."""

    directory: Path

    @classmethod
    def write(cls, directory: Path, *, target: str | None = None) -> Self:
        """``target``: the domain to predict in; None takes all."""
        table = small_table(users=40)
        rows = np.arange(len(table)) if target is None else table.rows_of_domains(target)
        table.save(directory / "reviews.parquet")
        random_split(table, rows, seed=0).save(directory / "split.parquet", table)
        (directory / "words.txt").write_text("good\nsolid\nexcellent\nlove\nterrible\njunk\nweak\ndecent\n")
        return cls(directory=directory)

    def arguments(self, name: str, out: Path, *flags: str) -> list[str]:
        """``ubert``'s arguments for a stage that saves a checkpoint at every step."""
        lexicon = ["--lexicon", str(self.directory / "words.txt")] if name == "pretrain" else []
        shared = ["--reviews", str(self.directory), "--split", str(self.directory / "split.parquet"), "--out", str(out)]
        return [name, *shared, "--preset", "tiny", "--checkpoint-seconds", "0", *lexicon, *flags]


def on_one_process(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "ubert_training.cli", *arguments]


def on_processes(count: int, arguments: Sequence[str]) -> list[str]:
    """Under torchrun, which finds a free port by itself."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return [sys.executable, *launcher, "-m", "ubert_training.cli", *arguments]


def run_in_process(arguments: Sequence[str]) -> None:
    """In this process, which has torch imported already."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0


def run_to_completion(command: Sequence[str]) -> None:
    done = subprocess.run(command, timeout=TIMEOUT_S, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def stop_after_a_checkpoint(command: Sequence[str], checkpoint: Path, signal: Signals) -> None:
    """Start a stage, wait until some steps are saved, and send the signal; asserts that the signal ends the stage."""
    saved: set[int] = set()

    def has_saved_some() -> bool:
        with suppress(FileNotFoundError):
            saved.add(checkpoint.stat().st_mtime_ns)
        return len(saved) >= CHECKPOINTS or process.poll() is not None

    with running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(has_saved_some, or_fail="the stage saved no checkpoint", within_s=TIMEOUT_S)
        process.send_signal(signal)
        assert process.wait(timeout=TIMEOUT_S) != 0, "the stage ended before it could be stopped: give it more work"


def assert_same_weights(directory: Path, expected: Path) -> None:
    found, weights = load_file(directory / WEIGHTS), load_file(expected / WEIGHTS)
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_allclose(found[name], weight, atol=1e-5, err_msg=name)
