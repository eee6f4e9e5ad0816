"""Figure 2, the two pre-training tasks."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class OpinionTokenHead(nn.Module):
    """Task 1, masked opinion token prediction, Eq. 7: the logit of each word piece at a masked position.

    W₃ is tied to the word embeddings E_W: the embedded backbones come without an MLM head, and |V| × d free
    weights would not be learned from a small corpus.

    Shape:
        token_states: (M, d), the states at the M masked positions; user_embedding: (M, D);
        word_embeddings: (V, d). Output: (M, V).
    """

    def __init__(self, hidden_dim: int, user_dim: int, vocabulary: int) -> None:
        super().__init__()
        self.token_projection = nn.Linear(hidden_dim, hidden_dim)  # W₁, b₁
        self.user_projection = nn.Linear(user_dim, hidden_dim, bias=False)  # W₂
        self.norm = nn.LayerNorm(hidden_dim)
        self.output_bias = nn.Parameter(torch.zeros(vocabulary))  # b₂

    def forward(self, token_states: Tensor, user_embedding: Tensor, word_embeddings: Tensor) -> Tensor:
        mixed = self.token_projection(token_states) + self.user_projection(user_embedding)
        return F.linear(self.norm(F.gelu(mixed)), word_embeddings, self.output_bias)


class OpinionRatingHead(nn.Module):
    """Task 2, opinion rating prediction, Eq. 8: r′ = û W + b.

    Shape:
        user_representation: (B, D). Output: (B,), in stars.
    """

    def __init__(self, dim: int, mean_rating: float) -> None:
        super().__init__()
        self.output = nn.Linear(dim, 1)
        nn.init.constant_(self.output.bias, mean_rating)

    def forward(self, user_representation: Tensor) -> Tensor:
        return self.output(user_representation).squeeze(-1)  # type: ignore[no-any-return]
