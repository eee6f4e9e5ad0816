"""The contenders: variants of U-BERT and baselines, in a form that can be measured on a fold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from ubert_model.validation import require
from ubert_training.accuracy.cells import Cell, CellRatings, Contender
from ubert_training.accuracy.distortions import Distortion, distorted
from ubert_training.accuracy.folds import Fold
from ubert_training.baselines.bayesian_models import bayesian_baselines
from ubert_training.baselines.cornac_models import cornac_baselines
from ubert_training.baselines.surprise_models import surprise_baselines
from ubert_training.baselines.tuning import INNER_FOLDS, Baseline, tuned, with_other_domains
from ubert_training.evaluation.rated_pairs import RatedPairs
from ubert_training.finetuning.finished_run import FinishedRun
from ubert_training.recipes.recipe import Recipe
from ubert_training.recipes.workspace import Job, Workspace

UBERT = "u-bert"
SHUFFLED = "reviews shuffled over users and items"
NO_TEXT = "no review text"

HEADLINE, DEFAULT, SLOW, REST = range(4)
"""Rounds, in order: what the report's first paragraph needs; what `--variants default` adds, slow ones last; what
`all` adds."""
SLOW_BASELINES = ("HFT", "NARRE", "HRDR")
"""These take minutes per cell: HFT visits every word in Python, the others train a network on all reviews' words."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What differs from the recipe: fields of its configuration, options of pre-training, the reviews."""

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    pretraining: Mapping[str, Any] = field(default_factory=dict)
    pretrained: bool = True
    distortion: Distortion = field(default_factory=Distortion)
    round: int = REST

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe that this variant trains by."""
        return recipe.varied(model=self.model, pretraining=self.pretraining, pretrained=self.pretrained)

    def differs(self, recipe: Recipe) -> bool:
        """Does it differ from the recipe at all? An ablation of pre-training does not, if the recipe has none."""
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
    # Not pre-trained: one word teaches nothing, and as a copy of every held-out text it would be left out anyway.
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
    """A variant of a recipe, trained in a workspace (a :class:`Contender`).

    ``pretraining_seeds``: the seeds of pre-training and of what it reads; any other seed fine-tunes a model that one of
    these has pre-trained. Empty: each seed pre-trains its own.
    """

    variant: Variant
    recipe: Recipe
    workspace: Workspace
    pretraining_seeds: Sequence[int] = ()

    @property
    def name(self) -> str:
        return self.variant.name

    @property
    def seeded(self) -> bool:
        return True

    @property
    def round(self) -> int:
        return self.variant.round

    def inputs(self, fold: Fold, seed: int) -> Mapping[str, Any]:  # noqa: ARG002
        return {
            "recipe": self._recipe(seed),
            "distortion": self.variant.distortion,
            "lexicon": self.workspace.lexicon.digest if self.variant.pretrained else None,
        }

    def job(self, fold: Fold, seed: int) -> Job:
        """The model to train for a fold and a seed."""
        distortion, pretraining_seed = self.variant.distortion, self.pretraining_seed(seed)
        table, split = distorted(fold.table, fold.split, distortion, pretraining_seed)
        marks = {"texts": distortion.texts, "seed": pretraining_seed} if distortion.texts != "kept" else {}
        return Job(table=table, split=split, recipe=self._recipe(seed), marks=marks)

    def rate(self, fold: Fold, seed: int) -> CellRatings:
        job = self.job(fold, seed)
        # The fingerprint, because other benches may work in the same place, on other folds of the same numbers.
        cell = Cell(fold=fold, seed=seed, contender=self)
        name = f"{fold.number}-{seed}-{self.name.replace(' ', '-')}-{cell.fingerprint}"
        run = self.workspace.run(job, name)
        states, device = self.workspace.places(job).states, job.recipe.finetuning.device
        rated = RatedPairs.of(FinishedRun.open(job.table, run, states=states, device=device), "test")
        self.workspace.discard_run(name)
        return CellRatings(
            squared_errors=np.square(rated.predicted - rated.truth),
            predicted=rated.predicted,
            covered=rated.covered,
            bias_squared_errors=np.square(rated.bias - rated.truth),
        )

    def pretraining_seed(self, seed: int) -> int:
        """The seed of pre-training for this seed of fine-tuning."""
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
        folds = {"inner_folds": INNER_FOLDS} if baseline.compares_on_folds else {}
        library = [baseline.library, baseline.version()]
        return {"baseline": baseline.name, "library": library, "grid": baseline.grid, **folds}

    def rate(self, fold: Fold, seed: int) -> CellRatings:
        best = tuned(self.baseline, fold.table, fold.split, seed)
        errors = np.square(best.ratings - fold.truth)
        return CellRatings(squared_errors=errors, predicted=best.ratings, settings=best.settings)


def choose_contenders(
    names: str,
    recipe: Recipe,
    workspace: Workspace,
    pretraining_seeds: Sequence[int] = (),
    *,
    other_domains: bool = False,
) -> list[Contender]:
    """``default`` (all baselines and what the first paragraph needs), ``all``, or names separated by commas.

    ``pretraining_seeds`` as in :class:`MeasuredVariant`. ``other_domains``: the table has some besides the target; if
    pre-training reads them, each baseline but the slow ones is added once more, also learning from them, for a fair
    comparison.
    Raises ``ConfigError`` listing the known names.
    """
    baselines = [MeasuredBaseline(baseline=baseline, round=HEADLINE) for baseline in surprise_baselines()]
    baselines += [
        MeasuredBaseline(baseline=baseline, round=SLOW if baseline.name in SLOW_BASELINES else DEFAULT)
        for baseline in (*bayesian_baselines(), *cornac_baselines())
    ]
    if other_domains and recipe.pretraining is not None and recipe.pretraining.corpus != "target":
        baselines += [
            replace(measured, baseline=with_other_domains(measured.baseline))
            for measured in baselines
            if measured.round < SLOW
        ]
    contenders: list[Contender] = [
        *(
            MeasuredVariant(variant=variant, recipe=recipe, workspace=workspace, pretraining_seeds=pretraining_seeds)
            for variant in VARIANTS
            if variant.name == UBERT or variant.differs(recipe)
        ),
        *baselines,
    ]
    if names == "all":
        return contenders
    if names == "default":
        return [contender for contender in contenders if contender.round < REST]
    chosen = list(dict.fromkeys(name.strip() for name in names.split(",")))
    known = {contender.name: contender for contender in contenders}
    for name in chosen:
        require(name in known, "variants", name, f"use default, all, or some of: {', '.join(known)}")
    return [known[name] for name in chosen]


def is_baseline(contender: Contender) -> bool:
    """Can it be the best baseline?"""
    return isinstance(contender, MeasuredBaseline)
