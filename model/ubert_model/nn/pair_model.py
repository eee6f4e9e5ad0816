"""The forward pass of fine-tuning: a batch of pairs and their reviews in, network output out."""

from typing import NamedTuple

from torch import Tensor, nn

from ubert_model.nn.co_matching import SideRows
from ubert_model.nn.rating_model import RatingModel


class SideIndex(NamedTuple):
    """One side's rows of states: the index of each in the batch's states, how far its review lies above what
    the bias model expects, and the mask; (B, N) each.
    """

    state_index: Tensor
    residuals: Tensor
    mask: Tensor


class PairBatch(NamedTuple):
    """B pairs and the R distinct reviews in their histories, T rows of states in all.

    Shape:
        user, item, domain: (B,); states (cached S^L; None if the model encodes): (T, d);
        token_ids, token_mask: (R, L), None if states are cached.
    """

    user: Tensor
    item: Tensor
    domain: Tensor
    user_side: SideIndex
    item_side: SideIndex
    states: Tensor | None
    token_ids: Tensor | None
    token_mask: Tensor | None


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
        return self.model.head(*self.head_inputs(batch))  # type: ignore[no-any-return]

    def head_inputs(self, batch: PairBatch) -> tuple[Tensor, SideRows, Tensor, SideRows]:
        """What ``RatingHead`` reads: ũ, the user's side, ĩ, the item's side."""
        states = self._encoded(batch) if batch.states is None else batch.states  # (T, d)
        if not self.projected:
            states = self.model.review_encoder.project(states)  # (T, D)
        if not len(states):
            states = states.new_zeros((1, states.shape[1]))  # no review at all: every masked column points here
        user, item = (
            SideRows(states[side.state_index], side.residuals, side.mask) for side in (batch.user_side, batch.item_side)
        )
        user_query, item_query = self.model.queries(batch.user, batch.item, batch.domain)
        return user_query, user, item_query, item

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
