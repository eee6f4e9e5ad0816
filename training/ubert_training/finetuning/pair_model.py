"""The rating model over batches of pairs, and its outputs for many pairs."""

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from torch import Tensor, nn

from ubert_model.nn.rating_model import RatingModel
from ubert_training.finetuning.histories import Histories
from ubert_training.finetuning.pair_batches import PairBatch, PairSource
from ubert_training.optimization.batches import Indices, bucketed_batches
from ubert_training.running.processes import process_share, sum_over_processes

EVALUATION_BATCH = 64


class PairModel(nn.Module):
    """The rating model over a batch of pairs: encodes, or takes cached states; projects; lines up; predicts.

    ``projected``: the states of the batches are projected already, as a store holds them.
    """

    def __init__(self, model: RatingModel, *, projected: bool = False) -> None:
        super().__init__()
        self.model = model
        self.projected = projected

    def forward(self, batch: PairBatch) -> Tensor:
        """Network output of each pair, (B,)."""
        states = self._encoded(batch) if batch.states is None else batch.states  # (T, d)
        if not self.projected:
            states = self.model.review_encoder.project(states)  # (T, D)
        if not len(states):
            states = states.new_zeros((1, states.shape[1]))  # no review at all: every masked column points here
        user, item = batch.user_side, batch.item_side
        return self.model(  # type: ignore[no-any-return]
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

    def _encoded(self, batch: PairBatch) -> Tensor:
        """Rows of states of the batch's reviews, end to end, (T, d); none if no review has text."""
        encoder = self.model.review_encoder
        assert batch.token_ids is not None
        assert batch.token_mask is not None
        if not batch.token_ids.numel():  # BERT fails on an empty batch
            return encoder.word_embeddings.new_zeros((0, encoder.hidden_dim))
        tokens = encoder.encode(batch.token_ids, batch.token_mask)[batch.token_mask]
        lengths = batch.token_mask.sum(dim=1)
        return encoder.pool(tokens, lengths[lengths > 0])


def evaluation_batches(source: PairSource, histories: Histories, pairs: Indices) -> list[Indices]:
    """The pairs at these indices, in batches that need little padding."""
    return bucketed_batches(pairs, source.sizes(histories), EVALUATION_BATCH)


def network_outputs(
    model: nn.Module, source: PairSource, histories: Histories, accelerator: Accelerator
) -> NDArray[np.float64]:
    """Network output of each pair, (P,), in evaluation mode and fp32; 0 for pairs without text on a side.

    All processes must call this: they share the work.
    """
    model.eval()
    outputs = np.zeros(len(histories))
    with torch.inference_mode():
        for index in process_share(accelerator, evaluation_batches(source, histories, np.arange(len(histories)))):
            batch = send_to_device(source.batch(histories, index), accelerator.device)
            outputs[index] = model(batch).cpu().double().numpy()
    outputs[~histories.has_both_sides] = 0.0
    return sum_over_processes(accelerator, outputs)
