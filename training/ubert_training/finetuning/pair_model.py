"""The rating model over batches of pairs, and its outputs for many of them."""

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from ubert_model.nn.rating_model import RatingModel
from ubert_training.finetuning.histories import Histories
from ubert_training.finetuning.pair_batches import PairBatch, PairSource
from ubert_training.optimization.batches import Positions, batches_of_like_size
from ubert_training.running.processes import own_share, put_together

EVALUATION_BATCH = 64


class PairModel(nn.Module):
    """The rating model over a batch of pairs: encodes or takes cached states, projects, lines them up, predicts."""

    def __init__(self, model: RatingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PairBatch) -> Tensor:
        """Network output of each pair, (B,)."""
        states = self._encoded(batch) if batch.states is None else batch.states  # (T, d)
        return _outputs_from_states(self.model, self.model.review_encoder.project(states), batch)

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


class StoredPairModel(nn.Module):
    """The rating model over a batch whose states are projected already, as a store holds them."""

    def __init__(self, model: RatingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PairBatch) -> Tensor:
        """Network output of each pair, (B,)."""
        assert batch.states is not None
        return _outputs_from_states(self.model, batch.states, batch)


def _outputs_from_states(model: RatingModel, states: Tensor, batch: PairBatch) -> Tensor:
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


def evaluation_batches(source: PairSource, histories: Histories, pairs: Positions) -> list[Positions]:
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
