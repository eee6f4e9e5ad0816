"""Figure 2, the two pre-training tasks and their loss: Eq. 7–9."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reference.entity_encoder import eq11_representation, query
from reference.layers import Array, Rows, Weights, gelu, layer_norm, linear, part, softmax
from reference.review_encoder import eq10_review_states, projected_states


def eq07_token_probabilities(
    head: Weights, word_embeddings: Array, token_states: Array, user_embedding: Array
) -> Array:
    """Pr(w_t) = softmax(h_t W₃ + b₂) with h_t = LN(GELU(S_t W₁ + u W₂ + b₁)), Eq. 7.

    (M, d) states at the masked positions and u (D,) → (M, V). W₃ is E_Wᵀ, (d, V): tied, unlike in the paper.
    """
    mixed = linear(token_states, part(head, "token_projection"))
    mixed = mixed + linear(user_embedding, part(head, "user_projection"))
    hidden = layer_norm(gelu(mixed), part(head, "norm"))
    return softmax(hidden @ word_embeddings.T + head["output_bias"])


def eq08_opinion_rating(head: Weights, user_representation: Array) -> float:
    """r′ = û W_R + b_R, Eq. 8: (D,) → stars."""
    return float(linear(user_representation, part(head, "output"))[0])


@dataclass(frozen=True, kw_only=True)
class ReviewPrediction:
    """The predictions of both tasks for one review k.

    ``target_probabilities`` holds Pr(w_t) of the true token at each t of s^M_k; it may be empty.
    """

    target_probabilities: Array
    predicted_rating: float
    rating: float


def eq09_pretraining_loss(reviews: Sequence[ReviewPrediction], beta: float) -> float:
    """Σ_k −Σ_t log Pr(w_t) / |s^M_k| + β (r′_k − r_k)², Eq. 9, over all reviews.

    A review without an opinion word has no first term (0/0 in the paper). This is the paper's sum; training divides it
    by the number of reviews, so that the learning rate does not depend on the batch size.
    """
    loss = 0.0
    for review in reviews:
        if len(review.target_probabilities):
            loss += -np.log(review.target_probabilities).sum() / len(review.target_probabilities)
        loss += beta * (review.predicted_rating - review.rating) ** 2
    return float(loss)


def pretraining_forward(
    weights: Weights, heads: int, user: int, domain: int, token_ids: Rows, predicted_positions: Sequence[int]
) -> tuple[Array, float]:
    """Figure 2 for one review: Pr (M, V) at the masked positions, and r′. ``weights``: of a ``PretrainingModel``."""
    encoder = part(weights, "review_encoder")
    token_states = eq10_review_states(part(encoder, "bert"), token_ids, heads)
    user_embedding = weights["user_query.embedding.weight"][user]
    user_query = query(part(weights, "user_query.norm"), user_embedding, weights["domain_embedding.weight"][domain])
    user_representation = eq11_representation(
        part(weights, "user_encoder"), user_query, projected_states(encoder, token_states)
    )
    probabilities = eq07_token_probabilities(
        part(weights, "token_head"),
        encoder["bert.embeddings.word_embeddings.weight"],
        token_states[list(predicted_positions)],
        user_embedding,
    )
    return probabilities, eq08_opinion_rating(part(weights, "rating_head"), user_representation)
