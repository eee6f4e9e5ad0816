"""Figure 3 above the review encoder: identities and review states in, network output out. Needs torch only."""

from torch import Tensor, nn

from ubert_model.config import ModelConfig
from ubert_model.nn.co_matching import CoMatching, Matches, SideRows
from ubert_model.nn.entity_encoder import EntityEncoder
from ubert_model.nn.input_layer import DomainEmbedding, QueryEmbedding
from ubert_model.nn.prediction_layer import PredictionLayer


class RatingHead(nn.Module):
    """Everything above queries and review states: user encoder, item encoder and co-matching (Eq. 11–14), prediction
    layer.
    """

    def __init__(self, dim: int, config: ModelConfig, initial_output: float) -> None:
        super().__init__()
        self.user_encoder = EntityEncoder(dim, config.dropout)
        self.item_encoder = EntityEncoder(dim, config.dropout)
        self.co_matching = CoMatching(dim, config.match_pooling)
        self.prediction_layer = PredictionLayer(dim, initial_output, config.dropout, ratings=config.history_ratings)

    def forward(self, user_query: Tensor, user: SideRows, item_query: Tensor, item: SideRows) -> Tensor:
        """Network output in stars: the rating r′, or what it adds to the bias model (``rating_base``).

        Shape:
            queries ũ, ĩ: (B, D). Output: (B,).
            The user side may have B = 1 and is then broadcast to all B items (``/rank``).
        """
        return self.prediction_layer(*self.represent(user_query, user, item_query, item))  # type: ignore[no-any-return]

    def represent(
        self, user_query: Tensor, user: SideRows, item_query: Tensor, item: SideRows
    ) -> tuple[Tensor, Tensor, Matches]:
        """What the prediction layer reads: û and î, (B, D) each, and the matches."""
        user_representation = self.user_encoder(user_query, user.states, user.mask)
        item_representation = self.item_encoder(item_query, item.states, item.mask)
        matches = self.co_matching(user, item)
        return user_representation.expand_as(item_representation), item_representation, matches


class PairScorer(nn.Module):
    """Identities and review states in, network output out: what a prediction computes from cached states.

    ``dim`` is D of the states; ``users``, ``items``, ``domains`` count known ids.
    """

    def __init__(
        self,
        dim: int,
        config: ModelConfig,
        *,
        users: int,
        items: int,
        domains: int,
        mean_rating: float,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.config = config
        self.user_query = QueryEmbedding(users, dim, config.id_embeddings)
        self.item_query = QueryEmbedding(items, dim, config.id_embeddings)
        self.domain_embedding = DomainEmbedding(domains, dim)
        initial_output = 0.0 if config.above_bias else mean_rating
        self.head = RatingHead(dim, config, initial_output)

    def forward(
        self,
        user: Tensor,
        item: Tensor,
        domain: Tensor,
        user_states: Tensor,
        user_residuals: Tensor,
        user_mask: Tensor,
        item_states: Tensor,
        item_residuals: Tensor,
        item_mask: Tensor,
    ) -> Tensor:
        """Network output in stars (see :class:`RatingHead`).

        Shape:
            user, item, domain: (B,) int64; states: (B, N, D), already projected; residuals, masks: (B, N), N ≥ 1.
            The user and its side may have B = 1 and are then broadcast to all items. Output: (B,).
        """
        user_query, item_query = self.queries(user, item, domain)
        return self.head(  # type: ignore[no-any-return]
            user_query,
            SideRows(user_states, user_residuals, user_mask),
            item_query,
            SideRows(item_states, item_residuals, item_mask),
        )

    def queries(self, user: Tensor, item: Tensor, domain: Tensor) -> tuple[Tensor, Tensor]:
        """ũ and ĩ: three (B,) → (B, D) each."""
        domain_embedding = self.domain_embedding(domain)  # o (B, D)
        return self.user_query(user, domain_embedding), self.item_query(item, domain_embedding)
