"""Figures 2 and 3, boxes *User Encoder* and *Item Encoder*: one structure, as in the paper."""

from torch import Tensor, nn

from ubert_model.nn.attention import attend
from ubert_model.nn.fusion import Fusion


class EntityEncoder(nn.Module):
    """Query and review states → representation.

    The user's: û = Fuse(ũ, s) with s = Attn(ũ W, S, S), over one review in pre-training (Eq. 5 and 6), over all in
    Eq. 11. The item's: î = Fuse(ĩ, ŝ) with ŝ = Attn(ĩ W, Ŝⁱ, Ŝⁱ), Eq. 11, with weights of its own.

    W is one parameter, used twice: it projects the attention query (Eq. 5) and the query that is fused (Eq. 6).

    Shape:
        query: (B, D); review_states: (B, N, D); review_mask: (B, N). Output: (B, D).
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.query_projection = nn.Linear(dim, dim, bias=False)  # W, Eq. 5
        self.fusion = Fusion(dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, review_states: Tensor, review_mask: Tensor) -> Tensor:
        projected = self.query_projection(query)  # (B, D)
        summary = attend(projected.unsqueeze(1), review_states, review_states, review_mask).squeeze(1)  # (B, D)
        return self.fusion(projected, self.dropout(summary))  # type: ignore[no-any-return]
