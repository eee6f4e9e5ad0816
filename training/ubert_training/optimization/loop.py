"""The training loop that pre-training and fine-tuning share: resumable at any step, on one process or many."""

import contextlib
import math
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

from ubert_model.config import require, require_choice
from ubert_model.running.atomic import replacing
from ubert_training.optimization.batches import Positions
from ubert_training.optimization.weight_average import WeightAverage
from ubert_training.running.devices import Precision, uses_bfloat16
from ubert_training.running.disk import writing
from ubert_training.running.processes import own_share
from ubert_training.running.progress import progress_bar
from ubert_training.weights.saving import save_weights, weights_of

CHECKPOINT = "checkpoint.pt"
BEST_WEIGHTS = "best.safetensors"


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How long and how fast to train.

    ``patience`` counts epochs without a better validation score before stopping (None: never). An epoch is better
    when its mean validation loss is lower by ``least_improvement`` standard errors of the paired difference.
    ``averaging``: what is validated and kept is a moving average of the weights, of which an update leaves so much
    (None: the weights as they are).
    ``checkpoint_seconds`` bounds the work that a killed process repeats.

    ``pieces`` is how many parts a batch is computed in, each with dropout of its own; a multiple of the number of
    processes (None: that number). Runs in equally many pieces are one run, whatever number of processes shares them.
    ``shard_optimizer`` leaves each process its share of AdamW's states, which are twice the weights (ZeRO, stage 1).
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
        for name in ("epochs", "batch_size", "accumulate"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use 1 or more")
        if self.patience is not None:
            require(self.patience >= 1, "patience", self.patience, "use 1 or more epochs, or none")
        if self.pieces is not None:
            most = self.batch_size
            require(1 <= self.pieces <= most, "pieces", self.pieces, f"use 1 to {most}, the batch size")
        if self.averaging is not None:
            require(0 < self.averaging < 1, "averaging", self.averaging, "use a share between 0 and 1, or none")
        require_choice("precision", self.precision, Precision)
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "use a positive step size")
        require(self.checkpoint_seconds >= 0, "checkpoint_seconds", self.checkpoint_seconds, "use 0 or more")
        require(self.seed >= 0, "seed", self.seed, "use 0 or more")
        require(0 <= self.warmup_share <= 1, "warmup_share", self.warmup_share, "use a share between 0 and 1")

    @classmethod
    def of(cls, defaults: Mapping[str, Any], **given: Any) -> Self:
        """The defaults of a stage, replaced where something else than None is given."""
        return cls(**{**defaults, **{name: value for name, value in given.items() if value is not None}})


def require_machine(options: LoopOptions, accelerator: Accelerator) -> None:
    """Raises ``ConfigError`` for what these processes cannot share or this device cannot compute."""
    processes, pieces = accelerator.num_processes, options.pieces
    if pieces is not None:
        require(pieces % processes == 0, "pieces", pieces, f"use a multiple of the {processes} processes")
    uses_bfloat16(options.precision, accelerator.device)


class Task(Protocol):
    """What is trained. Whatever it draws follows from (seed, epoch) and the example, or from torch's generator."""

    model: nn.Module

    def parameter_groups(self, options: LoopOptions) -> list[dict[str, Any]]:
        """Groups for the optimizer."""

    def batches(self, epoch: int) -> Sequence[Positions]:
        """The epoch's batches, over all processes."""

    def loss(self, model: nn.Module, rows: Positions, epoch: int) -> Tensor:
        """Mean loss over ``rows``, a piece of a batch, on the accelerator's device."""

    def validation_losses(self) -> NDArray[np.float64]:
        """What early stopping watches, one loss an example, lower is better; the model is in evaluation mode.

        Called by all processes, which may share the work; each gets the same losses.
        """


@dataclass
class Position:
    """Where a run stands, and what it has seen."""

    epoch: int = 0
    step: int = 0
    updates: int = 0
    best_epoch: int | None = None
    """None: nothing validated yet; −1: no epoch was better than the initial weights."""
    validation_losses: list[float] = field(default_factory=list)


def train(
    task: Task, options: LoopOptions, directory: Path, accelerator: Accelerator, description: str, fingerprint: str
) -> Position:
    """Train to the end or to early stopping; the model is left with its best weights.

    A checkpoint in ``directory`` with the same fingerprint is continued, to the same result within floating-point
    noise: batches, masks and dropout follow from the position. It may be continued by another number of processes.
    ``directory`` must be one that all processes see.
    """
    run = _Run(task, options, directory, accelerator, fingerprint)
    run.begin()
    with progress_bar(description, run.total_steps, disable=not accelerator.is_main_process) as advance:
        advance(run.steps_done())
        while not run.finished():
            run.epoch(advance)
    run.restore_best()
    return run.position


