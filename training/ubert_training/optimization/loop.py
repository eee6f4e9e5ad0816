"""The training loop that pre-training and fine-tuning share: resumable at any step, on one process or many."""

import contextlib
import math
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from ubert_model.errors import ConfigError, InputError
from ubert_model.nn.devices import has_native_bfloat16
from ubert_model.running.atomic import replacing
from ubert_model.validation import require, require_declared_types
from ubert_training.errors import DivergedError
from ubert_training.optimization.batches import Indices
from ubert_training.optimization.weight_average import WeightAverage
from ubert_training.running.devices import Precision, uses_bfloat16
from ubert_training.running.disk import translated_write_errors
from ubert_training.running.processes import process_share
from ubert_training.running.progress import progress_bar
from ubert_training.running.seeds import MOST_SEED
from ubert_training.weights.saving import save_weights, trainable_weights_of

CHECKPOINT = "checkpoint.pt"
BEST_WEIGHTS = "best.safetensors"
UPDATES_A_LOOK = 10
"""Updates after which several processes agree on whether a checkpoint is due; GPUs finish all their work for it."""


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How long and how fast to train.

    ``patience``: epochs without improvement before early stopping (None: never). An epoch improves if its mean
    validation loss is lower by ``least_improvement`` standard errors of the paired difference.
    ``averaging``: decay of a moving average of the weights, which is then what is validated and kept (None: the
    weights as they are).
    ``checkpoint_seconds`` bounds the work that a killed process repeats; with several processes, ten updates do if they
    take longer.

    ``pieces``: in how many parts a batch is computed, each with its own dropout; a multiple of the number of processes
    (None: that number). Runs with equally many pieces give the same result on any number of processes.
    ``shard_optimizer`` shards AdamW's states, which are twice the weights, over the processes (ZeRO, stage 1).
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    max_gradient_norm: float = 1.0
    accumulate: int = 1
    patience: int | None = None
    least_improvement: float = 0.0
    averaging: float | None = None
    precision: Precision = "auto"
    checkpoint_seconds: float = 30.0
    pieces: int | None = None
    shard_optimizer: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        require_declared_types(self)
        for name in ("epochs", "batch_size", "accumulate"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use 1 or more")
        if self.patience is not None:
            require(self.patience >= 1, "patience", self.patience, "use 1 or more epochs, or none")
        if self.pieces is not None:
            most = self.batch_size
            require(1 <= self.pieces <= most, "pieces", self.pieces, f"use 1 to {most}, the batch size")
        if self.averaging is not None:
            require(0 < self.averaging < 1, "averaging", self.averaging, "use a share between 0 and 1, or none")
        require(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "use a positive step size")
        require(self.checkpoint_seconds >= 0, "checkpoint_seconds", self.checkpoint_seconds, "use 0 or more")
        require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "use 0 or more")
        norm = self.max_gradient_norm
        require(norm > 0, "max_gradient_norm", norm, "use a number above 0")
        require(0 <= self.seed <= MOST_SEED, "seed", self.seed, f"use 0 to {MOST_SEED}")
        require(0 <= self.warmup_share <= 1, "warmup_share", self.warmup_share, "use a share between 0 and 1")

    @classmethod
    def of(cls, defaults: Mapping[str, Any], **given: Any) -> Self:
        """The defaults of a stage, overridden by all that is not None."""
        return cls(**{**defaults, **{name: value for name, value in given.items() if value is not None}})


def require_runnable(options: LoopOptions, accelerator: Accelerator) -> None:
    """Raise ``ConfigError`` for pieces that these processes cannot share, or a precision that this device lacks."""
    processes, pieces = accelerator.num_processes, options.pieces
    if pieces is not None:
        require(pieces % processes == 0, "pieces", pieces, f"use a multiple of the {processes} processes")
    uses_bfloat16(options.precision, accelerator.device)


