"""The fine-tuning task (Figure 3): the rating model over batches of pairs, its loss, its validation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from torch import Tensor, nn

from ubert_model.nn.pair_model import PairModel
from ubert_model.nn.rating_model import RatingModel
from ubert_model.rating.blend import Blend
from ubert_training.finetuning.bias_fit import bias_ratings, fit_bias_model
from ubert_training.finetuning.finetune_options import FinetuneOptions
from ubert_training.finetuning.histories import KnownReviews
from ubert_training.finetuning.interval_fit import fit_intervals
from ubert_training.finetuning.network_outputs import network_outputs
from ubert_training.finetuning.pair_batches import PairSource
from ubert_training.finetuning.rating_parts import RatingParts, final_ratings, fit_blend_weight
from ubert_training.optimization.batches import Indices, shuffled_bucketed_batches
from ubert_training.optimization.loop import LoopOptions, TrainingProgress, decayed_groups
from ubert_training.optimization.objectives import rating_loss
from ubert_training.splits import Split

ID_EMBEDDINGS = ("model.user_query.embedding", "model.item_query.embedding")
SHRUNK_ID_RATE = 0.01
"""Share of the learning rate for ``id_embeddings="shrunk"``: they stay near their initial values."""


class FinetuningTask:
    """Eq. 15 over the training pairs; early stopping watches the error of the blended rating on validation."""

    def __init__(
        self,
        model: RatingModel,
        source: PairSource,
        known: KnownReviews,
        split: Split,
        options: FinetuneOptions,
        accelerator: Accelerator,
    ) -> None:
        self.pair_model = PairModel(model)
        self.model: nn.Module = self.pair_model
        self.config = model.config
        self.source = source
        self.options = options
        self.accelerator = accelerator
        self.device = accelerator.device
        ratings = source.table.rating.astype(np.float64)
        fitted = fit_bias_model(known, split.train, ratings[split.train], self.config.scale)
        self.bias, self.deviations = fitted.model, fitted.usual
        self.training = known.histories(split.train, self.bias, self.deviations)
        self.validation = known.histories(split.validation, self.bias, self.deviations)
        self.validation_ratings = ratings[split.validation]
        base = bias_ratings(self.bias, self.training.sums) if self.config.above_bias else np.zeros(len(self.training))
        self.targets = torch.from_numpy((ratings[split.train] - base).astype(np.float32))
        self.readable = np.flatnonzero(self.training.has_both_sides)
        self._sizes = source.sizes(self.training)

    def parameter_groups(self, options: LoopOptions) -> list[dict[str, Any]]:
        """BERT, the projection and shrunk id embeddings have their own learning rates."""
        rates = {
            "model.review_encoder.bert": self.options.encoder_learning_rate,
            "model.review_encoder.projection": self.options.projection_learning_rate,
        }
        if self.config.id_embeddings == "shrunk":
            rates |= dict.fromkeys(ID_EMBEDDINGS, SHRUNK_ID_RATE * options.learning_rate)
        return decayed_groups(self.model, options.weight_decay, rates)

    def batches(self, epoch: int) -> Sequence[Indices]:
        """Training pairs that have text on both sides; the bias model alone rates the others."""
        loop = self.options.loop
        return shuffled_bucketed_batches(self.readable, self._sizes, loop.batch_size, loop.seed, epoch)

    def sample_readable(self, count: int) -> Indices:
        """At most ``count`` training pairs that have text on both sides, ascending, drawn by the run's seed."""
        if len(self.readable) <= count:
            return self.readable
        rng = np.random.default_rng([self.options.loop.seed, 19])
        return np.sort(rng.choice(self.readable, count, replace=False))

    def loss(self, model: nn.Module, rows: Indices, epoch: int) -> Tensor:  # noqa: ARG002
        """Squared error of the rating, or of what is left above the bias model."""
        batch = send_to_device(self.source.batch(self.training, rows), self.device)
        return rating_loss(model(batch), self.targets[rows].to(self.device))

    def validation_losses(self) -> NDArray[np.float64]:
        """Squared error of the blended rating of each validation pair, in stars²."""
        outputs = network_outputs(self.model, self.source, self.validation, self.accelerator)
        blend = Blend.of(self.config, self.bias, self._blend_weight(outputs))
        predicted = final_ratings(blend, self.validation, outputs)
        return np.square(predicted - self.validation_ratings)

    def rating_parts(self, progress: TrainingProgress) -> RatingParts:
        """The blend of the bias model with the network as it is now, and the intervals around its ratings.

        If no epoch was better than the ridge solution that training started from, the weight is 1: leave-one-out over
        the training pairs has fitted its scale more closely than the few validation pairs could.
        """
        outputs = network_outputs(self.model, self.source, self.validation, self.accelerator)
        keeps_ridge = progress.best_epoch == -1 and self.config.above_bias and len(self.readable) > 0
        blend = Blend.of(self.config, self.bias, 1.0 if keeps_ridge else self._blend_weight(outputs))
        predicted = final_ratings(blend, self.validation, outputs)
        return RatingParts(
            blend=blend,
            deviations=self.deviations,
            intervals=fit_intervals(predicted, self.validation_ratings, self.validation.user_count, self.config.scale),
        )

    def _blend_weight(self, outputs: NDArray[np.float64]) -> float:
        """The network's weight, fitted on validation; 1 without a bias model beneath it, as in the paper; 0 if no
        training pair has text on both sides, and so the network was not trained.
        """
        if not len(self.readable):
            return 0.0
        if not self.config.above_bias:
            return 1.0
        readable = self.validation.has_both_sides
        residuals = self.validation_ratings - bias_ratings(self.bias, self.validation.sums)
        return fit_blend_weight(outputs[readable], residuals[readable])
