"""The training loop: what it keeps, when it stops, and that a stop in the middle changes nothing."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from support.full_disk import full_disk
from ubert_model.errors import ConfigError
from ubert_training.optimization.batches import Indices, shuffled_batches
from ubert_training.optimization.loop import (
    BEST_WEIGHTS,
    CHECKPOINT,
    LoopOptions,
    TrainingProgress,
    decayed_groups,
    improves,
    train,
)

OPTIONS = LoopOptions(
    epochs=6, batch_size=4, learning_rate=0.05, weight_decay=0.0, checkpoint_seconds=0.0, precision="fp32", seed=3
)


class Regression:
    """Fits noisy lines by a dropout network; validation asks for ``wanted``, which training may lead away from."""

    def __init__(self, *, wanted: float, fails_after: int | None = None, dropout: float = 0.2) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(1, 8), nn.Dropout(dropout), nn.Linear(8, 1))
        nn.init.zeros_(self.model[2].weight)
        nn.init.zeros_(self.model[2].bias)
        self.inputs = torch.linspace(-1, 1, 32).unsqueeze(1)
        self.wanted = wanted
        self.batch_size = OPTIONS.batch_size
        self.left = fails_after

    def parameter_groups(self, options: LoopOptions) -> list[dict[str, Any]]:
        return decayed_groups(self.model, options.weight_decay, {})

    def batches(self, epoch: int) -> Sequence[Indices]:
        return shuffled_batches(np.arange(32), self.batch_size, OPTIONS.seed, epoch)

    def loss(self, model: nn.Module, rows: Indices, epoch: int) -> Tensor:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return (model(self.inputs[rows]).squeeze(1) - 2.0).square().mean()

    def validation_losses(self) -> NDArray[np.float64]:
        return (self.model(self.inputs).squeeze(1) - self.wanted).square().detach().double().numpy()


def weights(task: Regression) -> list[NDArray[np.float32]]:
    return [parameter.detach().numpy().copy() for parameter in task.model.parameters()]


def run(task: Regression, directory: Path, options: LoopOptions = OPTIONS) -> TrainingProgress:
    directory.mkdir(exist_ok=True)
    task.batch_size = options.batch_size
    return train(task, options, directory, Accelerator(cpu=True), "test", "fingerprint")


def test_the_initial_weights_are_kept_where_no_epoch_is_better(tmp_path: Path) -> None:
    task = Regression(wanted=0.0)
    initial = weights(task)
    progress = run(task, tmp_path, replace(OPTIONS, patience=2))
    assert progress.best_epoch == -1
    assert progress.epoch == 2  # patience counts from the start
    for before, after in zip(initial, weights(task), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_best_epoch_is_kept_and_not_the_last(tmp_path: Path) -> None:
    task = Regression(wanted=1.0)  # training passes it on the way to 2
    progress = run(task, tmp_path)
    assert 0 <= progress.best_epoch < OPTIONS.epochs - 1
    assert task.validation_losses().mean() == pytest.approx(min(progress.validation_losses), rel=1e-5)


@pytest.mark.parametrize("averaging", [None, 0.9])
@pytest.mark.parametrize("steps", [1, 8, 9, 21, 47])
def test_a_run_stopped_at_any_step_continues_to_the_same_weights(
    tmp_path: Path, steps: int, averaging: float | None
) -> None:
    options = replace(OPTIONS, averaging=averaging)
    whole, stopped, resumed = (
        Regression(wanted=2.0),
        Regression(wanted=2.0, fails_after=steps),
        Regression(wanted=2.0),
    )
    run(whole, tmp_path / "whole", options)
    with pytest.raises(KeyboardInterrupt):
        run(stopped, tmp_path / "stopped", options)
    progress = run(resumed, tmp_path / "stopped", options)
    assert progress.updates == OPTIONS.epochs * 8
    for expected, found in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_is_validated_and_kept_is_the_average(tmp_path: Path) -> None:
    task = Regression(wanted=2.0, dropout=0.0)
    plain = run(task, tmp_path / "plain")
    last = task.validation_losses().mean()
    progress = run(
        averaged := Regression(wanted=2.0, dropout=0.0), tmp_path / "averaged", replace(OPTIONS, averaging=0.9)
    )
    assert averaged.validation_losses().mean() == pytest.approx(min(progress.validation_losses), rel=1e-5)
    assert progress.validation_losses[1:3] != pytest.approx(plain.validation_losses[1:3], rel=1e-3)
    assert last == pytest.approx(min(plain.validation_losses), rel=1e-5)


class Observed(Regression):
    """Notes each step's rate and what it draws; its gradients are long."""

    def parameter_groups(self, options: LoopOptions) -> list[dict[str, Any]]:
        self.groups = super().parameter_groups(options)
        self.rates: list[float] = []
        self.noise: list[float] = []
        return self.groups

    def loss(self, model: nn.Module, rows: Indices, epoch: int) -> Tensor:
        self.rates.append(self.groups[0]["lr"])
        self.noise.append(torch.rand(()).item())
        return 1e6 * super().loss(model, rows, epoch)