class Task(Protocol):
    """What is trained. All its randomness derives from (seed, epoch) and the example, or from torch's generator."""

    model: nn.Module

    def parameter_groups(self, options: LoopOptions) -> list[dict[str, Any]]:
        """Groups for the optimizer."""

    def batches(self, epoch: int) -> Sequence[Indices]:
        """The epoch's batches, each to be shared by all processes."""

    def loss(self, model: nn.Module, rows: Indices, epoch: int) -> Tensor:
        """Mean loss over ``rows``, a piece of a batch, on the accelerator's device."""

    def validation_losses(self) -> NDArray[np.float64]:
        """The losses that early stopping watches, one per example; the model is in evaluation mode.

        All processes call this and may share the work; each gets all losses.
        """


@dataclass
class TrainingProgress:
    """How far a run has come, and its validation history."""

    epoch: int = 0
    step: int = 0
    updates: int = 0
    best_epoch: int | None = None
    """None: nothing validated yet; −1: no epoch was better than the initial weights."""
    validation_losses: list[float] = field(default_factory=list)


def train(
    task: Task, options: LoopOptions, directory: Path, accelerator: Accelerator, description: str, fingerprint: str
) -> TrainingProgress:
    """Train to the end or to early stopping; the model is left with its best weights.

    Continues from a checkpoint of the same fingerprint in ``directory``, to the same result within floating-point
    noise: batches, masks and dropout depend on the step alone. The number of processes may change in between.
    All processes must see ``directory``. Raises ``DivergedError`` if training does so, and ``InputError`` for a damaged
    checkpoint.
    """
    run = _Run(task, options, directory, accelerator, fingerprint)
    run.begin()
    with progress_bar(description, run.total_steps, disable=not accelerator.is_main_process) as advance:
        advance(run.steps_done())
        while not run.finished():
            run.epoch(advance)
    run.restore_best()
    return run.progress


