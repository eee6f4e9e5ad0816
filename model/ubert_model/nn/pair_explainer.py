"""Attribution of a network output to the rows of states it was computed from. Needs torch only."""

from typing import NamedTuple

from torch import Tensor, nn

from ubert_model.nn.co_matching import masked_scores, row_weights
from ubert_model.nn.pair_scorer import PairScorer


class PairExplanation(NamedTuple):
    """The parts of a network output.

    ``identity_and_summary`` (B,) and the rows' contributions (B, Nu) and (B, Ni) are in stars and add up to the
    output. The attention is Eq. 12's softmax, (B, Nu, Ni) and (B, Ni, Nu): each real row sums to 1.
    """

    identity_and_summary: Tensor
    user_contributions: Tensor
    item_contributions: Tensor
    user_attention: Tensor
    item_attention: Tensor


class PairExplainer(nn.Module):
    """Splits the scorer's output exactly: the prediction layer is linear, and a match vector is the sum of its rows'
    contributions (``CoMatching.row_shares``).

    Both sides of every pair must have a real row.
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
        """The parts of what ``PairScorer.forward`` gives for the same inputs."""
        head = self.scorer.head
        domain_embedding = self.scorer.domain_embedding(domain)  # o (B, D)
        user_query = self.scorer.user_query(user, domain_embedding)
        item_query = self.scorer.item_query(item, domain_embedding)
        user_representation = head.user_encoder(user_query, user_states, user_mask)  # û (B, D)
        item_representation = head.item_encoder(item_query, item_states, item_mask)  # î (B, D)
        output = head.prediction_layer.output
        vectors, ratings = output.weight[0, : 4 * self.dim], output.weight[0, 4 * self.dim :]  # W_f
        user_weights, user_match_weights, item_weights, item_match_weights = vectors.view(4, self.dim)  # (D,) each

        scores = masked_scores(user_states, user_mask, item_states, item_mask)  # (B, Nu, Ni)
        user_attention, item_attention = scores.softmax(dim=-1), scores.mT.softmax(dim=-1)
        matching = head.co_matching
        user_compared = matching.compared(user_states, user_attention @ item_states)  # (B, Nu, D)
        item_compared = matching.compared(item_states, item_attention @ user_states)  # (B, Ni, D)
        user_contributions = matching.row_shares(user_compared, user_mask) @ user_match_weights  # (B, Nu)
        item_contributions = matching.row_shares(item_compared, item_mask) @ item_match_weights  # (B, Ni)
        if head.prediction_layer.ratings:
            # The rating aligned to the user's rows comes from the item's reviews, so these are credited with it.
            user_rating_weight, item_rating_weight = ratings
            item_contributions += user_rating_weight * _row_ratings(
                user_attention, user_mask, item_residuals, item_mask
            )
            user_contributions += item_rating_weight * _row_ratings(
                item_attention, item_mask, user_residuals, user_mask
            )
        return PairExplanation(
            identity_and_summary=user_representation @ user_weights + item_representation @ item_weights + output.bias,
            user_contributions=user_contributions,
            item_contributions=item_contributions,
            user_attention=user_attention,
            item_attention=item_attention,
        )


def _row_ratings(attention: Tensor, mask: Tensor, other_residuals: Tensor, other_mask: Tensor) -> Tensor:
    """What each of the other side's rows adds to the rating aligned to this side: (B, N, N′) → (B, N′)."""
    weights = row_weights(mask, attention.dtype) @ attention  # (B, 1, N′)
    return (weights.squeeze(1) * other_residuals).masked_fill(~other_mask, 0.0)
