"""Figure 3, box *Review Co-Matching Layer*."""

import math

import torch
from torch import Tensor, nn

from ubert_model.nn.attention import masked_max, masked_softmax


class CoMatching(nn.Module):
    """The user's and the item's review tokens, aligned to each other, compared and pooled: Eq. 12–14.

    One similarity S_u S_iᵀ serves both directions of Eq. 12. tanh is monotone, so pooling comes first and one
    tanh a dimension remains; both are exact.

    Shape:
        user_states: (B, Nu, D), user_mask: (B, Nu); item_states: (B, Ni, D), item_mask: (B, Ni).
        Output: match vectors tᵘ and tⁱ, (B, D) each; zeros for a side without tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.kernel = nn.Linear(2 * dim, dim)  # W_M, b_M

    def forward(
        self, user_states: Tensor, user_mask: Tensor, item_states: Tensor, item_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        scores = user_states @ item_states.mT / math.sqrt(user_states.shape[-1])  # (B, Nu, Ni)
        user_aligned = masked_softmax(scores, item_mask.unsqueeze(1)) @ item_states  # (B, Nu, D)
        item_aligned = masked_softmax(scores.mT, user_mask.unsqueeze(1)) @ user_states  # (B, Ni, D)
        return (
            self._match(user_states, user_aligned, user_mask),
            self._match(item_states, item_aligned, item_mask),
        )

    def _match(self, states: Tensor, aligned: Tensor, mask: Tensor) -> Tensor:
        compared = torch.cat([states - aligned, states * aligned], dim=-1)  # (B, N, 2 D)
        return torch.tanh(masked_max(self.kernel(compared), mask))  # (B, D)
