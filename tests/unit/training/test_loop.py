"""The training loop: which weights it keeps, when it stops, how it steps, and that a stopped run resumes exactly."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from support.full_disk import full_disk
from ubert_model.errors import ConfigError, InputError
from ubert_training.errors import DivergedError
from ubert_training.optimization.batches import Indices, shuffled_batches
from ubert_training.optimization.loop import (
    BEST_WEIGHTS,
    CHECKPOINT,
    UPDATES_A_LOOK,
    LoopOptions,
    TrainingProgress,
    decayed_groups,
    improves,
    train,
)
from ubert_training.running.devices import make_accelerator

OPTIONS = LoopOptions(
    epochs=6, batch_size=4, learning_rate=0.05, weight_decay=0.0, checkpoint_seconds=0.0, precision="fp32", seed=3
)


class Regression:
    """A network with dropout that is trained to predict 2 everywhere, and validated against ``validation_target``.

    ``fails_after``: the number of losses after which training is interrupted.
    """

    def __init__(self, *, validation_target: float, fails_after: int | None = None, dropout: float = 0.2) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(1, 8), nn.Dropout(dropout), nn.Linear(8, 1))
        nn.init.zeros_(self.model.get_parameter("2.weight"))
        nn.init.zeros_(self.model.get_parameter("2.bias"))
        self.inputs = torch.linspace(-1, 1, 32).unsqueeze(1)
        self.validation_target = validation_target
        self.batch_size = OPTIONS.batch_size
        self.losses_left = fails_after

    def parameter_groups(self, options: LoopOptions) -> list[dict[str, Any]]:
        return decayed_groups(self.model, options.weight_decay, {})

    def batches(self, epoch: int) -> Sequence[Indices]:
        return shuffled_batches(np.arange(32), self.batch_size, OPTIONS.seed, epoch)

    def loss(self, model: nn.Module, rows: Indices, epoch: int) -> Tensor:
        if self.losses_left is not None:
            self.losses_left -= 1
            if self.losses_left < 0:
                raise KeyboardInterrupt
        predicted: Tensor = model(self.inputs[rows]).squeeze(1)
        return (predicted - 2.0).square().mean()

    def validation_losses(self) -> NDArray[np.float64]:
        predicted: Tensor = self.model(self.inputs).squeeze(1)
        return (predicted - self.validation_target).square().detach().double().numpy()


def weights(task: Regression) -> list[NDArray[np.float32]]:
    return [parameter.detach().numpy().copy() for parameter in task.model.parameters()]


def run(task: Regression, directory: Path, options: LoopOptions = OPTIONS) -> TrainingProgress:
    directory.mkdir(exist_ok=True)
    task.batch_size = options.batch_size
    return train(task, options, directory, make_accelerator("cpu"), "test", "fingerprint")


def test_the_initial_weights_are_kept_if_no_epoch_improves(tmp_path: Path) -> None:
    task = Regression(validation_target=0.0)
    initial = weights(task)
    progress = run(task, tmp_path, replace(OPTIONS, patience=2))
    assert progress.best_epoch == -1
    assert progress.epoch == 2  # patience counts from the initial weights
    for before, after in zip(initial, weights(task), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_best_epoch_is_kept_and_not_the_last(tmp_path: Path) -> None:
    task = Regression(validation_target=1.0)  # training passes it on the way to 2
    progress = run(task, tmp_path)
    assert progress.best_epoch in range(OPTIONS.epochs - 1)
    assert task.validation_losses().mean() == pytest.approx(min(progress.validation_losses), rel=1e-5)


def test_a_run_that_diverges_is_refused_with_its_learning_rate(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"learning_rate = 1e\+30: training diverged in epoch 1; use a smaller one"):
        run(Regression(validation_target=2.0), tmp_path, replace(OPTIONS, learning_rate=1e30))


@pytest.mark.parametrize("averaging", [None, 0.9])
@pytest.mark.parametrize("steps", [1, 8, 9, 21, 47])
def test_a_run_stopped_at_any_step_continues_to_the_same_weights(
    tmp_path: Path, steps: int, averaging: float | None
) -> None:
    options = replace(OPTIONS, averaging=averaging)
    whole, stopped, resumed = (
        Regression(validation_target=2.0),
        Regression(validation_target=2.0, fails_after=steps),
        Regression(validation_target=2.0),
    )
    run(whole, tmp_path / "whole", options)
    with pytest.raises(KeyboardInterrupt):
        run(stopped, tmp_path / "stopped", options)
    progress = run(resumed, tmp_path / "stopped", options)
    assert progress.updates == OPTIONS.epochs * 8
    for expected, found in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_frozen_weights_are_in_no_file_of_a_run_and_as_it_began_when_it_continues(tmp_path: Path) -> None:
    whole, stopped, resumed = (Regression(validation_target=2.0, fails_after=steps) for steps in (None, 21, None))
    for task in (whole, stopped, resumed):
        task.model.get_parameter("0.weight").requires_grad_(False)
    initial, trainable = weights(whole)[0], {"0.bias", "2.weight", "2.bias"}
    run(whole, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(stopped, tmp_path / "stopped")
    assert load_file(tmp_path / "stopped" / BEST_WEIGHTS).keys() == trainable
    assert torch.load(tmp_path / "stopped" / CHECKPOINT, weights_only=True)["model"].keys() == trainable
    run(resumed, tmp_path / "stopped")
    np.testing.assert_array_equal(weights(resumed)[0], initial)
    for expected, found in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def bfloat16_in_hardware(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    for module in ("ubert_training.running.devices", "ubert_training.optimization.loop"):
        monkeypatch.setattr(f"{module}.has_native_bfloat16", lambda _: native)


def test_a_run_continues_in_the_precision_in_which_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(OPTIONS, precision="auto")
    whole, resumed = Regression(validation_target=2.0), Regression(validation_target=2.0)
    bfloat16_in_hardware(monkeypatch, False)
    run(whole, tmp_path / "whole", options)
    with pytest.raises(KeyboardInterrupt):
        run(Regression(validation_target=2.0, fails_after=9), tmp_path / "stopped", options)
    bfloat16_in_hardware(monkeypatch, True)
    run(resumed, tmp_path / "stopped", options)
    for expected, found in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_run_in_bfloat16_does_not_continue_where_it_is_emulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(OPTIONS, precision="auto")
    bfloat16_in_hardware(monkeypatch, True)
    with pytest.raises(KeyboardInterrupt):
        run(Regression(validation_target=2.0, fails_after=9), tmp_path, options)
    bfloat16_in_hardware(monkeypatch, False)
    with pytest.raises(ConfigError, match=r"checkpoint\.pt is of a run in bfloat16, which this cpu only emulates"):
        run(Regression(validation_target=2.0), tmp_path, options)


def test_with_averaging_the_average_is_validated_and_kept(tmp_path: Path) -> None:
    plain, averaged = Regression(validation_target=2.0, dropout=0.0), Regression(validation_target=2.0, dropout=0.0)
    plain_progress = run(plain, tmp_path / "plain")
    progress = run(averaged, tmp_path / "averaged", replace(OPTIONS, averaging=0.9))
    assert plain.validation_losses().mean() == pytest.approx(min(plain_progress.validation_losses), rel=1e-5)
    assert averaged.validation_losses().mean() == pytest.approx(min(progress.validation_losses), rel=1e-5)
    assert progress.validation_losses[1:3] != pytest.approx(plain_progress.validation_losses[1:3], rel=1e-3)


class RecordingRegression(Regression):
    """Records the learning rate and a random draw of every loss; its gradients are very long."""

    def parameter_groups(self, options: LoopOptions) -> list[dict[str, Any]]:
        self.groups = super().parameter_groups(options)
        self.rates: list[float] = []
        self.draws: list[float] = []
        return self.groups

    def loss(self, model: nn.Module, rows: Indices, epoch: int) -> Tensor:
        self.rates.append(self.groups[0]["lr"])
        self.draws.append(torch.rand(()).item())
        return 1e6 * super().loss(model, rows, epoch)


def test_the_learning_rate_warms_up_linearly_and_then_decays_to_0(tmp_path: Path) -> None:
    task = RecordingRegression(validation_target=2.0)
    run(task, tmp_path, replace(OPTIONS, warmup_share=0.25))
    warmup, decay = np.linspace(0, 1, 12 + 1)[1:], np.linspace(1, 0, 36 + 1)[:-1]  # of 6 · 8 updates
    assert task.rates == pytest.approx((OPTIONS.learning_rate * np.concatenate([warmup, decay])).tolist())


def test_gradients_are_clipped_to_max_gradient_norm(tmp_path: Path) -> None:
    norms: list[float] = []

    def record_norm(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [weight.grad.norm() for group in optimizer.param_groups for weight in group["params"]]
        norms.append(torch.stack(gradients).norm().item())

    hook = register_optimizer_step_pre_hook(record_norm)
    try:
        run(RecordingRegression(validation_target=2.0), tmp_path, replace(OPTIONS, epochs=1, max_gradient_norm=0.5))
    finally:
        hook.remove()
    assert norms == pytest.approx([0.5] * 8, rel=1e-4)


def test_every_piece_of_every_step_has_its_own_random_draws(tmp_path: Path) -> None:
    task = RecordingRegression(validation_target=2.0)
    run(task, tmp_path, replace(OPTIONS, pieces=2))
    assert len(set(task.draws)) == len(task.draws) == OPTIONS.epochs * 8 * 2


@pytest.mark.parametrize("kept", [0, 100, 0.5])
def test_a_damaged_checkpoint_is_refused(kept: float, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Regression(validation_target=2.0, fails_after=9), tmp_path)
    content = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged: remove it"):
        run(Regression(validation_target=2.0), tmp_path)


def test_a_checkpoint_of_another_configuration_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Regression(validation_target=2.0, fails_after=20), tmp_path)
    assert (tmp_path / CHECKPOINT).exists()
    task = Regression(validation_target=2.0)
    progress = train(task, OPTIONS, tmp_path, make_accelerator("cpu"), "test", "another fingerprint")
    assert progress.updates == OPTIONS.epochs * 8
    assert len(progress.validation_losses) == OPTIONS.epochs + 1


def test_accumulated_batches_equal_one_large_batch(tmp_path: Path) -> None:
    accumulated, whole = Regression(validation_target=2.0, dropout=0.0), Regression(validation_target=2.0, dropout=0.0)
    progress = run(accumulated, tmp_path / "accumulated", replace(OPTIONS, accumulate=3))
    assert progress.updates == OPTIONS.epochs * 3  # 3 + 3 + 2 batches an epoch
    run(whole, tmp_path / "whole", replace(OPTIONS, batch_size=12))
    for expected, found in zip(weights(whole), weights(accumulated), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_batch_in_pieces_equals_a_whole_batch(tmp_path: Path) -> None:
    whole, in_pieces = Regression(validation_target=2.0, dropout=0.0), Regression(validation_target=2.0, dropout=0.0)
    options = replace(OPTIONS, batch_size=5)  # so that the last batch has two rows, fewer than pieces
    run(whole, tmp_path / "whole", options)
    run(in_pieces, tmp_path / "in-pieces", replace(options, pieces=3))
    for expected, found in zip(weights(whole), weights(in_pieces), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


class _ReadCounter(TorchDispatchMode):
    """Counts how often a number is read from a tensor: each time a GPU first has to finish all its work."""

    reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("processes", "waits"), [(1, 0), (2, 16 // UPDATES_A_LOOK)])
def test_hardly_any_step_waits_for_the_device(
    processes: int, waits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", processes)
    options = replace(OPTIONS, epochs=1, batch_size=2, checkpoint_seconds=3600.0)
    reads: list[int] = []

    class ReadsBeforeEachLoss(Regression):
        def loss(self, model: nn.Module, rows: Indices, epoch: int) -> Tensor:
            reads.append(counter.reads)
            return super().loss(model, rows, epoch)

    with _ReadCounter() as counter:
        run(ReadsBeforeEachLoss(validation_target=2.0), tmp_path, options)
    assert len(reads) == 16
    assert reads[-1] - reads[0] == waits
    assert counter.reads > reads[-1]  # the losses are logged in the end


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """accelerate reads the environment once in a process, unless its state is reset."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("fresh_accelerate")
def test_settings_of_accelerates_launcher_change_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, found = Regression(validation_target=2.0), Regression(validation_target=2.0)
    run(expected, tmp_path / "expected")
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "8")
    run(found, tmp_path / "found")
    assert all(np.array_equal(*pair) for pair in zip(weights(found), weights(expected), strict=True))


