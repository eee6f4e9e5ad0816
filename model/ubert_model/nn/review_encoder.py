"""Figure 2 and 3, box *Review Encoder*: BERT, Eq. 2–4 and 10, and the optional projection to ``state_dim``."""

from torch import Tensor, nn
from transformers import BertConfig, BertModel


class ReviewEncoder(nn.Module):
    """Token ids of reviews → their contextual states.

    ``encode`` gives S^L, the states of BERT's last layer; ``project`` takes them to ``state_dim`` (identity where
    the configuration has none). Everything downstream, the cache included, lives in the projected space; only
    the opinion-token head reads S^L, since its output is tied to the word embeddings.
    """

    def __init__(self, bert: BertModel, state_dim: int | None) -> None:
        super().__init__()
        self.bert = bert
        self.hidden_dim: int = bert.config.hidden_size
        self.dim = state_dim or self.hidden_dim
        self.projection: nn.Module = nn.Identity()
        if state_dim is not None:
            self.projection = nn.Linear(self.hidden_dim, state_dim)

    @classmethod
    def from_config(cls, bert_config: BertConfig, state_dim: int | None) -> "ReviewEncoder":
        """Random weights of the given architecture. A pooler would be dead weight: no equation reads it."""
        return cls(BertModel(bert_config, add_pooling_layer=False), state_dim)

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

    def project(self, states: Tensor) -> Tensor:
        """(..., d) → (..., D)."""
        return self.projection(states)  # type: ignore[no-any-return]

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        return self.project(self.encode(token_ids, token_mask))
