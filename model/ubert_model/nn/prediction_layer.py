"""Figure 3, box *Prediction Layer*."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ubert_model.nn.co_matching import Matches

ALIGNED_RATINGS = 2
"""Further inputs of a model that reads ratings: the one aligned to the user's rows, and to the item's."""


class PredictionWeights(NamedTuple):
    """W_f by what it weighs: û, tᵘ, î and tⁱ, (D,) each; the aligned ratings, (2,), or (0,) if the layer reads none."""

    user: Tensor
    user_match: Tensor
    item: Tensor
    item_match: Tensor
    ratings: Tensor


class PredictionLayer(nn.Module):
    """[û; tᵘ; î; tⁱ] W_f + b_f; with ``ratings``, beyond the paper, the two aligned ratings follow the vectors.

    Shape:
        representations û and î: (B, D); matches tᵘ and tⁱ: (B, D), ratings (B,). Output: (B,), in stars.
    """

    def __init__(self, dim: int, initial_output: float, dropout: float, *, ratings: bool) -> None:
        super().__init__()
        self.ratings = ratings
        self.output = nn.Linear(4 * dim + (ALIGNED_RATINGS if ratings else 0), 1)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.constant_(self.output.bias, initial_output)

    def forward(self, user_representation: Tensor, item_representation: Tensor, matches: Matches) -> Tensor:
        return self.output(self.inputs(user_representation, item_representation, matches)).squeeze(-1)  # type: ignore[no-any-return]

    def inputs(self, user_representation: Tensor, item_representation: Tensor, matches: Matches) -> Tensor:
        """What W_f is applied to: (B, 4 D), or with ``ratings`` (B, 4 D + 2)."""
        vectors = torch.cat([user_representation, matches.user, item_representation, matches.item], dim=-1)
        joined = self.dropout(vectors)
        if self.ratings:
            aligned = torch.stack([matches.user_rating, matches.item_rating], dim=-1)  # (B, 2)
            joined = torch.cat([joined, aligned], dim=-1)
        return joined  # type: ignore[no-any-return]

    @property
    def weights(self) -> PredictionWeights:
        """Views of W_f, in the order of :meth:`inputs`."""
        weight = self.output.weight[0]
        vectors = len(weight) - (ALIGNED_RATINGS if self.ratings else 0)  # 4 D
        user, user_match, item, item_match = weight[:vectors].view(4, -1)
        return PredictionWeights(user, user_match, item, item_match, weight[vectors:])
