"""Loss functions, Eq. 9 and Eq. 15."""

import torch
from torch import Tensor
from torch.nn import functional as F


def pretraining_loss(
    *,
    token_logits: Tensor,
    token_targets: Tensor,
    token_reviews: Tensor,
    predicted: Tensor,
    ratings: Tensor,
    beta: float,
) -> Tensor:
    """Eq. 9 of each review. A review without masked tokens has no first term.

    Shape:
        token_logits: (M, V); token_targets, token_reviews (row of the review in the batch): (M,);
        predicted, ratings: (B,), in stars. Output: (B,).
    """
    losses = F.cross_entropy(token_logits.float(), token_targets, reduction="none")  # (M,)
    reviews = ratings.shape[0]
    counts = torch.bincount(token_reviews, minlength=reviews).clamp(min=1)  # (B,)
    per_review = torch.zeros_like(ratings).index_add(0, token_reviews, losses) / counts  # (B,)
    rating_error = (predicted.float() - ratings).square()
    return per_review + beta * rating_error


def rating_loss(predicted: Tensor, ratings: Tensor) -> Tensor:
    """Eq. 15: mean squared error in stars²; both (B,)."""
    return F.mse_loss(predicted.float(), ratings)
