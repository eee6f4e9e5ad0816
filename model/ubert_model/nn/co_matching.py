"""Figure 3, box *Review Co-Matching Layer*."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ubert_model.config import MatchPooling
from ubert_model.nn.attention import masked_max

_HIDDEN = -1e30
"""Added to the score of a padded row. exp(−1e30 − max) is exactly 0, and twice it is still a float32 or bfloat16."""


PLAIN_START = 0.3
"""ε of :meth:`CoMatching.start_plain`."""


class Matches(NamedTuple):
    """What co-matching makes of two sides: the match vectors tᵘ and tⁱ, (B, D) each, and the ratings that were aligned
    to the user's rows and to the item's, (B,) each, in stars.
    """

    user: Tensor
    item: Tensor
    user_rating: Tensor
    item_rating: Tensor


class CoMatching(nn.Module):
    """The rows of the user's and of the item's reviews, aligned to each other, compared and pooled: Eq. 12–14.

    Beyond the paper: ``pooling`` may be the ``mean`` over a side's rows, where Eq. 14 takes the maximum. And ratings
    are aligned as the texts are: where a user's row is aligned to what an item's reviews say of the same subject, it
    is told as well how these reviews rated the item, above what the bias model expects of them (their *residuals*).

    What is rearranged is exact, and saves passes over the (Nu, Ni) scores and the (N, D) matches, which cost more
    than the products where D is small:

    - One similarity S_u S_iᵀ, hidden where either row is padding, serves both directions of Eq. 12.
    - tanh is monotone, and adding b_M is too: the maximum comes first, then both for one row instead of N. (A mean has
      to take the tanh of every row, and is one product with the weights of the rows.)
    - [S−D; S∘D] W_M = (S−D) W₁ + (S∘D) W₂: nothing is concatenated.

    S W₁ − A (S′ W₁) in place of (S−D) W₁, with S W₁ cached, costs 4 N² D more and 4 N D² less for both sides
    together: it pays only where N < D, and there little (tests/benchmarks/scoring.py).

    The layer computes in the type of its own weights: ``layer.to(torch.bfloat16)`` where that is exact enough.

    Shape:
        user_states: (B, Nu, D), user_residuals and user_mask: (B, Nu); of the item: (B, Ni, D) and (B, Ni).
        Either side may have B = 1 and is then shared. Output: in the type of the states; zeros for a side without
        rows.
    """

    def __init__(self, dim: int, pooling: MatchPooling = "max") -> None:
        super().__init__()
        self.pooling = pooling
        self.kernel = nn.Linear(2 * dim, dim)  # W_M = [W₁; W₂], b_M

    def start_plain(self) -> None:
        """Start as the plain comparison M = tanh(ε (D − S)), which a linear layer above can already make use of.

        What a user's reviews say of a subject, against what the item's say of the same: from random weights that has
        to be found among the noise of as many other directions. ε is small enough for tanh to be nearly linear.
        """
        dim = self.kernel.out_features
        with torch.no_grad():
            self.kernel.weight.zero_()
            self.kernel.weight[:, :dim] = -PLAIN_START * torch.eye(dim)
            self.kernel.bias.zero_()

    def forward(
        self,
        user_states: Tensor,
        user_residuals: Tensor,
        user_mask: Tensor,
        item_states: Tensor,
        item_residuals: Tensor,
        item_mask: Tensor,
    ) -> Matches:
        outside = user_states.dtype
        user_states, item_states = user_states.to(self.kernel.weight.dtype), item_states.to(self.kernel.weight.dtype)
        scores = masked_scores(user_states, user_mask, item_states, item_mask)  # (B, Nu, Ni)
        of_user, of_item = (user_states, user_residuals, user_mask), (item_states, item_residuals, item_mask)
        user, user_rating = self._matched(scores, user_states, user_mask, *of_item)
        item, item_rating = self._matched(scores.mT, item_states, item_mask, *of_user)
        return Matches(
            user=user.to(outside),
            item=item.to(outside),
            user_rating=user_rating.to(outside),
            item_rating=item_rating.to(outside),
        )

    def _matched(
        self,
        scores: Tensor,
        states: Tensor,
        mask: Tensor,
        other_states: Tensor,
        other_residuals: Tensor,
        other_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """One side's match vector, (B, D), and the rating that is aligned to its rows, (B,)."""
        attention = scores.softmax(dim=-1)  # (B, N, N′)
        known = other_mask.any(dim=1)[:, None, None].to(states.dtype)  # 0 where the other side has no row (law 7)
        aligned = attention @ other_states * known  # D = softmax(scores) S′, Eq. 12: (B, N, D)
        given = row_weights(mask, states.dtype) @ attention  # what each of the other side's rows gives: (B, 1, N′)
        rating = given @ other_residuals.to(states.dtype).unsqueeze(-1) * known  # (B, 1, 1)
        return self.pooled(self.compared(states, aligned), mask), rating.flatten()

    def compared(self, states: Tensor, aligned: Tensor) -> Tensor:
        """[S−D; S∘D] W_M, Eq. 13 before b_M and tanh: (B, N, D) each."""
        dim = states.shape[-1]
        difference_weight, product_weight = self.kernel.weight[:, :dim].mT, self.kernel.weight[:, dim:].mT  # W₁, W₂
        return (states - aligned) @ difference_weight + (states * aligned) @ product_weight

    def pooled(self, compared: Tensor, mask: Tensor) -> Tensor:
        """The match vector, Eq. 14: (B, N, D) → (B, D)."""
        if self.pooling == "mean":
            return (row_weights(mask, compared.dtype) @ torch.tanh(compared + self.kernel.bias)).squeeze(1)
        match = torch.tanh(masked_max(compared, mask) + self.kernel.bias)  # (B, D)
        return match.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)

    def row_shares(self, compared: Tensor, mask: Tensor) -> Tensor:
        """What each row gives to the match vector, (B, N, D); they add up to it.

        A maximum comes from one row, the first among equals, which is given all of it.
        """
        if self.pooling == "mean":
            return row_weights(mask, compared.dtype).mT * torch.tanh(compared + self.kernel.bias)
        hidden = compared.masked_fill(~mask.unsqueeze(-1), torch.finfo(compared.dtype).min)
        rows = torch.arange(compared.shape[1], device=compared.device)  # (N,)
        gives = rows[None, :, None] == hidden.argmax(dim=1)[:, None, :]  # (B, N, D)
        return torch.where(gives, self.pooled(compared, mask)[:, None, :], 0.0)


def masked_scores(user_states: Tensor, user_mask: Tensor, item_states: Tensor, item_mask: Tensor) -> Tensor:
    """S_u S_iᵀ / √D, and at most ``_HIDDEN`` where either row is padding: (B, Nu, D), (B, Ni, D) → (B, Nu, Ni)."""
    scores = user_states @ item_states.mT / math.sqrt(user_states.shape[-1])
    user_hidden, item_hidden = (torch.where(mask, 0.0, _HIDDEN).to(scores.dtype) for mask in (user_mask, item_mask))
    return scores + user_hidden.unsqueeze(2) + item_hidden.unsqueeze(1)


def row_weights(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What each row gives to the mean over a side's real ones: (B, N) → (B, 1, N); all 0 without any."""
    return (mask.to(dtype) / mask.sum(dim=1, keepdim=True).clamp(min=1)).unsqueeze(1)
