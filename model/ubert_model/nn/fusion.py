"""Fuse(·, ·), Eq. 6: a query and a review summary become one representation."""

from torch import Tensor, nn


class FeedForward(nn.Module):
    """FFN(H) = GELU(H W₁ + b₁) W₂ + b₂, Eq. 3, with an inner width of 4 D.

    Shape:
        (..., D) → (..., D).
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 4 * dim)
        self.contract = nn.Linear(4 * dim, dim)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        contracted: Tensor = self.contract(self.activation(self.expand(hidden)))
        return self.dropout(contracted)  # type: ignore[no-any-return]


class Fusion(nn.Module):
    """Fuse(ũ, s) = LN(H + FFN(H)) with H = LN(ũ W + s), Eq. 6; ``projected_query`` is ũ W.

    Shape:
        projected_query, review_summary: (B, D). Output: (B, D).
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.inner_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, dropout)
        self.outer_norm = nn.LayerNorm(dim)

    def forward(self, projected_query: Tensor, review_summary: Tensor) -> Tensor:
        hidden = self.inner_norm(projected_query + review_summary)
        return self.outer_norm(hidden + self.feed_forward(hidden))  # type: ignore[no-any-return]
