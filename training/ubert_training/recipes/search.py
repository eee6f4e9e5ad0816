"""A small search for the recipe that suits a user's reviews, by the validation part alone."""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubert_model.running.atomic import write_text
from ubert_training.errors import DivergedError
from ubert_training.evaluation.rated_pairs import RatedPairs
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.recipes.recipe import Recipe
from ubert_training.recipes.workspace import Job, Workspace
from ubert_training.reviews.table import ReviewTable
from ubert_training.running.digests import fingerprint_of
from ubert_training.running.stage import Stage, read_stage
from ubert_training.splits import Split

KIND = "tune"
RECIPE = "recipe.json"
TRIAL = "trial"
"""Key in that file, beside the recipe: the digest of the winning trial."""
WORK = "work"
FINETUNED = "finetuned"
STATES = "states"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What differs from the preset's recipe. ``learning_rate_factor``: multiplies its learning rate of fine-tuning."""

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    pretrained: bool = True
    learning_rate_factor: float = 1.0

    def recipe(self, base: Recipe, seed: int) -> Recipe:
        """The recipe to try."""
        learning_rate = self.learning_rate_factor * base.finetuning.loop.learning_rate
        varied = base.varied(model=self.model, pretrained=self.pretrained, learning_rate=learning_rate)
        return varied.seeded(seed)


