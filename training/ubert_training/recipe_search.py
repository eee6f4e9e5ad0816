"""A small search for the recipe that suits a user's reviews, judged by the validation part alone."""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ubert_model.atomic import write_text
from ubert_training.devices import make_accelerator
from ubert_training.evaluation.evaluate import rate_part
from ubert_training.finetuning.finetune import require_finetunable
from ubert_training.finetuning.recipe import Recipe
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.pretraining.pretrain import require_pretrainable, rows_read
from ubert_training.reviews.table import ReviewTable
from ubert_training.splits import Split
from ubert_training.stage import STAGE_FILE, Stage, fingerprint_of, read_stage
from ubert_training.workplace import Job, Workplace

KIND = "tune"
RECIPE = "recipe.json"
TRIAL = "trial"
"""In that file, beside the recipe: the digest of the trial that it won in."""
WORK = "work"
FINETUNED = "finetuned"
STATES = "states"
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is different from the preset's recipe. ``rate``: times its learning rate of fine-tuning."""

    name: str
    model: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    pretrained: bool = True
    rate: float = 1.0

    def recipe(self, base: Recipe, seed: int) -> Recipe:
        """The recipe to try."""
        learning_rate = self.rate * base.finetuning.loop.learning_rate
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
"""Nearer to the paper: every token is aligned, of fewer reviews."""
TRIALS = (
    Trial(name="no pre-training, state dimension 64", pretrained=False, model=SMALL_STATES),
    Trial(name="no pre-training", pretrained=False),
    Trial(name="state dimension 64", model=SMALL_STATES),
    Trial(name="the preset"),
    Trial(name="learning rate × 3", rate=3.0),
    Trial(name="all layers of the backbone", model={"encoder_layers": None}),
    Trial(name="8 tokens a row", model={"tokens_a_row": 8}),
    Trial(name="maximum over rows", model={"match_pooling": "max"}),
    Trial(name="a row a token", model=ROW_A_TOKEN),
)
"""From the cheapest to train and serve to the dearest: of trials that cannot be told apart, the first is taken."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tried:
    """A trial on the validation part. ``squared_errors``: (P,) in stars²; ``share``: the network's in a rating."""

    trial: Trial
    squared_errors: NDArray[np.float64]
    bias_mse: float
    share: float

    @property
    def mse(self) -> float:
        return float(self.squared_errors.mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """All trials in order, the one with the least error, and the one taken."""

    tried: Sequence[Tried]
    best: Tried
    chosen: Tried

    def above_best(self, tried: Tried) -> tuple[float, float]:
        """By how much its MSE is above the best one's, and the standard error of that, over pairs."""
        difference = tried.squared_errors - self.best.squared_errors
        of_a_pair = float(difference.std(ddof=1)) if len(difference) > 1 else math.inf  # one pair tells nothing apart
        return float(difference.mean()), of_a_pair / math.sqrt(len(difference))


def choose(tried: Sequence[Tried]) -> Choice:
    """The first trial whose error is within one standard error of the least one, pair by pair."""
    best = min(tried, key=lambda entry: entry.mse)
    judged = Choice(tried=tried, best=best, chosen=best)
    for entry in tried:
        above, standard_error = judged.above_best(entry)
        if above <= standard_error:
            return Choice(tried=tried, best=best, chosen=entry)
    return judged


def tune(
    table: ReviewTable,
    split: Split,
    base: Recipe,
    lexicon: Lexicon,
    seed: int,
    out: Path,
    began: Callable[[Trial], None],
    *,
    trials: Sequence[Trial] = TRIALS,
    force: bool = False,
) -> tuple[Choice, Path]:
    """Search in ``out`` and leave the chosen model there: what was measured, and the model's directory.

    Killed and started again it continues. Raises ``ConfigError`` if ``out`` belongs to another search, which ``force``
    discards, or holds something else; ``InputError`` where another search is at work in it; and what a trial raises. A
    trial that cannot be trained is refused before ``out`` is opened.
    """
    workplace = Workplace(directory=out / WORK, lexicon=lexicon)
    inputs = {
        **table.digests,
        "split": split.digests(table),
        "base": base,
        "seed": seed,
        "lexicon": lexicon.digest,
        "trials": [trial.name for trial in trials],
    }
    stage = Stage(out, KIND, inputs)
    if not stage.is_finished():  # what is refused neither leaves a directory nor discards one
        for trial in trials:
            _require_trainable(trial.recipe(base, seed), table, split)
    with stage.claimed():
        stage.open(force=force)
        choice = search(table, split, base, workplace, seed, began, trials)
        run = publish_best(choice, table, split, base, workplace, seed, out)
        stage.finish({"chosen": choice.chosen.trial.name, "validation_mse": choice.chosen.mse})
    return choice, run


def _require_trainable(recipe: Recipe, table: ReviewTable, split: Split) -> None:
    """Raise what one of its stages would refuse the recipe with."""
    finetuning, pretraining = recipe.finetuning, recipe.pretraining
    if pretraining is not None:
        rows_read(table, split, pretraining)
        require_pretrainable(recipe.pretraining_config, pretraining, make_accelerator(pretraining.device))
    require_finetunable(recipe.config, finetuning, make_accelerator(finetuning.device))


def search(
    table: ReviewTable,
    split: Split,
    base: Recipe,
    workplace: Workplace,
    seed: int,
    began: Callable[[Trial], None],
    trials: Sequence[Trial] = TRIALS,
) -> Choice:
    """Try every recipe that was not tried before in the workplace, and choose. The test part is never looked at."""
    tried = []
    for trial in trials:
        job = Job(table=table, split=split, recipe=trial.recipe(base, seed))
        path = workplace.directory / "trials" / f"{fingerprint_of('trial', _inputs(job, workplace))}.json"
        if not path.is_file():
            began(trial)
            _try(job, workplace, path)
        tried.append(_read(path, trial))
    return choose(tried)


def publish_best(
    choice: Choice, table: ReviewTable, split: Split, base: Recipe, workplace: Workplace, seed: int, out: Path
) -> Path:
    """Leave the chosen model in ``out/finetuned``, its states in ``out/states`` and its recipe in ``out/recipe.json``,
    in place of what lies there: ``out`` must be of this search.

    Runs and states of the others go; what was measured of them stays, and pre-trained models stay too.
    """
    recipe = choice.chosen.trial.recipe(base, seed)
    job = Job(table=table, split=split, recipe=recipe)
    fingerprint = fingerprint_of("trial", _inputs(job, workplace))
    finetuned = out / FINETUNED
    if _published(out) != fingerprint:
        (out / RECIPE).unlink(missing_ok=True)
        run = workplace.run(job, fingerprint)
        for source, target in ((run, finetuned), (workplace.states(job), out / STATES)):
            if target.exists():
                shutil.rmtree(target)
            source.rename(target)
        write_text(out / RECIPE, json.dumps({TRIAL: fingerprint, **recipe.to_json()}, indent=2) + "\n")
    for leftover in ("runs", "states"):
        shutil.rmtree(workplace.directory / leftover, ignore_errors=True)
    return finetuned


def _published(out: Path) -> str | None:
    """The trial whose model lies whole in ``out``."""
    if not ((out / RECIPE).is_file() and (out / FINETUNED / STAGE_FILE).is_file()):
        return None
    return str(json.loads((out / RECIPE).read_text(encoding="utf-8"))[TRIAL])


def _inputs(job: Job, workplace: Workplace) -> dict[str, Any]:
    pretrained = workplace.pretrained(job)
    return {
        "split": job.split.digests(job.table),
        **job.table.digests,
        "config": job.recipe.config,
        "finetuning": job.recipe.finetuning,
        "pretrained": pretrained.name if pretrained else None,
    }


def _try(job: Job, workplace: Workplace, path: Path) -> None:
    run = workplace.run(job, path.stem)
    states, device = workplace.states(job), job.recipe.finetuning.device
    rated = rate_part(job.table, run, "validation", states=states, device=device)
    measured = {
        "squared_errors": np.square(rated.predicted - rated.truth).tolist(),
        "bias_mse": float(np.square(rated.bias - rated.truth).mean()),
        "share": read_stage(run)["summary"]["blend_weight"],
    }
    write_text(path, json.dumps(measured) + "\n")


def _read(path: Path, trial: Trial) -> Tried:
    measured = json.loads(path.read_text(encoding="utf-8"))
    return Tried(
        trial=trial,
        squared_errors=np.array(measured["squared_errors"], dtype=np.float64),
        bias_mse=measured["bias_mse"],
        share=measured["share"],
    )
