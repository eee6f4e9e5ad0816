"""The fine-tuning task (Figure 3): the rating model over batches of pairs, its loss, its start, its validation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from ubert_model.intervals import RatingIntervals
from ubert_model.nn.rating_model import RatingModel
from ubert_training.batches import Rows, batches_of_like_size, shuffled_batches_of_like_size
from ubert_training.finetuning.bias_fit import bias_ratings, fit_bias_model
from ubert_training.finetuning.finetune_options import FinetuneOptions
from ubert_training.finetuning.histories import Histories, KnownReviews
from ubert_training.finetuning.pair_batches import PairBatch, PairSource
from ubert_training.finetuning.rating_parts import RatingParts, blend_share, final_ratings
from ubert_training.loop import LoopOptions, Position, decayed_groups
from ubert_training.objectives import rating_loss
from ubert_training.processes import own_share, put_together
from ubert_training.splits import Split

EVALUATION_BATCH = 64
RIDGE_STRENGTHS = tuple(np.logspace(1, 7, 19))
RIDGE_PAIRS = 100_000
"""At most so many pairs, drawn at random: many times the weights there are, and at D = 128 some 2 GB of memory."""
ID_EMBEDDINGS = ("model.user_query.embedding", "model.item_query.embedding")
SHRUNK_ID_RATE = 0.01
"""Share of the learning rate for ``id_embeddings="shrunk"``: what pre-training gave them changes slowly."""


class FineTuning(nn.Module):
    """The rating model over a batch of pairs: encodes or takes cached states, projects, lines them up, predicts."""

    def __init__(self, model: RatingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PairBatch) -> Tensor:
        """Network output of each pair, (B,)."""
        states = self._encoded(batch) if batch.states is None else batch.states  # (T, d)
        return outputs_from_states(self.model, self.model.review_encoder.project(states), batch)

    def _encoded(self, batch: PairBatch) -> Tensor:
        """Rows of states of the batch's reviews, end to end, (T, d); none where no review has text."""
        encoder = self.model.review_encoder
        assert batch.token_ids is not None
        assert batch.token_mask is not None
        if not batch.token_ids.numel():  # BERT cannot reshape nothing
            return encoder.word_embeddings.new_zeros((0, encoder.hidden_dim))
        tokens = encoder.encode(batch.token_ids, batch.token_mask)[batch.token_mask]
        lengths = batch.token_mask.sum(dim=1)
        return encoder.pool(tokens, lengths[lengths > 0])


class StoredStates(nn.Module):
    """The rating model over a batch whose states are projected already, as a store holds them."""

    def __init__(self, model: RatingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PairBatch) -> Tensor:
        """Network output of each pair, (B,)."""
        assert batch.states is not None
        return outputs_from_states(self.model, batch.states, batch)


def outputs_from_states(model: RatingModel, states: Tensor, batch: PairBatch) -> Tensor:
    """Line up the projected states (T, D) of a batch's reviews and predict: network output of each pair, (B,)."""
    if not len(states):
        states = states.new_zeros((1, model.review_encoder.dim))  # no review at all: the masked column points here
    user, item = batch.user_side, batch.item_side
    return model(  # type: ignore[no-any-return]
        batch.user,
        batch.item,
        batch.domain,
        states[user.state_index],
        user.residuals,
        user.mask,
        states[item.state_index],
        item.residuals,
        item.mask,
    )


