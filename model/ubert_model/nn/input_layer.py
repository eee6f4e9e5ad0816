"""Figure 2 and 3, box *Input Layer*: the identities. (Word, position and segment embeddings are BERT's own.)"""

import torch
from torch import Tensor, nn

from ubert_model.config import IdEmbeddings

UNKNOWN = 0
"""Row of an entity that training has not seen. It is trained by replacing known identities with it at random."""


class QueryEmbedding(nn.Module):
    """Entity and domain identifiers → domain-specific query, ũ = LN(u + o) or ĩ = LN(i + o).

    In training, an identity is replaced by :data:`UNKNOWN` with probability ``unknown_rate``, so that the row which
    serves strangers is trained. With ``id_embeddings="none"`` every entity has that row.

    Shape:
        entity: (B,) int64, domain_embedding: (B, D). Output: (B, D).
    """

    def __init__(self, entities: int, dim: int, id_embeddings: IdEmbeddings, unknown_rate: float = 0.1) -> None:
        super().__init__()
        self.uses_ids = id_embeddings != "none"
        self.unknown_rate = unknown_rate
        self.embedding = nn.Embedding(entities + 1 if self.uses_ids else 1, dim)
        self.norm = nn.LayerNorm(dim)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def embed(self, entity: Tensor) -> Tensor:
        """u or i itself, before the domain is added: (B,) → (B, D)."""
        if not self.uses_ids:
            entity = torch.full_like(entity, UNKNOWN)
        elif self.training:
            dropped = torch.rand(entity.shape, device=entity.device) < self.unknown_rate
            entity = entity.masked_fill(dropped, UNKNOWN)
        return self.embedding(entity)  # type: ignore[no-any-return]

    def query(self, embedded: Tensor, domain_embedding: Tensor) -> Tensor:
        """LN(u + o): two (B, D) → (B, D)."""
        return self.norm(embedded + domain_embedding)  # type: ignore[no-any-return]

    def forward(self, entity: Tensor, domain_embedding: Tensor) -> Tensor:
        return self.query(self.embed(entity), domain_embedding)


class DomainEmbedding(nn.Embedding):
    """o: (B,) → (B, D). Row :data:`UNKNOWN` stands for a domain that training has not seen."""

    def __init__(self, domains: int, dim: int) -> None:
        super().__init__(domains + 1, dim)
        nn.init.normal_(self.weight, std=0.02)
