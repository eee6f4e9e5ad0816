"""Two processes train the same weights by the same losses as one, and each resumes from the other's checkpoints."""

import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from support.training_stage import (
    NO_CHECKPOINTS,
    TinyCorpus,
    assert_same_weights,
    on_one_process,
    on_processes,
    run_in_process,
    run_to_completion,
    stop_after_a_checkpoint,
)
from ubert_model.bundle import WEIGHTS
from ubert_training.optimization.loop import CHECKPOINT

pytestmark = pytest.mark.timeout(900)  # they train, in processes that may share the cores with others

# Dropout stays on: each of the two pieces of a batch draws the same masks in one process as in two. In fp32, because
# bfloat16 has only about three digits, so that rounding would hide real differences.
SHARED = ["--pieces", "2", "--precision", "fp32", "--batch-size", "8", "--seed", "3"]
STAGES = {
    "pretrain": ["pretrain", "--epochs", "3", "--accumulate", "2", *SHARED],
    "cached": ["finetune", "--epochs", "12", "--shard-optimizer", *SHARED],
    "end-to-end": ["finetune", "--epochs", "3", "--mode", "end-to-end", "--shard-optimizer", *SHARED],
}
Trained = Callable[[str], Path]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TinyCorpus:
    return TinyCorpus.write(tmp_path_factory.mktemp("corpus"), target="domain-0")


@pytest.fixture(scope="module")
def trained(corpus: TinyCorpus, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The directory of a stage that one process trained without interruption."""

    @cache
    def by_one_process(stage: str) -> Path:
        directory = tmp_path_factory.mktemp("one") / "run"
        run_in_process([*arguments(corpus, stage, directory), *NO_CHECKPOINTS])
        return directory

    return by_one_process


def arguments(corpus: TinyCorpus, stage: str, out: Path) -> list[str]:
    name, *flags = STAGES[stage]
    return corpus.arguments(name, out, *flags)


def curve(directory: Path, name: str) -> NDArray[np.float64]:
    """Step and loss of each of the P points in TensorBoard, (P, 2)."""
    events = EventAccumulator(str(directory / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return np.array([(event.step, event.value) for event in events.Scalars(name)])


@pytest.mark.parametrize("stage", ["pretrain", "end-to-end"])
def test_two_processes_have_the_losses_and_weights_of_one(
    stage: str, corpus: TinyCorpus, trained: Trained, tmp_path: Path
) -> None:
    run_to_completion(on_processes(2, [*arguments(corpus, stage, tmp_path / "run"), *NO_CHECKPOINTS]))
    for name in ("loss/train", "loss/validation"):
        expected = curve(trained(stage), name)
        assert len(expected) > 1
        np.testing.assert_allclose(curve(tmp_path / "run", name), expected, rtol=1e-4)
    assert_same_weights(tmp_path / "run", trained(stage))


def test_two_processes_resume_from_a_checkpoint_of_one(corpus: TinyCorpus, trained: Trained, tmp_path: Path) -> None:
    stage = arguments(corpus, "pretrain", tmp_path / "run")
    stop_after_a_checkpoint(on_one_process(stage), tmp_path / "run" / CHECKPOINT, signal.SIGKILL)
    run_to_completion(on_processes(2, stage))
    assert_same_weights(tmp_path / "run", trained("pretrain"))


def test_one_process_resumes_from_a_checkpoint_of_two_with_a_sharded_optimizer(
    corpus: TinyCorpus, trained: Trained, tmp_path: Path
) -> None:
    stage = arguments(corpus, "cached", tmp_path / "run")
    stop_after_a_checkpoint(on_processes(2, stage), tmp_path / "run" / CHECKPOINT, signal.SIGTERM)
    assert not (tmp_path / "run" / WEIGHTS).exists()
    run_in_process(stage)
    assert_same_weights(tmp_path / "run", trained("cached"))
