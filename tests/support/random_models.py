"""Small models with random weights, and ragged review sides padded with garbage, for every suite that needs them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import BertConfig

from ubert_model.config import ModelConfig, preset
from ubert_model.nn.pretraining_model import PretrainingModel
from ubert_model.nn.rating_model import RatingModel
from ubert_model.nn.review_encoder import ReviewEncoder

VOCABULARY = 60
HEADS = 4
HIDDEN = 24
MAX_POSITIONS = 32
USERS, ITEMS, DOMAINS = 5, 7, 2
MEAN_RATING = 4.2
OTHER_OPTIONS: dict[str, dict[str, Any]] = {
    "mean over rows": {"state_dim": 16, "history_ratings": True, "match_pooling": "mean"},
    "no option": {"state_dim": None, "history_ratings": False, "id_embeddings": "none"},
}
"""Options of ``rating_model`` beside those of the tiny bundle, by the name of their case."""
GARBAGE = 1e6
"""The content of padded rows: large, so that any use of it shows; finite, as memory that once held a state would be."""


ModuleT = TypeVar("ModuleT", bound=nn.Module)


def randomized(module: ModuleT, seed: int = 0, std: float = 0.3) -> ModuleT:
    """The module in evaluation mode, with noise added to every parameter.

    Initial zeros and ones (biases, normalizations) would hide a missing term.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=std)
    return module.eval()


def weights_of(module: nn.Module) -> dict[str, NDArray[np.float64]]:
    """State dictionary as plain arrays, in double precision."""
    return {name: tensor.numpy().astype(np.float64) for name, tensor in module.state_dict().items()}


def bert_config(layers: int = 2) -> BertConfig:
    """The configuration of a BERT that is real in all but its size."""
    return BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        intermediate_size=4 * HIDDEN,
        max_position_embeddings=MAX_POSITIONS,
    )


def review_encoder(state_dim: int | None) -> ReviewEncoder:
    return randomized(ReviewEncoder.from_config(bert_config(), state_dim))


def tiny_config(**options: Any) -> ModelConfig:
    """The preset ``tiny`` with some fields replaced; unlike ``with_options`` it can set one to None."""
    return ModelConfig.from_json({**preset("tiny").to_json(), **options})


def rating_model(*, seed: int = 0, **options: Any) -> RatingModel:
    config = tiny_config(**options)
    encoder = ReviewEncoder.from_config(bert_config(), config.state_dim)
    model = RatingModel(encoder, config, users=USERS, items=ITEMS, domains=DOMAINS, mean_rating=MEAN_RATING)
    return randomized(model, seed)


def pretraining_model(**options: Any) -> PretrainingModel:
    config = tiny_config(**options)
    encoder = ReviewEncoder.from_config(bert_config(), config.state_dim)
    model = PretrainingModel(encoder, config, users=USERS, domains=DOMAINS, mean_rating=MEAN_RATING)
    return randomized(model)


def random_rows(rows: int, dim: int, seed: int = 3) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a batch: each entity's reviews, and the padded tensors that a model reads.

    ``reviews[b]`` lists (states (L, D), residual of the rating); the real rows of ``states[b]`` are theirs, in order.
    """

    reviews: list[list[tuple[NDArray[np.float64], float]]]
    states: Tensor  # (B, N, D)
    residuals: Tensor  # (B, N)
    mask: Tensor  # (B, N)

    def real_states(self, index: int) -> NDArray[np.float64]:
        """All real rows of one entity, (N_b, D)."""
        return self.states[index][self.mask[index]].double().numpy()

    def real_residuals(self, index: int) -> NDArray[np.float64]:
        """The residual of each real row's review, (N_b,)."""
        return self.residuals[index][self.mask[index]].double().numpy()


def random_side(lengths: Sequence[Sequence[int]], dim: int, seed: int, spare_rows: int = 3) -> Side:
    """A side whose entity b has reviews of ``lengths[b]`` tokens; an empty list means no review.

    Padding is garbage before, between and after the real rows, so that no position is privileged.
    """
    random = np.random.default_rng(seed)
    reviews = [[(random.normal(size=(length, dim)), random.uniform(-1, 1)) for length in each] for each in lengths]
    rows = max(1, max(sum(each) for each in lengths) + spare_rows)  # no tensor has a side without rows
    states = np.full((len(lengths), rows, dim), GARBAGE)
    residuals = np.full((len(lengths), rows), GARBAGE)
    mask = np.zeros((len(lengths), rows), dtype=bool)
    for index, each in enumerate(reviews):
        real = np.sort(random.choice(rows, size=sum(lengths[index]), replace=False))
        mask[index, real] = True
        if each:
            states[index, real] = np.concatenate([review for review, _ in each])
            residuals[index, real] = np.repeat([residual for _, residual in each], lengths[index])
    return Side(
        reviews=reviews,
        states=torch.from_numpy(states).float(),
        residuals=torch.from_numpy(residuals).float(),
        mask=torch.from_numpy(mask),
    )