def test_the_rate_rises_over_the_first_updates_and_falls_to_nothing_over_the_others(tmp_path: Path) -> None:
    task = Observed(wanted=2.0)
    run(task, tmp_path, replace(OPTIONS, warmup_share=0.25))
    rises, falls = np.linspace(0, 1, 12 + 1)[1:], np.linspace(1, 0, 36 + 1)[:-1]  # of 6 · 8 updates
    assert task.rates == pytest.approx((OPTIONS.learning_rate * np.concatenate([rises, falls])).tolist())


def test_no_step_is_taken_on_a_gradient_longer_than_the_longest_allowed(tmp_path: Path) -> None:
    lengths: list[float] = []

    def noted(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [weight.grad.norm() for group in optimizer.param_groups for weight in group["params"]]
        lengths.append(torch.stack(gradients).norm().item())

    watching = register_optimizer_step_pre_hook(noted)
    try:
        run(Observed(wanted=2.0), tmp_path, replace(OPTIONS, epochs=1, max_gradient_norm=0.5))
    finally:
        watching.remove()
    assert lengths == pytest.approx([0.5] * 8, rel=1e-4)


def test_every_step_draws_noise_of_its_own(tmp_path: Path) -> None:
    task = Observed(wanted=2.0)
    run(task, tmp_path, replace(OPTIONS, pieces=2))
    assert len(set(task.noise)) == len(task.noise) == OPTIONS.epochs * 8 * 2


def test_a_checkpoint_of_another_configuration_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Regression(wanted=2.0, fails_after=20), tmp_path)
    assert (tmp_path / CHECKPOINT).exists()
    task = Regression(wanted=2.0)
    progress = train(task, OPTIONS, tmp_path, Accelerator(cpu=True), "test", "another fingerprint")
    assert progress.updates == OPTIONS.epochs * 8
    assert len(progress.validation_losses) == OPTIONS.epochs + 1


def test_accumulated_batches_step_as_one(tmp_path: Path) -> None:
    accumulated, whole = Regression(wanted=2.0, dropout=0.0), Regression(wanted=2.0, dropout=0.0)
    progress = run(accumulated, tmp_path / "accumulated", replace(OPTIONS, accumulate=3))
    assert progress.updates == OPTIONS.epochs * 3  # 3 + 3 + 2 batches an epoch
    run(whole, tmp_path / "whole", replace(OPTIONS, batch_size=12))
    for expected, found in zip(weights(whole), weights(accumulated), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_batch_in_pieces_steps_as_a_whole_one(tmp_path: Path) -> None:
    whole, cut = Regression(wanted=2.0, dropout=0.0), Regression(wanted=2.0, dropout=0.0)
    options = replace(OPTIONS, batch_size=5)  # whose last batch, of two, has fewer rows than pieces
    run(whole, tmp_path / "whole", options)
    run(cut, tmp_path / "cut", replace(options, pieces=3))
    for expected, found in zip(weights(whole), weights(cut), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("pieces", [0, 5])
def test_more_pieces_than_a_batch_has_rows_are_refused(pieces: int) -> None:
    with pytest.raises(ConfigError, match=f"pieces = {pieces}: use 1 to 4"):
        replace(OPTIONS, pieces=pieces)


def test_a_gain_within_its_noise_is_no_improvement() -> None:
    rng = np.random.default_rng(0)
    best = rng.normal(1, 0.5, 400) ** 2
    noise = rng.normal(0, 0.2, 400)
    noise -= noise.mean()
    assert improves(best + noise - 0.02, best, standard_errors=1.0)
    assert not improves(best + noise - 0.005, best, standard_errors=1.0)
    assert improves(best + noise - 0.005, best, standard_errors=0.0)
    assert not improves(best, best, standard_errors=0.0)


@pytest.mark.parametrize("name", ["epochs", "batch_size", "accumulate", "learning_rate"])
def test_options_that_cannot_train_are_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} = 0"):
        replace(OPTIONS, **{name: 0})


@pytest.mark.parametrize("seconds", [-1.0, math.nan])
def test_a_time_between_checkpoints_that_never_comes_is_refused(seconds: float) -> None:
    """No time is longer than NaN: a run that was killed would begin again from the last epoch."""
    with pytest.raises(ConfigError, match=f"checkpoint_seconds = {seconds}"):
        replace(OPTIONS, checkpoint_seconds=seconds)


def test_patience_for_no_epoch_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"patience = 0: use 1 or more epochs"):
        replace(OPTIONS, patience=0)


@pytest.mark.parametrize(("room", "file"), [(100, BEST_WEIGHTS), (2000, CHECKPOINT)])
def test_a_full_disk_is_an_error_that_names_the_file_and_costs_no_more_than_the_last_steps(
    tmp_path: Path, room: int, file: str
) -> None:
    """The limit on a file's size stands for the disk: what it refuses comes the same way, from the same library."""
    whole = Regression(wanted=2.0)
    assert run(whole, tmp_path / "whole").best_epoch is not None
    task = Regression(wanted=2.0)
    with full_disk(room), pytest.raises(OSError, match=rf"{file} cannot be written .*; make room, then run the same"):
        run(task, tmp_path / "run")
    again = Regression(wanted=2.0)
    run(again, tmp_path / "run")
    assert all(np.array_equal(*pair) for pair in zip(weights(again), weights(whole), strict=True))
