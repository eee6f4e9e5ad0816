"""A directory in which many recipes are trained; what several of them need is computed once."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ubert_training.finetuning.finetune import finetune, require_finetunable
from ubert_training.pretraining.lexicon import Lexicon
from ubert_training.pretraining.pretrain import KIND as PRETRAIN
from ubert_training.pretraining.pretrain import pretrain, pretraining_inputs, require_pretrainable, rows_read
from ubert_training.recipes.recipe import Recipe
from ubert_training.reviews.table import ReviewTable
from ubert_training.running.devices import make_accelerator
from ubert_training.running.digests import fingerprint_of
from ubert_training.splits import Split


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One recipe on one split. ``marks``: what distinguishes the table from others with the same review ids."""

    table: ReviewTable
    split: Split
    recipe: Recipe
    marks: Mapping[str, Any] = field(default_factory=dict)


class Places(NamedTuple):
    """Directories that a job shares with others, existing or not.

    ``pretrained``: of its pre-trained model, None if the recipe does not pre-train. ``states``: of the encoder's
    states; without pre-training, one for all splits and seeds.
    """

    pretrained: Path | None
    states: Path


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Pre-trained models, encoder states and fine-tuned models below one directory; the first two under the digest of
    their inputs.

    Whatever was killed is continued when it is asked for again. States are large (a float for each token and dimension
    of every review), and missing ones are computed again, so they can be deleted at any time.
    ``only_measured``: no fine-tuned model is kept (see :func:`finetune`).
    """

    directory: Path
    lexicon: Lexicon
    only_measured: bool = False

    def places(self, job: Job) -> Places:
        """Where the job's pre-trained model and encoder states are, or will be. Digests every review that is read."""
        pretrained, config = self._pretrained(job), job.recipe.config
        inputs = {
            "encoder": [config.backbone, config.encoder_layers] if pretrained is None else pretrained.name,
            "form": [config.max_length, config.tokens_a_row],
            "table": job.table.fingerprint,
            "marks": job.marks,
        }
        return Places(pretrained=pretrained, states=self.directory / "states" / fingerprint_of("states", inputs))

    def require_trainable(self, job: Job) -> None:
        """Raise what one of the job's stages would raise before it starts."""
        recipe, finetuning, pretraining = job.recipe, job.recipe.finetuning, job.recipe.pretraining
        if pretraining is not None:
            rows, accelerator = rows_read(job.table, job.split, pretraining), make_accelerator(pretraining.device)
            require_pretrainable(job.table, rows, recipe.pretraining_config, pretraining, accelerator)
        require_finetunable(recipe.config, finetuning, make_accelerator(finetuning.device))

    def run(self, job: Job, name: str) -> Path:
        """Train what is not trained yet. Returns the fine-tuned model's directory, ``runs/NAME``.

        Raises ``DivergedError`` if training diverges.
        """
        recipe, (pretrained, states) = job.recipe, self.places(job)
        if recipe.pretraining is not None and pretrained is not None:
            config = recipe.pretraining_config
            pretrain(job.table, job.split, config, self.lexicon, recipe.pretraining, pretrained)
        return finetune(
            job.table,
            job.split,
            recipe.config,
            recipe.finetuning,
            self.directory / "runs" / name,
            pretrained=pretrained,
            states=states,
            force=True,  # a run of other inputs under this name is an earlier attempt
            only_measured=self.only_measured,
        )

    def discard_run(self, name: str) -> None:
        """Delete a fine-tuned model whose ratings are stored."""
        shutil.rmtree(self.directory / "runs" / name, ignore_errors=True)

    def _pretrained(self, job: Job) -> Path | None:
        recipe = job.recipe
        if recipe.pretraining is None:
            return None
        rows = rows_read(job.table, job.split, recipe.pretraining)
        inputs = pretraining_inputs(
            job.table, job.split, rows, recipe.pretraining_config, self.lexicon, recipe.pretraining
        )
        return self.directory / "pretrained" / fingerprint_of(PRETRAIN, {**inputs, "marks": job.marks})
