"""The variants of U-BERT that are compared, and the baselines, as things that can be measured on a fold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from ubert_model.config import require
from ubert_training.accuracy.cells import Cell, CellRatings, Contender
from ubert_training.accuracy.distortions import Distortion, distorted
from ubert_training.accuracy.folds import Fold
from ubert_training.baselines.cornac_models import cornac_baselines
from ubert_training.baselines.surprise_models import surprise_baselines
from ubert_training.baselines.tuning import Baseline, tuned, with_other_domains
from ubert_training.evaluation.rated_pairs import RatedPairs
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.recipes.recipe import Recipe
from ubert_training.recipes.workplace import Job, Workplace

UBERT = "u-bert"
SHUFFLED = "reviews shuffled over users and items"
NO_TEXT = "no review text"

HEADLINE, DEFAULT, SLOW, REST = range(4)
"""Rounds: what the report's first paragraph needs; what `--variants default` adds, slow ones last; what `all` adds."""
SLOW_BASELINES = ("HFT", "NARRE", "HRDR")
"""Minutes a cell: HFT visits every word in Python, the others train a network over the words of all reviews."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is different from the recipe: fields of its configuration, of pre-training's options, of the reviews."""

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    pretraining: Mapping[str, Any] = field(default_factory=dict)
    pretrained: bool = True
    distortion: Distortion = field(default_factory=Distortion)
    round: int = REST

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe that this variant trains."""
        return recipe.varied(model=self.model, pretraining=self.pretraining, pretrained=self.pretrained)

    def differs(self, recipe: Recipe) -> bool:
        """Does it differ from the recipe at all? Without pre-training, an ablation of it does not."""
        return self.applied(recipe) != recipe or self.distortion != Distortion()


PAPER_OPTIONS = MappingProxyType(
    {
        "rating_base": "none",
        "history_ratings": False,
        "id_embeddings": "free",
        "tokens_a_row": 1,
        "match_pooling": "max",
    }
)

VARIANTS = (
    Variant(name=UBERT, round=HEADLINE),
    Variant(name=SHUFFLED, distortion=Distortion(texts="shuffled"), round=HEADLINE),
    Variant(name="u-bert without pre-training", pretrained=False, round=DEFAULT),
    # Not pre-trained: one word teaches the encoder nothing, and a text that a held-out review shares is left out.
    Variant(name=NO_TEXT, distortion=Distortion(texts="one word"), pretrained=False, round=DEFAULT),
    # Table 3
    Variant(name="without task 1", pretraining={"masking": "none"}),
    Variant(name="without task 2", pretraining={"beta": 0.0}),
    Variant(name="random masking", pretraining={"masking": "random"}),
    # Figure 4
    *(
        Variant(name=f"{share:.0%} of the pre-training reviews", pretraining={"fraction": share})
        for share in (0.25, 0.5, 0.75)
    ),
    *(Variant(name=f"{share:.0%} of the reviews", distortion=Distortion(share=share)) for share in (0.25, 0.5, 0.75)),
    Variant(name="paper options", model=PAPER_OPTIONS),
)


@dataclass(frozen=True, kw_only=True)
class MeasuredVariant:
    """A variant of a recipe, trained in a workplace (a :class:`Contender`).

    ``pretraining_seeds``: the seeds that pre-training, and what it reads, are drawn with; any other seed fine-tunes
    what one of these has left. Empty: each seed pre-trains its own.
    """

    variant: Variant
    recipe: Recipe
    workplace: Workplace
    pretraining_seeds: Sequence[int] = ()
    seeded: bool = True

    @property
    def name(self) -> str:
        return self.variant.name

    @property
    def round(self) -> int:
        return self.variant.round

    def inputs(self, fold: Fold, seed: int) -> Mapping[str, Any]:  # noqa: ARG002
        return {
            "recipe": self._recipe(seed),
            "distortion": self.variant.distortion,
            "lexicon": self.workplace.lexicon.digest if self.variant.pretrained else None,
        }

    def job(self, fold: Fold, seed: int) -> Job:
        """What is to be trained."""
        drawn = self.pretraining_seed(seed)
        table, split = distorted(fold.table, fold.split, self.variant.distortion, drawn)
        changed = self.variant.distortion.texts != "kept"
        marks = {"texts": self.variant.distortion.texts, "seed": drawn} if changed else {}
        return Job(table=table, split=split, recipe=self._recipe(seed), marks=marks)

    def rate(self, fold: Fold, seed: int) -> CellRatings:
        job = self.job(fold, seed)
        # Other benches may be at work in the same place, on other folds of these numbers.
        cell = Cell(fold=fold, seed=seed, contender=self)
        name = f"{fold.number}-{seed}-{self.name.replace(' ', '-')}-{cell.fingerprint}"
        run = self.workplace.run(job, name)
        states, device = self.workplace.states(job), job.recipe.finetuning.device
        rated = RatedPairs.of(FinishedRun.open(job.table, run, states=states, device=device), "test")
        self.workplace.forget_run(name)
        return CellRatings(
            squared_errors=np.square(rated.predicted - rated.truth),
            covered=rated.covered,
            bias_squared_errors=np.square(rated.bias - rated.truth),
        )

    def pretraining_seed(self, seed: int) -> int:
        """The seed that pre-training is drawn with where fine-tuning is drawn with this one."""
        shared = self.pretraining_seeds
        return seed if not shared or seed in shared else shared[seed % len(shared)]

    def _recipe(self, seed: int) -> Recipe:
        return self.variant.applied(self.recipe).seeded(seed, pretraining_seed=self.pretraining_seed(seed))


@dataclass(frozen=True, kw_only=True)
class MeasuredBaseline:
    """A baseline, tuned on the validation part of the fold (a :class:`Contender`)."""

    baseline: Baseline
    round: int

    @property
    def name(self) -> str:
        return self.baseline.name

    @property
    def seeded(self) -> bool:
        return self.baseline.seeded

    def inputs(self, fold: Fold, seed: int) -> Mapping[str, Any]:  # noqa: ARG002
        baseline = self.baseline
        return {"baseline": baseline.name, "library": [baseline.library, baseline.version()], "grid": baseline.grid}

    def rate(self, fold: Fold, seed: int) -> CellRatings:
        best = tuned(self.baseline, fold.table, fold.split, seed)
        return CellRatings(squared_errors=np.square(best.ratings - fold.truth), settings=best.settings)


def choose_contenders(
    asked: str,
    recipe: Recipe,
    workplace: Workplace,
    pretraining_seeds: Sequence[int] = (),
    *,
    other_domains: bool = False,
) -> list[Contender]:
    """``default`` (all baselines and what the first paragraph needs), ``all``, or names separated by commas.

    ``pretraining_seeds`` as in :class:`MeasuredVariant`. ``other_domains``: the table has some beside the target; where
    pre-training reads them there are baselines that do so, too, lest U-BERT be compared only with who was told less.
    Raises ``ConfigError`` naming the names there are.
    """
    told_alike: list[Baseline] = []
    if other_domains and recipe.pretraining is not None and recipe.pretraining.corpus != "target":
        told_alike = [with_other_domains(baseline) for baseline in surprise_baselines()]
    contenders: list[Contender] = [
        *(
            MeasuredVariant(variant=variant, recipe=recipe, workplace=workplace, pretraining_seeds=pretraining_seeds)
            for variant in VARIANTS
            if variant.name == UBERT or variant.differs(recipe)
        ),
        *(MeasuredBaseline(baseline=baseline, round=HEADLINE) for baseline in (*surprise_baselines(), *told_alike)),
        *(
            MeasuredBaseline(baseline=baseline, round=SLOW if baseline.name in SLOW_BASELINES else DEFAULT)
            for baseline in cornac_baselines()
        ),
    ]
    if asked == "all":
        return contenders
    if asked == "default":
        return [contender for contender in contenders if contender.round < REST]
    names = list(dict.fromkeys(name.strip() for name in asked.split(",")))
    known = {contender.name: contender for contender in contenders}
    for name in names:
        require(name in known, "variants", name, f"use default, all, or some of: {', '.join(known)}")
    return [known[name] for name in names]


def is_baseline(contender: Contender) -> bool:
    """Does it compete for the place of the best baseline?"""
    return isinstance(contender, MeasuredBaseline)