SMALL_STATES = MappingProxyType({"state_dim": 64})
ROW_A_TOKEN = MappingProxyType(
    {
        "tokens_a_row": 1,
        "match_pooling": "max",
        "max_reviews": 10,
        "state_dim": 64,
        "dropout": 0.1,
    }
)
"""Nearer to the paper: every token is aligned, but of fewer reviews."""
TRIALS = (
    Trial(name="no pre-training, state dimension 64", pretrained=False, model=SMALL_STATES),
    Trial(name="no pre-training", pretrained=False),
    Trial(name="state dimension 64", model=SMALL_STATES),
    Trial(name="the preset"),
    Trial(name="learning rate × 3", learning_rate_factor=3.0),
    Trial(name="all layers of the backbone", model={"encoder_layers": None}),
    Trial(name="8 tokens a row", model={"tokens_a_row": 8}),
    Trial(name="maximum over rows", model={"match_pooling": "max"}),
    Trial(name="a row a token", model=ROW_A_TOKEN),
)
"""From the cheapest to train and serve to the most expensive: of statistically equal trials, the first is taken."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialResult:
    """A trial on the validation part. ``squared_errors``: (P,) in stars²; ``share``: the network's blend weight."""

    trial: Trial
    squared_errors: NDArray[np.float64]
    bias_mse: float
    share: float

    @property
    def mse(self) -> float:
        return float(self.squared_errors.mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """All trials in order, the one with the least error, and the one chosen. ``failures``: why the others failed."""

    results: Sequence[TrialResult]
    failures: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def best(self) -> TrialResult:
        return min(self.results, key=lambda result: result.mse)

    @cached_property
    def chosen(self) -> TrialResult:
        """The first trial whose error is within one standard error of the best one's, pair by pair."""
        for result in self.results:
            above, standard_error = self.above_best(result)
            if above <= standard_error:
                return result
        return self.best

    def above_best(self, result: TrialResult) -> tuple[float, float]:
        """How far its MSE is above the best one's, and the standard error of that difference over pairs."""
        difference = result.squared_errors - self.best.squared_errors
        deviation = float(difference.std(ddof=1)) if len(difference) > 1 else math.inf  # one pair tells nothing apart
        return float(difference.mean()), deviation / math.sqrt(len(difference))


@dataclass(frozen=True, kw_only=True, eq=False)
class RecipeSearch:
    """A search in the directory ``out``. It never reads the test part."""

    table: ReviewTable
    split: Split
    base: Recipe
    lexicon: Lexicon
    seed: int
    out: Path
    trials: Sequence[Trial] = TRIALS

    def run(self, began: Callable[[Trial], None], *, force: bool = False) -> tuple[Choice, Path]:
        """Try the recipes and leave the chosen model in ``out``. Returns the choice and the model's directory.

        A killed search is continued. Raises ``ConfigError`` if ``out`` belongs to another search (which ``force``
        discards) or holds something else; ``InputError`` if another search is at work in it; and as :meth:`try_all`
        does. A trial that cannot be trained is refused before ``out`` is opened.
        """
        inputs = {
            **self.table.digests,
            "split": self.split.digests(self.table),
            "base": self.base,
            "seed": self.seed,
            "lexicon": self.lexicon.digest,
            "trials": [trial.name for trial in self.trials],
        }
        stage = Stage(self.out, KIND, inputs)
        if not stage.is_finished():  # checked first: a refused search neither creates nor discards a directory
            for trial in self.trials:
                self._workspace.require_trainable(self._job(trial))
        with stage.locked():
            stage.open(force=force)
            choice = self.try_all(began)
            run = self.publish(choice)
            stage.finish({"chosen": choice.chosen.trial.name, "validation_mse": choice.chosen.mse})
        return choice, run

    def try_all(self, began: Callable[[Trial], None]) -> Choice:
        """Try every recipe that ``out`` holds no result of, and choose.

        Raises ``DivergedError`` if training diverges by every recipe, and what else a trial raises.
        """
        results: list[TrialResult] = []
        failures: dict[str, str] = {}
        for trial in self.trials:
            job = self._job(trial)
            path = self._workspace.directory / "trials" / f"{self._fingerprint(job)}.json"
            if not path.is_file():
                began(trial)
                self._measure(job, path)
            measured = json.loads(path.read_text(encoding="utf-8"))
            if (failure := measured.get("failure")) is not None:
                failures[trial.name] = failure
                continue
            squared_errors = np.array(measured["squared_errors"], dtype=np.float64)
            share, bias_mse = measured["share"], measured["bias_mse"]
            results.append(TrialResult(trial=trial, squared_errors=squared_errors, bias_mse=bias_mse, share=share))
        if not results:
            raise DivergedError("; ".join(f"{name}: {failure}" for name, failure in failures.items()))
        return Choice(results=results, failures=failures)

    def publish(self, choice: Choice) -> Path:
        """Move the chosen model to ``out/finetuned`` and its states to ``out/states``, and write its recipe to
        ``out/recipe.json``, replacing what is there: ``out`` must belong to this search.

        The other trials' runs and states are deleted; their results and all pre-trained models are kept.
        """
        workspace, job = self._workspace, self._job(choice.chosen.trial)
        fingerprint, finetuned, states = self._fingerprint(job), self.out / FINETUNED, self.out / STATES
        if self._recorded() != fingerprint:
            (self.out / RECIPE).unlink(missing_ok=True)
            for stale in (finetuned, states):
                if stale.exists():
                    shutil.rmtree(stale)
            # Recorded before anything is moved: a killed call goes on with what has not been moved.
            content = {TRIAL: fingerprint, **job.recipe.to_json()}
            write_text(self.out / RECIPE, json.dumps(content, indent=2) + "\n")
        if not finetuned.exists():
            workspace.run(job, fingerprint).rename(finetuned)
        if (encoded := workspace.places(job).states).exists() and not states.exists():
            encoded.rename(states)
        for leftover in ("runs", "states"):
            shutil.rmtree(workspace.directory / leftover, ignore_errors=True)
        return finetuned

    @property
    def _workspace(self) -> Workspace:
        return Workspace(directory=self.out / WORK, lexicon=self.lexicon)

    def _job(self, trial: Trial) -> Job:
        return Job(table=self.table, split=self.split, recipe=trial.recipe(self.base, self.seed))

    def _fingerprint(self, job: Job) -> str:
        """Digest of all that determines a trial's result."""
        pretrained = self._workspace.places(job).pretrained
        inputs = {
            "split": self.split.digests(self.table),
            **self.table.digests,
            "config": job.recipe.config,
            "finetuning": job.recipe.finetuning,
            "pretrained": pretrained.name if pretrained else None,
        }
        return fingerprint_of("trial", inputs)

    def _measure(self, job: Job, path: Path) -> None:
        workspace, device = self._workspace, job.recipe.finetuning.device
        try:
            run = workspace.run(job, path.stem)
        except DivergedError as error:
            write_text(path, json.dumps({"failure": str(error)}) + "\n")
            return
        rated = RatedPairs.of(
            FinishedRun.open(self.table, run, states=workspace.places(job).states, device=device), "validation"
        )
        measured = {
            "squared_errors": np.square(rated.predicted - rated.truth).tolist(),
            "bias_mse": float(np.square(rated.bias - rated.truth).mean()),
            "share": read_stage(run)["summary"]["blend_weight"],
        }
        write_text(path, json.dumps(measured) + "\n")

    def _recorded(self) -> str | None:
        """Digest of the trial whose model ``out`` holds, or is about to hold."""
        path = self.out / RECIPE
        return json.loads(path.read_text(encoding="utf-8"))[TRIAL] if path.is_file() else None