class _Run:
    """The moving parts of one training run."""

    def __init__(
        self, task: Task, options: LoopOptions, directory: Path, accelerator: Accelerator, fingerprint: str
    ) -> None:
        self.task = task
        self.options = options
        self.directory = directory
        self.accelerator = accelerator
        self.fingerprint = fingerprint
        self.position = Position()
        self.best_losses: NDArray[np.float64] | None = None
        self.bfloat16 = uses_bfloat16(options.precision, accelerator.device)
        self.pieces = options.pieces or accelerator.num_processes
        # The model first: its parameters move to the device before the optimizer sees them.
        self.model = accelerator.prepare(task.model)
        averaging = options.averaging
        self.average = None if averaging is None else WeightAverage(task.model, averaging)
        self.optimizer_in_shards = options.shard_optimizer and accelerator.num_processes > 1
        optimizer = _optimizer(
            task.parameter_groups(options), options.learning_rate, in_shards=self.optimizer_in_shards
        )
        self.optimizer = accelerator.prepare_optimizer(optimizer, device_placement=False)
        self.steps_per_epoch = len(task.batches(0))
        self.total_steps = self.steps_per_epoch * options.epochs
        updates = math.ceil(self.steps_per_epoch / options.accumulate) * options.epochs
        warmup = max(1, round(options.warmup_share * updates))
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer.optimizer,
            lambda update: min((update + 1) / warmup, max(0.0, (updates - update) / max(1, updates - warmup))),
        )

    def steps_done(self) -> int:
        return self.position.epoch * self.steps_per_epoch + self.position.step

    def finished(self) -> bool:
        """All epochs done, or none of the last ``patience`` was better."""
        position, patience = self.position, self.options.patience
        best = -1 if position.best_epoch is None else position.best_epoch
        stalled = patience is not None and position.epoch - 1 - best >= patience
        return position.epoch >= self.options.epochs or stalled

    def epoch(self, advance: Callable[[int], None]) -> None:
        """Train from the current position to the end of the epoch, then validate."""
        position = self.position
        batches = self.task.batches(position.epoch)
        saved_at = time.monotonic()
        self.model.train()
        with self._writer() as writer:
            for step in range(position.step, len(batches)):
                last = step + 1 == len(batches)
                loss = self._step(batches[step], step, update=last or (step + 1) % self.options.accumulate == 0)
                position.step = step + 1
                writer.add_scalar("loss/train", loss, self.steps_done())
                advance(1)
                at_update = position.step % self.options.accumulate == 0
                if at_update and not last and self._agreed(time.monotonic() - saved_at):
                    self._save()
                    saved_at = time.monotonic()
            with self._as_kept():
                losses = self._validate()
                self._keep_if_best(losses, position.epoch)
            writer.add_scalar("loss/validation", losses.mean(), self.steps_done())
        position.epoch, position.step = position.epoch + 1, 0
        self._save()

    def _as_kept(self) -> contextlib.AbstractContextManager[None]:
        """The model has the weights that are validated and kept: their average, where one is made."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    def _agreed(self, seconds_since_saved: float) -> bool:
        """Is it time for a checkpoint? The clocks of processes differ, and all of them have to take part in it."""
        if seconds_since_saved > self.options.checkpoint_seconds:
            self.accelerator.set_trigger()
        return bool(self.accelerator.check_trigger())

    def _step(self, rows: Positions, step: int, *, update: bool) -> float:
        """One batch, piece by piece; gradients are summed over the pieces of all processes and averaged over the
        ``accumulate`` batches of an update, of which the last of an epoch may have fewer. Returns the mean loss of the
        whole batch.
        """
        accelerator, processes = self.accelerator, self.accelerator.num_processes
        accumulate = self.options.accumulate
        batches = min(accumulate, self.steps_per_epoch - step // accumulate * accumulate)
        mine = own_share(accelerator, range(self.pieces))
        batch_loss = torch.zeros((), device=accelerator.device)
        for number in mine:
            piece = rows[number :: self.pieces]
            share = len(piece) / len(rows)
            synchronise = update and number == mine[-1]
            with contextlib.nullcontext() if synchronise else accelerator.no_sync(self.model):
                # A batch may have fewer rows than pieces; a process without a row has to take part all the same.
                loss = self._loss(piece if len(piece) else rows[:1], step, number)
                # Processes are averaged where pieces are to be summed.
                accelerator.backward(loss * (share * processes / batches))
            batch_loss += share * loss.detach()
        if update:
            accelerator.clip_grad_norm_(self.model.parameters(), self.options.max_gradient_norm)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            self.position.updates += 1
            if self.average is not None:
                self.average.update(self.position.updates)
        return float(accelerator.reduce(batch_loss, "sum").item())

    def _loss(self, piece: Positions, step: int, number: int) -> Tensor:
        """The loss of one piece of the batch at ``step``, under the noise that belongs to it."""
        position = [self.options.seed, self.position.epoch, step, number]
        torch.manual_seed(int(np.random.SeedSequence(position).generate_state(1, np.uint64)[0]))
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.task.loss(self.model, piece, self.position.epoch)

    def _validate(self) -> NDArray[np.float64]:
        self.model.eval()
        with torch.no_grad():
            return self.task.validation_losses()

    def _keep_if_best(self, losses: NDArray[np.float64], epoch: int) -> None:
        position = self.position
        position.validation_losses.append(float(losses.mean()))
        if self.best_losses is None or improves(losses, self.best_losses, self.options.least_improvement):
            self.best_losses, position.best_epoch = losses, epoch
            if self.accelerator.is_main_process:
                save_weights(self.task.model, self.directory / BEST_WEIGHTS)

    def _save(self) -> None:
        """Write the checkpoint; it appears whole or not at all."""
        if self.optimizer_in_shards:
            self.optimizer.optimizer.consolidate_state_dict(to=0)
        if not self.accelerator.is_main_process:
            return
        checkpoint = {
            "fingerprint": self.fingerprint,
            "position": vars(self.position),
            "best_losses": torch.from_numpy(self.best_losses),
            "model": weights_of(self.task.model),
            "average": {} if self.average is None else self.average.state(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        path = self.directory / CHECKPOINT
        with writing(path, RuntimeError), replacing(path) as partial:
            torch.save(checkpoint, partial)

    def begin(self) -> None:
        """Continue from the checkpoint if there is one of this configuration, else from the initial weights."""
        if not self._resume():
            self._keep_if_best(self._validate(), epoch=-1)

    def _resume(self) -> bool:
        path = self.directory / CHECKPOINT
        if not path.is_file():
            return False
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if checkpoint["fingerprint"] != self.fingerprint:
            return False
        self.position = Position(**checkpoint["position"])
        self.best_losses = checkpoint["best_losses"].numpy()
        self.task.model.load_state_dict(checkpoint["model"])
        if self.average is not None:
            self.average.restore(checkpoint["average"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scheduler.load_state_dict(checkpoint["scheduler"])
        return True

    def restore_best(self) -> None:
        """Load the weights of the best epoch."""
        self.accelerator.wait_for_everyone()
        self.task.model.load_state_dict(load_file(self.directory / BEST_WEIGHTS))
        self.task.model.eval()
        self.accelerator.wait_for_everyone()  # nobody still reads what the main process goes on to discard

    def _writer(self) -> contextlib.AbstractContextManager[Any]:
        """TensorBoard's writer on the main process; elsewhere a sink. Resumed steps replace what a kill left."""
        log = self.directory / "tensorboard"
        if not self.accelerator.is_main_process:
            return contextlib.nullcontext(_Sink())
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # half a second, for training only

        return SummaryWriter(str(log), purge_step=self.steps_done() + 1)