def test_a_gain_within_its_noise_is_no_improvement() -> None:
    rng = np.random.default_rng(0)
    best = rng.normal(1, 0.5, 400) ** 2
    noise = rng.normal(0, 0.2, 400)
    noise -= noise.mean()
    assert improves(best + noise - 0.02, best, standard_errors=1.0)
    assert not improves(best + noise - 0.005, best, standard_errors=1.0)
    assert improves(best + noise - 0.005, best, standard_errors=0.0)
    assert not improves(best, best, standard_errors=0.0)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("epochs", 0, ""),
        ("batch_size", 0, ""),
        ("accumulate", 0, ""),
        ("learning_rate", 0, ""),
        ("pieces", 0, ": use 1 to 4"),
        ("pieces", 5, ": use 1 to 4"),
        ("patience", 0, ": use 1 or more epochs"),
        ("seed", -1, ": use 0 to 4294967295"),
        ("seed", 2**32, ": use 0 to 4294967295"),  # scikit-learn's clustering, when training is over
        ("checkpoint_seconds", -1.0, ""),
        ("checkpoint_seconds", math.nan, ""),  # no time would be longer: no checkpoint would ever be due
    ],
)
def test_options_that_cannot_train_are_refused_by_name(name: str, value: Any, remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} = {value}{remedy}"):
        replace(OPTIONS, **{name: value})


@pytest.mark.parametrize(("size", "file"), [(100, BEST_WEIGHTS), (2000, CHECKPOINT)])
def test_a_full_disk_is_an_error_that_names_the_file_after_which_the_run_can_be_resumed(
    tmp_path: Path, size: int, file: str
) -> None:
    whole, stopped, resumed = (Regression(validation_target=2.0) for _ in range(3))
    run(whole, tmp_path / "whole")
    with full_disk(size), pytest.raises(OSError, match=rf"{file} cannot be written .*; make room, then run the same"):
        run(stopped, tmp_path / "run")
    run(resumed, tmp_path / "run")
    assert all(np.array_equal(*pair) for pair in zip(weights(resumed), weights(whole), strict=True))
