"""Figure 3, box *Review Co-Matching Layer*."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ubert_model.config import MatchPooling
from ubert_model.nn.attention import masked_max

_MASKED = -1e30
"""Added to the score of a padded row. exp(−1e30 − max) is exactly 0, and −2e30 still fits float32 and bfloat16."""

DIFFERENCE_SCALE = 0.3
"""ε of :meth:`CoMatching.init_as_difference`."""


class SideRows(NamedTuple):
    """One side: the states of its reviews, Ŝᵘ or Ŝⁱ, the residual of each row's review, in stars, and the mask.

    Shape:
        states: (B, N, D); residuals, mask: (B, N). N ≥ 1: a side without reviews is one masked row.
    """

    states: Tensor
    residuals: Tensor
    mask: Tensor


class Alignment(NamedTuple):
    """One side's N rows, aligned to the N′ rows of the other.

    ``attention``: the softmax of Eq. 12; where both sides have rows, each real row sums to 1. ``compared``:
    [S−D; S∘D] W_M, Eq. 13 before b_M and tanh. ``rating``: the other side's residuals, aligned to this side's rows and
    averaged over them, in stars. ``weights``: each residual's weight in it; 0 for padding.

    Shape:
        attention: (B, N, N′); compared: (B, N, D); weights: (B, N′); rating: (B,).
    """

    attention: Tensor
    compared: Tensor
    weights: Tensor
    rating: Tensor


class Matches(NamedTuple):
    """The match vectors tᵘ and tⁱ, (B, D) each, and the ratings aligned to the user's and to the item's rows, (B,)
    each, in stars.
    """

    user: Tensor
    item: Tensor
    user_rating: Tensor
    item_rating: Tensor


class CoMatching(nn.Module):
    """Aligns the rows of the user's and of the item's reviews to each other, compares and pools them: Eq. 12–14.

    Beyond the paper: ``pooling`` may be the ``mean`` over a side's rows, where Eq. 14 takes the maximum. And ratings
    are aligned as texts are: a user's row, aligned to what the item's reviews say of the same subject, also receives
    how far these reviews rated the item above what the bias model expects of them (their *residuals*).

    The arithmetic is rearranged, exactly, to save passes over the (Nu, Ni) scores and the (N, D) matches, which cost
    more than the products where D is small:

    - One similarity S_u S_iᵀ, masked where either row is padding, serves both directions of Eq. 12.
    - tanh and adding b_M are monotone: the maximum comes first, then both for one row instead of N. (The mean needs
      the tanh of every row, and is one product with the row weights.)
    - [S−D; S∘D] W_M = (S−D) W₁ + (S∘D) W₂: nothing is concatenated.

    S W₁ − A (S′ W₁) in place of (S−D) W₁, with S W₁ cached, costs 4 N² D more and 4 N D² less for both sides
    together: it pays only where N < D, and there little (tests/benchmarks/scoring.py).

    The layer computes in the dtype of its own weights: ``layer.to(torch.bfloat16)`` where that is exact enough.

    Shape:
        Either side may have B = 1 and is then broadcast. Output: in the dtype of the states; zeros for a side without
        rows.
    """

    def __init__(self, dim: int, pooling: MatchPooling = "max") -> None:
        super().__init__()
        self.pooling = pooling
        self.kernel = nn.Linear(2 * dim, dim)  # W_M = [W₁; W₂], b_M

    def init_as_difference(self) -> None:
        """Initialise to the difference M = tanh(ε (D − S)), which a linear layer above can use at once.

        D − S compares what the two sides' reviews say of one subject. From random weights, training would have to find
        it among the noise of as many other directions. ε is small enough for tanh to be nearly linear.
        """
        dim = self.kernel.out_features
        with torch.no_grad():
            self.kernel.weight.zero_()
            self.kernel.weight[:, :dim] = -DIFFERENCE_SCALE * torch.eye(dim)
            self.kernel.bias.zero_()

    def forward(self, user: SideRows, item: SideRows) -> Matches:
        of_user, of_item = self.align(user, item)
        matches = self.pooled(of_user.compared, user.mask), self.pooled(of_item.compared, item.mask)
        return Matches(*(found.to(user.states.dtype) for found in (*matches, of_user.rating, of_item.rating)))

    def align(self, user: SideRows, item: SideRows) -> tuple[Alignment, Alignment]:
        """The user's rows aligned to the item's, and the item's to the user's, in the dtype of the layer."""
        dtype = self.kernel.weight.dtype
        user, item = user._replace(states=user.states.to(dtype)), item._replace(states=item.states.to(dtype))
        scores = masked_scores(user.states, user.mask, item.states, item.mask)  # (B, Nu, Ni)
        return self._aligned(scores, user, item), self._aligned(scores.mT, item, user)

    def _aligned(self, scores: Tensor, side: SideRows, other: SideRows) -> Alignment:
        states = side.states
        attention = scores.softmax(dim=-1)  # (B, N, N′)
        any_row = other.mask.any(dim=1)[:, None, None].to(states.dtype)  # 0 where the other side has none (law 7)
        aligned = attention @ other.states * any_row  # D = softmax(scores) S′, Eq. 12: (B, N, D)
        dim = states.shape[-1]
        difference_weight, product_weight = self.kernel.weight[:, :dim].mT, self.kernel.weight[:, dim:].mT  # W₁, W₂
        compared = (states - aligned) @ difference_weight + (states * aligned) @ product_weight  # (B, N, D)
        weights = row_weights(side.mask, states.dtype) @ attention * any_row  # of the other side's rows: (B, 1, N′)
        rating = weights @ other.residuals.to(states.dtype).unsqueeze(-1)  # (B, 1, 1)
        return Alignment(attention, compared, weights.squeeze(1), rating.flatten())

    def pooled(self, compared: Tensor, mask: Tensor) -> Tensor:
        """The match vector, Eq. 14: (B, N, D) → (B, D)."""
        if self.pooling == "mean":
            return (row_weights(mask, compared.dtype) @ torch.tanh(compared + self.kernel.bias)).squeeze(1)
        match = torch.tanh(masked_max(compared, mask) + self.kernel.bias)  # (B, D)
        return match.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)

    def row_shares(self, compared: Tensor, mask: Tensor) -> Tensor:
        """What each row contributes to the match vector, (B, N, D); the rows add up to it.

        A maximum is credited to one row alone, the first among equals.
        """
        if self.pooling == "mean":
            return row_weights(mask, compared.dtype).mT * torch.tanh(compared + self.kernel.bias)
        masked = compared.masked_fill(~mask.unsqueeze(-1), torch.finfo(compared.dtype).min)
        rows = torch.arange(compared.shape[1], device=compared.device)  # (N,)
        is_maximum = rows[None, :, None] == masked.argmax(dim=1)[:, None, :]  # (B, N, D)
        return torch.where(is_maximum, self.pooled(compared, mask)[:, None, :], 0.0)


def masked_scores(user_states: Tensor, user_mask: Tensor, item_states: Tensor, item_mask: Tensor) -> Tensor:
    """S_u S_iᵀ / √D, plus ``_MASKED`` for a padded row of either side: (B, Nu, D), (B, Ni, D) → (B, Nu, Ni)."""
    scores = user_states @ item_states.mT / math.sqrt(user_states.shape[-1])
    user_offset, item_offset = (torch.where(mask, 0.0, _MASKED).to(scores.dtype) for mask in (user_mask, item_mask))
    return scores + user_offset.unsqueeze(2) + item_offset.unsqueeze(1)


def row_weights(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Each row's weight in the mean over a side's real rows: (B, N) → (B, 1, N); all 0 if there are none."""
    return (mask.to(dtype) / mask.sum(dim=1, keepdim=True).clamp(min=1)).unsqueeze(1)
