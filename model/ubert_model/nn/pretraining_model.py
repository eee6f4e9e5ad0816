"""Figure 2: the pre-training model."""

from typing import NamedTuple

from torch import Tensor, nn

from ubert_model.config import ModelConfig
from ubert_model.nn.entity_encoder import EntityEncoder
from ubert_model.nn.input_layer import DomainEmbedding, QueryEmbedding
from ubert_model.nn.pretraining_heads import OpinionRatingHead, OpinionTokenHead
from ubert_model.nn.review_encoder import ReviewEncoder


class PretrainingOutput(NamedTuple):
    """``token_logits`` (M, V) at the masked positions, in row-major order; ``rating`` (B,) in stars."""

    token_logits: Tensor
    rating: Tensor


class PretrainingModel(nn.Module):
    """One review and its user in; the masked opinion tokens and the rating out, Eq. 5–8."""

    def __init__(
        self,
        review_encoder: ReviewEncoder,
        config: ModelConfig,
        *,
        users: int,
        domains: int,
        mean_rating: float,
    ) -> None:
        super().__init__()
        dim = review_encoder.dim
        self.review_encoder = review_encoder
        self.user_query = QueryEmbedding(users, dim, config.id_embeddings)
        self.domain_embedding = DomainEmbedding(domains, dim)
        self.user_encoder = EntityEncoder(dim, config.dropout)
        vocabulary = review_encoder.word_embeddings.shape[0]
        self.token_head = OpinionTokenHead(review_encoder.hidden_dim, dim, vocabulary)
        self.rating_head = OpinionRatingHead(dim, mean_rating)

    def forward(
        self, user: Tensor, domain: Tensor, token_ids: Tensor, token_mask: Tensor, predicted_mask: Tensor
    ) -> PretrainingOutput:
        """Both tasks over one forward pass of the encoder.

        Shape:
            user, domain: (B,); token_ids (opinion words already masked), token_mask: (B, L);
            predicted_mask: (B, L), True at the M positions to reconstruct.
        """
        token_states = self.review_encoder.encode(token_ids, token_mask)  # S^L (B, L, d)
        review_states = self.review_encoder.project(token_states)  # (B, L, D)
        user_embedding = self.user_query.embed(user)  # u (B, D)
        user_query = self.user_query.query(user_embedding, self.domain_embedding(domain))  # ũ (B, D)
        user_representation = self.user_encoder(user_query, review_states, token_mask)  # û (B, D)
        masked_states = token_states[predicted_mask]  # (M, d)
        masked_users = user_embedding.unsqueeze(1).expand(-1, token_ids.shape[1], -1)[predicted_mask]  # (M, D)
        token_logits = self.token_head(masked_states, masked_users, self.review_encoder.word_embeddings)
        return PretrainingOutput(token_logits, self.rating_head(user_representation))
