"""Where a network output comes from: the pair scorer taken apart, row by row. Needs torch alone."""

from typing import NamedTuple

from torch import Tensor, nn

from ubert_model.nn.co_matching import CoMatching, masked_scores, row_weights
from ubert_model.nn.pair_scorer import PairScorer


class PairExplanation(NamedTuple):
    """What a network output is made of.

    ``identity_and_summary`` (B,) and the rows' contributions (B, Nu) and (B, Ni) are in stars and add up to the
    output. The attention is Eq. 12's softmax, (B, Nu, Ni) and (B, Ni, Nu): each real row adds up to 1.
    """

    identity_and_summary: Tensor
    user_contributions: Tensor
    item_contributions: Tensor
    user_attention: Tensor
    item_attention: Tensor


class PairExplainer(nn.Module):
    """Reads what the scorer reads. The split is exact: the prediction layer is linear, and a match vector is the sum of
    what its rows give to it (``CoMatching.row_shares``).

    Both sides of every pair must have a row.
    """

    def __init__(self, scorer: PairScorer) -> None:
        super().__init__()
        self.scorer = scorer
        self.dim = scorer.dim

    def forward(
        self,
        user: Tensor,
        item: Tensor,
        domain: Tensor,
        user_states: Tensor,
        user_residuals: Tensor,
        user_mask: Tensor,
        item_states: Tensor,
        item_residuals: Tensor,
        item_mask: Tensor,
    ) -> PairExplanation:
        """The parts of ``PairScorer.forward`` of the same inputs."""
        head = self.scorer.head
        domain_embedding = self.scorer.domain_embedding(domain)  # o (B, D)
        user_query = self.scorer.user_query(user, domain_embedding)
        item_query = self.scorer.item_query(item, domain_embedding)
        user_representation = head.user_encoder(user_query, user_states, user_mask)  # û (B, D)
        item_representation = head.item_encoder(item_query, item_states, item_mask)  # î (B, D)
        output = head.prediction_layer.output
        vectors, ratings = output.weight[0, : 4 * self.dim], output.weight[0, 4 * self.dim :]  # W_f
        for_user, for_user_match, for_item, for_item_match = vectors.view(4, self.dim)  # (D,) each

        scores = masked_scores(user_states, user_mask, item_states, item_mask)  # (B, Nu, Ni)
        user_attention, item_attention = scores.softmax(dim=-1), scores.mT.softmax(dim=-1)
        matching = head.co_matching
        user_compared = matching.compared(user_states, user_attention @ item_states)  # (B, Nu, D)
        item_compared = matching.compared(item_states, item_attention @ user_states)  # (B, Ni, D)
        user_contributions = _contributions(matching, user_compared, user_mask, for_user_match)
        item_contributions = _contributions(matching, item_compared, item_mask, for_item_match)
        if head.prediction_layer.ratings:
            # A rating that was aligned to the other side's rows is the contribution of the review that gave it.
            of_item, of_user = ratings
            item_contributions += of_item * _given(user_attention, user_mask, item_residuals, item_mask)
            user_contributions += of_user * _given(item_attention, item_mask, user_residuals, user_mask)
        return PairExplanation(
            identity_and_summary=user_representation @ for_user + item_representation @ for_item + output.bias,
            user_contributions=user_contributions,
            item_contributions=item_contributions,
            user_attention=user_attention,
            item_attention=item_attention,
        )


def _contributions(matching: CoMatching, compared: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Each row's share of W_f t, in stars: (B, N, D), (B, N), (D,) → (B, N)."""
    return matching.row_shares(compared, mask) @ weights


def _given(attention: Tensor, mask: Tensor, other_residuals: Tensor, other_mask: Tensor) -> Tensor:
    """What each row of the other side adds to the rating that is aligned to this side's: (B, N, N′) → (B, N′)."""
    shares = row_weights(mask, attention.dtype) @ attention  # (B, 1, N′)
    return (shares.squeeze(1) * other_residuals).masked_fill(~other_mask, 0.0)
