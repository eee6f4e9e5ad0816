"""Attribution of a network output to the rows of states it was computed from. Needs torch only."""

from typing import NamedTuple

from torch import Tensor, nn

from ubert_model.nn.co_matching import SideRows
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
        user_query, item_query = self.scorer.queries(user, item, domain)
        user_representation = head.user_encoder(user_query, user_states, user_mask)  # û (B, D)
        item_representation = head.item_encoder(item_query, item_states, item_mask)  # î (B, D)
        matching, weights = head.co_matching, head.prediction_layer.weights
        of_user, of_item = matching.align(
            SideRows(user_states, user_residuals, user_mask), SideRows(item_states, item_residuals, item_mask)
        )
        user_contributions = matching.row_shares(of_user.compared, user_mask) @ weights.user_match  # (B, Nu)
        item_contributions = matching.row_shares(of_item.compared, item_mask) @ weights.item_match  # (B, Ni)
        if head.prediction_layer.ratings:
            # The rating aligned to the user's rows comes from the item's reviews, so these are credited with it.
            user_rating_weight, item_rating_weight = weights.ratings
            item_contributions += user_rating_weight * (of_user.weights * item_residuals)
            user_contributions += item_rating_weight * (of_item.weights * user_residuals)
        return PairExplanation(
            identity_and_summary=user_representation @ weights.user
            + item_representation @ weights.item
            + head.prediction_layer.output.bias,
            user_contributions=user_contributions,
            item_contributions=item_contributions,
            user_attention=of_user.attention,
            item_attention=of_item.attention,
        )
