"""Figure 3, box *Prediction Layer*."""

import torch
from torch import Tensor, nn


class PredictionLayer(nn.Module):
    """[û; tᵘ; î; tⁱ] W_f + b_f.

    Shape:
        four (B, D). Output: (B,), in stars.
    """

    def __init__(self, dim: int, initial_output: float, dropout: float) -> None:
        super().__init__()
        self.output = nn.Linear(4 * dim, 1)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.constant_(self.output.bias, initial_output)

    def forward(
        self,
        user_representation: Tensor,
        user_match_vector: Tensor,
        item_representation: Tensor,
        item_match_vector: Tensor,
    ) -> Tensor:
        joined = torch.cat([user_representation, user_match_vector, item_representation, item_match_vector], dim=-1)
        return self.output(self.dropout(joined)).squeeze(-1)  # type: ignore[no-any-return]
