"""Figure 3: the whole rating prediction model."""

from ubert_model.config import ModelConfig
from ubert_model.nn.pair_scorer import PairScorer
from ubert_model.nn.review_encoder import ReviewEncoder


class RatingModel(PairScorer):
    """The pair scorer together with the review encoder whose states it reads; ``forward`` starts from the states."""

    def __init__(
        self,
        review_encoder: ReviewEncoder,
        config: ModelConfig,
        *,
        users: int,
        items: int,
        domains: int,
        mean_rating: float,
    ) -> None:
        super().__init__(review_encoder.dim, config, users=users, items=items, domains=domains, mean_rating=mean_rating)
        self.review_encoder = review_encoder
