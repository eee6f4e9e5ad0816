"""Figure 2 and 3, box *Review Encoder*: BERT, Eq. 2–4 and 10, and the optional projection to ``state_dim``."""

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from ubert_model.rows import pooled_rows


class ReviewEncoder(nn.Module):
    """Token ids of reviews → their contextual states.

    ``encode`` gives S^L, the states of BERT's last layer; ``project`` takes them to ``state_dim`` (identity where
    the configuration has none). Everything downstream, the cache included, lives in the projected space; only
    the opinion-token head reads S^L, since its output is tied to the word embeddings. ``pool`` averages
    ``tokens_a_row`` neighbouring tokens into one row of the cache.
    """

    def __init__(self, bert: BertModel, state_dim: int | None, tokens_a_row: int = 1) -> None:
        super().__init__()
        self.bert = bert
        self.tokens_a_row = tokens_a_row
        self.hidden_dim: int = bert.config.hidden_size
        self.dim = state_dim or self.hidden_dim
        self.projection: nn.Module = nn.Identity()
        if state_dim is not None:
            self.projection = nn.Linear(self.hidden_dim, state_dim)

    @classmethod
    def from_config(cls, bert_config: BertConfig, state_dim: int | None, tokens_a_row: int = 1) -> "ReviewEncoder":
        """Random weights of the given architecture, without BERT's pooler: no equation reads it."""
        return cls(BertModel(bert_config, add_pooling_layer=False), state_dim, tokens_a_row)

    @property
    def word_embeddings(self) -> Tensor:
        """E_W, (V, d)."""
        weight: Tensor = self.bert.embeddings.word_embeddings.weight
        return weight

    def encode(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """S^L, Eq. 10. Padding never attends and is never attended to.

        Shape:
            token_ids, token_mask: (R, L). Output: (R, L, d).
        """
        states: Tensor = self.bert(input_ids=token_ids, attention_mask=token_mask.long()).last_hidden_state
        return states

    def pool(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Pool reviews that lie end to end, each as ``pool_neighbours`` does: [CLS] alone, then means of neighbours.

        Shape:
            states: (T, d), the tokens of R reviews; lengths: (R,), each at least 1. Output: (T′, d).
        """
        if self.tokens_a_row == 1:
            return states
        rows = pooled_rows(lengths, self.tokens_a_row)  # (R,)
        first_row, first_token = rows.cumsum(0) - rows, lengths.cumsum(0) - lengths
        place = torch.arange(len(states), device=states.device) - first_token.repeat_interleave(lengths)  # (T,)
        row = first_row.repeat_interleave(lengths) + (place - 1 + self.tokens_a_row) // self.tokens_a_row
        total = states.new_zeros((int(rows.sum()), states.shape[1])).index_add(0, row, states)
        return total / torch.bincount(row, minlength=len(total)).unsqueeze(1)

    def project(self, states: Tensor) -> Tensor:
        """(..., d) → (..., D)."""
        return self.projection(states)  # type: ignore[no-any-return]

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        return self.project(self.encode(token_ids, token_mask))
