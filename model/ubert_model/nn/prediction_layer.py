"""Figure 3, box *Prediction Layer*."""

import torch
from torch import Tensor, nn

from ubert_model.nn.co_matching import Matches

ALIGNED_RATINGS = 2
"""Further inputs of a model that reads ratings: the one aligned to the user's rows, and to the item's."""


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
        vectors = torch.cat([user_representation, matches.user, item_representation, matches.item], dim=-1)
        joined = self.dropout(vectors)
        if self.ratings:
            aligned = torch.stack([matches.user_rating, matches.item_rating], dim=-1)  # (B, 2)
            joined = torch.cat([joined, aligned], dim=-1)
        return self.output(joined).squeeze(-1)  # type: ignore[no-any-return]