class FinetuningTask:
    """Eq. 15 over the training pairs; early stopping on the blended rating's error on validation."""

    def __init__(
        self,
        model: RatingModel,
        source: PairSource,
        known: KnownReviews,
        split: Split,
        options: FinetuneOptions,
        accelerator: Accelerator,
    ) -> None:
        self.model: nn.Module = FineTuning(model)
        self.rating_model = model
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
        """BERT and the projection at rates of their own; id embeddings at theirs, where they stay near their start."""
        rates = {
            "model.review_encoder.bert": self.options.encoder_learning_rate,
            "model.review_encoder.projection": self.options.projection_learning_rate,
        }
        if self.config.id_embeddings == "shrunk":
            rates |= dict.fromkeys(ID_EMBEDDINGS, SHRUNK_ID_RATE * options.learning_rate)
        return decayed_groups(self.model, options.weight_decay, rates)

    def batches(self, epoch: int) -> Sequence[Rows]:
        """Training pairs that have text on both sides; the others are the bias model's."""
        loop = self.options.loop
        return shuffled_batches_of_like_size(self.readable, self._sizes, loop.batch_size, loop.seed, epoch)

    def sample_readable(self, count: int) -> Rows:
        """At most so many of the training pairs that have text on both sides, ascending; drawn by the run's seed."""
        if len(self.readable) <= count:
            return self.readable
        rng = np.random.default_rng([self.options.loop.seed, 19])
        return np.sort(rng.choice(self.readable, count, replace=False))

    def loss(self, model: nn.Module, rows: Rows, epoch: int) -> Tensor:  # noqa: ARG002
        """Squared error of the rating, or of what is left above the bias model."""
        batch = self.source.batch(self.training, rows).to(self.device)
        return rating_loss(model(batch), self.targets[rows].to(self.device))

    def validation_losses(self) -> NDArray[np.float64]:
        """Squared error of the blended rating of each validation pair, in stars²."""
        outputs = network_outputs(self.model, self.source, self.validation, self.accelerator)
        predicted = final_ratings(self.config, self.bias, self._blend_weight(outputs), self.validation, outputs)
        return np.square(predicted - self.validation_ratings)

    def rating_parts(self, position: Position) -> RatingParts:
        """The bias model, the blend weight of the model as it is now, and the intervals around its ratings.

        The ridge solution that training started from is taken whole where no epoch was better: leave-one-out over
        the training pairs has fitted its size more closely than the few validation pairs could.
        """
        outputs = network_outputs(self.model, self.source, self.validation, self.accelerator)
        ridge_stands = position.best_epoch == -1 and self.config.above_bias and len(self.readable) > 0
        blend_weight = 1.0 if ridge_stands else self._blend_weight(outputs)
        predicted = final_ratings(self.config, self.bias, blend_weight, self.validation, outputs)
        return RatingParts(
            bias=self.bias,
            deviations=self.deviations,
            blend_weight=blend_weight,
            intervals=RatingIntervals.fit(predicted, self.validation_ratings, self.validation.user_count),
        )

    def _blend_weight(self, outputs: NDArray[np.float64]) -> float:
        """The network's share, by validation. Without a bias beneath it the network is the paper's, not blended.

        It is 0 where no training pair has text on both sides: a network that was shown nothing says nothing.
        """
        if not len(self.readable):
            return 0.0
        if not self.config.above_bias:
            return 1.0
        readable = self.validation.has_both_sides
        left = self.validation_ratings - bias_ratings(self.bias, self.validation.sums)
        return blend_share(outputs[readable], left[readable])


def solve_prediction_layer(task: FinetuningTask) -> None:
    """Start co-matching as a plain comparison, and the prediction layer at the ridge regression over all that it reads:
    û, tᵘ, î, tⁱ and the aligned ratings.

    With few pairs this is most of what can be learned: its strength is chosen by leave-one-out over the training
    pairs (a sample of :data:`RIDGE_PAIRS`, if there are more), where gradient steps from a random layer would spend
    the same pairs on noise first. Without a pair that has text on both sides the layer stays as it is.
    """
    head = task.rating_model.head
    head.co_matching.start_plain()
    if not len(task.readable):
        return
    layer = head.prediction_layer
    pairs = task.sample_readable(RIDGE_PAIRS)
    inputs = np.zeros((len(pairs), layer.output.in_features))
    joined: list[Tensor] = []
    handle = layer.output.register_forward_pre_hook(lambda _, arguments: joined.append(arguments[0].double().cpu()))
    task.model.eval()
    with handle, torch.inference_mode():
        for batch in own_share(task.accelerator, evaluation_batches(task.source, task.training, pairs)):
            task.model(task.source.batch(task.training, batch).to(task.device))
            inputs[np.searchsorted(pairs, batch)] = joined.pop().numpy()
    inputs = put_together(task.accelerator, inputs)
    # Two seconds, which only a run's first start needs: not its continuation, nor whoever reads a finished model.
    from sklearn.linear_model import RidgeCV  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    scaler = StandardScaler(copy=False).fit(inputs)
    ridge = RidgeCV(alphas=RIDGE_STRENGTHS).fit(scaler.transform(inputs), task.targets.numpy()[pairs])
    weight = ridge.coef_ / scaler.scale_
    with torch.no_grad():
        layer.output.weight[0] = torch.from_numpy(weight).float()
        layer.output.bias.fill_(float(ridge.intercept_ - weight @ scaler.mean_))


def evaluation_batches(source: PairSource, histories: Histories, pairs: Rows) -> list[Rows]:
    """The positions of some pairs, in batches that need little padding."""
    return batches_of_like_size(pairs, source.sizes(histories), EVALUATION_BATCH)


def network_outputs(
    model: nn.Module, source: PairSource, histories: Histories, accelerator: Accelerator
) -> NDArray[np.float64]:
    """Network output of each pair, (P,), in evaluation mode and fp32. Pairs without text on a side count as 0.

    To be called by all processes, which share the work.
    """
    model.eval()
    outputs = np.zeros(len(histories))
    readable = histories.has_both_sides
    with torch.inference_mode():
        for index in own_share(accelerator, evaluation_batches(source, histories, np.arange(len(histories)))):
            batch = source.batch(histories, index).to(accelerator.device)
            outputs[index] = model(batch).double().cpu().numpy()
    outputs[~readable] = 0.0
    return put_together(accelerator, outputs)