class _Run:
    """The state of one training run."""

    def __init__(
        self, task: Task, options: LoopOptions, directory: Path, accelerator: Accelerator, fingerprint: str
    ) -> None:
        self.task = task
        self.options = options
        self.directory = directory
        self.accelerator = accelerator
        self.fingerprint = fingerprint
        self.progress = TrainingProgress()
        self.best_losses: NDArray[np.float64] | None = None
        self.bfloat16 = uses_bfloat16(options.precision, accelerator.device)
        self.pieces = options.pieces or accelerator.num_processes
        # The model first: its parameters move to the device before the optimizer sees them.
        self.model = accelerator.prepare(task.model)
        averaging = options.averaging
        self.average = None if averaging is None else WeightAverage(task.model, averaging)
        self.optimizer_in_shards = options.shard_optimizer and accelerator.num_processes > 1
        self.optimizer = _optimizer(
            task.parameter_groups(options), options.learning_rate, in_shards=self.optimizer_in_shards
        )
        self.steps_per_epoch = len(task.batches(0))
        self.total_steps = self.steps_per_epoch * options.epochs
        updates = math.ceil(self.steps_per_epoch / options.accumulate) * options.epochs
        warmup = max(1, round(options.warmup_share * updates))
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda update: min((update + 1) / warmup, max(0.0, (updates - update) / max(1, updates - warmup))),
        )

    def steps_done(self) -> int:
        return self.progress.epoch * self.steps_per_epoch + self.progress.step

    def finished(self) -> bool:
        """All epochs are done, or the last ``patience`` of them brought no improvement."""
        progress, patience = self.progress, self.options.patience
        best = -1 if progress.best_epoch is None else progress.best_epoch
        stalled = patience is not None and progress.epoch - 1 - best >= patience
        return progress.epoch >= self.options.epochs or stalled

    def epoch(self, advance: Callable[[int], None]) -> None:
        """Train from the current position to the end of the epoch, then validate."""
        progress = self.progress
        batches = self.task.batches(progress.epoch)
        saved_at = time.monotonic()
        losses: list[Tensor] = []
        self.model.train()
        with self._writer() as writer:
            for step in range(progress.step, len(batches)):
                last = step + 1 == len(batches)
                losses.append(self._step(batches[step], step, update=last or (step + 1) % self.options.accumulate == 0))
                progress.step = step + 1
                advance(1)
                at_update = progress.step % self.options.accumulate == 0
                if at_update and not last and self._checkpoint_is_due(time.monotonic() - saved_at):
                    self._log(writer, losses)
                    self._save()
                    saved_at = time.monotonic()
            self._log(writer, losses)
            with self._averaged_weights():
                validation_losses = self._validate()
                if not np.isfinite(validation_losses).all():
                    rate = f"learning_rate = {self.options.learning_rate}"
                    raise DivergedError(f"{rate}: training diverged in epoch {progress.epoch + 1}; use a smaller one")
                self._keep_if_best(validation_losses, progress.epoch)
            if writer is not None:
                writer.add_scalar("loss/validation", validation_losses.mean(), self.steps_done())
        progress.epoch, progress.step = progress.epoch + 1, 0
        self._save()

    def _averaged_weights(self) -> contextlib.AbstractContextManager[None]:
        """Give the model the weights that are validated and kept: their moving average, if one is kept."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    def _checkpoint_is_due(self, seconds_since_saved: float) -> bool:
        """True on all processes if it is on one: their clocks differ, and all take part in a checkpoint."""
        due = seconds_since_saved > self.options.checkpoint_seconds
        if self.accelerator.num_processes == 1:
            return due
        if self.progress.updates % UPDATES_A_LOOK:
            return False
        if due:
            self.accelerator.set_trigger()
        return bool(self.accelerator.check_trigger())

    def _step(self, rows: Indices, step: int, *, update: bool) -> Tensor:
        """One batch, piece by piece. Gradients are summed over the pieces of all processes, and averaged over the
        ``accumulate`` batches of an update (fewer in an epoch's last). Returns the mean loss of the whole batch, (),
        left on the device: reading it would make a GPU wait for the collation of the next batch.
        """
        accelerator, processes = self.accelerator, self.accelerator.num_processes
        accumulate = self.options.accumulate
        batches = min(accumulate, self.steps_per_epoch - step // accumulate * accumulate)
        mine = process_share(accelerator, range(self.pieces))
        batch_loss = torch.zeros((), device=accelerator.device)
        for number in mine:
            piece = rows[number :: self.pieces]
            share = len(piece) / len(rows)
            synchronise = update and number == mine[-1]
            with contextlib.nullcontext() if synchronise else accelerator.no_sync(self.model):
                # A batch may have fewer rows than pieces. Every process must still run a backward pass, so an empty
                # piece computes any one row, at weight 0.
                loss = self._loss(piece if len(piece) else rows[:1], step, number)
                # Data parallelism averages gradients over processes; pieces must be summed.
                (loss * (share * processes / batches)).backward()
            batch_loss += share * loss.detach()
        if update:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options.max_gradient_norm)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            self.progress.updates += 1
            if self.average is not None:
                self.average.update(self.progress.updates)
        return accelerator.reduce(batch_loss, "sum")  # type: ignore[no-any-return]

    def _loss(self, piece: Indices, step: int, number: int) -> Tensor:
        """The loss of one piece of the batch at ``step``; dropout is seeded by epoch, step and piece."""
        seed = np.random.SeedSequence([self.options.seed, self.progress.epoch, step, number])
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0]))
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.task.loss(self.model, piece, self.progress.epoch)

    def _validate(self) -> NDArray[np.float64]:
        self.model.eval()
        with torch.no_grad():
            return self.task.validation_losses()

    def _keep_if_best(self, losses: NDArray[np.float64], epoch: int) -> None:
        progress = self.progress
        progress.validation_losses.append(float(losses.mean()))
        if self.best_losses is None or improves(losses, self.best_losses, self.options.least_improvement):
            self.best_losses, progress.best_epoch = losses, epoch
            if self.accelerator.is_main_process:
                save_weights(trainable_weights_of(self.task.model), self.directory / BEST_WEIGHTS)

    def _save(self) -> None:
        """Write the checkpoint atomically."""
        if self.optimizer_in_shards:
            self.optimizer.consolidate_state_dict(to=0)  # type: ignore[attr-defined]  # only sharded ones have it
        if not self.accelerator.is_main_process:
            return
        checkpoint = {
            "fingerprint": self.fingerprint,
            "bfloat16": self.bfloat16,
            "position": vars(self.progress),
            "best_losses": torch.from_numpy(self.best_losses),
            "model": trainable_weights_of(self.task.model),
            "average": {} if self.average is None else self.average.state(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        path = self.directory / CHECKPOINT
        with translated_write_errors(path, RuntimeError), replacing(path) as partial:
            torch.save(checkpoint, partial)

    def begin(self) -> None:
        """Continue from a checkpoint of this configuration, if there is one, else start from the initial weights.

        Raises ``ConfigError`` if the checkpoint's run computed in bfloat16, which this device would emulate.
        """
        if not self._resume():
            self._keep_if_best(self._validate(), epoch=-1)

    def _resume(self) -> bool:
        path = self.directory / CHECKPOINT
        if not path.is_file():
            return False
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(f"{path} is damaged: remove it, and this stage begins anew") from error
        if checkpoint["fingerprint"] != self.fingerprint:
            return False
        self.bfloat16 = checkpoint["bfloat16"]  # as it began, since "auto" may choose otherwise on this device
        if self.bfloat16 and not has_native_bfloat16(self.accelerator.device):
            raise ConfigError(
                f"{path} is of a run in bfloat16, which this {self.accelerator.device.type} only emulates: continue it "
                "where it began, or give a new directory"
            )
        self.progress = TrainingProgress(**checkpoint["position"])
        self.best_losses = checkpoint["best_losses"].numpy()
        self._load(checkpoint["model"])
        if self.average is not None:
            self.average.restore(checkpoint["average"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scheduler.load_state_dict(checkpoint["scheduler"])
        return True

    def restore_best(self) -> None:
        """Load the weights of the best epoch."""
        self.accelerator.wait_for_everyone()
        self._load(load_file(self.directory / BEST_WEIGHTS))
        self.task.model.eval()
        self.accelerator.wait_for_everyone()  # the main process goes on to delete what the others read here

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        """Load the trainable weights: files hold no others, since the frozen ones are as every run begins with."""
        model = self.task.model
        model.load_state_dict({**model.state_dict(), **weights})

    def _writer(self) -> contextlib.AbstractContextManager[Any]:
        """TensorBoard's writer on the main process, elsewhere None. Resumed steps overwrite a killed run's."""
        if not self.accelerator.is_main_process:
            return contextlib.nullcontext()
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # half a second, for training only

        return SummaryWriter(str(self.directory / "tensorboard"), purge_step=self.steps_done() + 1)

    def _log(self, writer: Any, losses: list[Tensor]) -> None:
        """Log the ``losses`` of the last steps, and empty the list."""
        if writer is not None:
            for number, loss in enumerate(losses, start=self.steps_done() - len(losses) + 1):
                writer.add_scalar("loss/train", loss.item(), number)
        losses.clear()


def discard_checkpoint(directory: Path) -> None:
    """Delete the files that only an unfinished run needs."""
    for name in (CHECKPOINT, BEST_WEIGHTS):
        (directory / name).unlink(missing_ok=True)


def improves(losses: NDArray[np.float64], best: NDArray[np.float64], standard_errors: float) -> bool:
    """Is the mean of ``losses`` lower than that of ``best`` by more than so many standard errors of the paired
    difference? (P,) each, of the same examples.
    """
    gain = best - losses
    return bool(gain.mean() > standard_errors * gain.std() / math.sqrt(len(gain)))


def decayed_groups(model: nn.Module, weight_decay: float, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Optimizer groups. Vectors (norms, biases) never decay; ``rates`` gives learning rates by prefix of a name."""
    groups: dict[tuple[float | None, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = weight_decay if parameter.ndim > 1 else 0.0
        rate = next((value for prefix, value in rates.items() if name.startswith(prefix)), None)
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, **({} if rate is None else {"lr": rate})}
        for (rate, decay), parameters in groups.items()
    ]


def _optimizer(groups: list[dict[str, Any]], learning_rate: float, *, in_shards: bool) -> torch.optim.Optimizer:
    """AdamW, whole or with its states sharded over the processes; both read and write the same checkpoints.

    Fused: one pass over weights and states in place of ten, which were a sixth of a pre-training step on a CPU.
    """
    if in_shards:
        # Imported only here: it loads a compiler, and that prints a deprecation warning.
        from torch.distributed.optim import ZeroRedundancyOptimizer  # noqa: PLC0415

        return ZeroRedundancyOptimizer(groups, torch.optim.AdamW, lr=learning_rate, fused=True)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