def discard_checkpoint(directory: Path) -> None:
    """Remove what only an unfinished run needs."""
    for name in (CHECKPOINT, BEST_WEIGHTS):
        (directory / name).unlink(missing_ok=True)


class _Sink:
    """Where the log of the other processes goes."""

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Ignore: the main process logs."""


def improves(losses: NDArray[np.float64], best: NDArray[np.float64], standard_errors: float) -> bool:
    """Is the mean of ``losses`` below that of ``best``, (P,) each of the same examples, by so many standard errors?"""
    gain = best - losses
    return bool(gain.mean() > standard_errors * gain.std() / math.sqrt(len(gain)))


def decayed_groups(model: nn.Module, weight_decay: float, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Optimizer groups: vectors (norms, biases) never decay; names that begin with a prefix have their own rate."""
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
    """AdamW, whole or its states shared out among the processes: both write and read the same checkpoints.

    Fused: one pass over weights and states in place of ten, which on a CPU was a sixth of a step of pre-training.
    """
    if in_shards:
        # It brings along a compiler, and that one a deprecation's warning, which nobody else needs.
        from torch.distributed.optim import ZeroRedundancyOptimizer  # noqa: PLC0415

        return ZeroRedundancyOptimizer(groups, torch.optim.AdamW, lr=learning_rate, fused=True)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
