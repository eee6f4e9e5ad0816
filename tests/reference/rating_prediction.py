"""Figure 3, *Review Co-Matching Layer* and *Prediction Layer*: Eq. 12–15."""

from collections.abc import Sequence

import numpy as np

from reference.entity_encoder import eq11_representation, query
from reference.layers import Array, Weights, linear, part
from reference.review_encoder import eq01_attention


def eq12_align(states: Array, other_states: Array) -> Array:
    """Dᵘ = Attn(Ŝᵘ, Ŝⁱ, Ŝⁱ), and Dⁱ likewise, Eq. 12: (N, D), (N′, D) → (N, D)."""
    return eq01_attention(states, other_states, other_states)


def eq13_match(kernel: Weights, states: Array, aligned: Array) -> Array:
    """M = tanh([Ŝ − D; Ŝ ∘ D] W_M + b_M), Eq. 13: (N, D), (N, D) → (N, D). One W_M for both sides."""
    return np.tanh(linear(np.concatenate([states - aligned, states * aligned], axis=1), kernel))


def eq14_max_pool(matching: Array) -> Array:
    """t: the maximum of M over its rows, Eq. 14, (N, D) → (D,). Zero without rows."""
    return matching.max(axis=0) if len(matching) else np.zeros(matching.shape[1])


def mean_pool(matching: Array) -> Array:
    """Beyond the paper: the mean of M over its rows, (N, D) → (D,). Zero without rows."""
    return matching.mean(axis=0) if len(matching) else np.zeros(matching.shape[1])


POOLINGS = {"max": eq14_max_pool, "mean": mean_pool}


def co_matching(kernel: Weights, user_states: Array, item_states: Array, pooling: str = "max") -> tuple[Array, Array]:
    """(tᵘ, tⁱ), Eq. 12–14: (Nu, D), (Ni, D) → (D,) each."""
    pool = POOLINGS[pooling]
    user_matching = eq13_match(kernel, user_states, eq12_align(user_states, item_states))
    item_matching = eq13_match(kernel, item_states, eq12_align(item_states, user_states))
    return pool(user_matching), pool(item_matching)


def aligned_rating(states: Array, other_states: Array, other_residuals: Array) -> float:
    """Beyond the paper: the other side's residuals, aligned to each row by Eq. 12, then averaged over the rows.

    (N, D), (N′, D), (N′,) → stars; 0 if a side has no rows.
    """
    if not len(states) or not len(other_states):
        return 0.0
    return float(eq01_attention(states, other_states, other_residuals[:, None]).mean())


def prediction(
    output: Weights,
    user_representation: Array,
    user_match: Array,
    item_representation: Array,
    item_match: Array,
    *,
    aligned_ratings: Sequence[float] = (),
) -> float:
    """r′ = [û; tᵘ; î; tⁱ] W_f + b_f: four (D,) → stars. Beyond the paper, two aligned ratings may follow them."""
    joined = np.concatenate([user_representation, user_match, item_representation, item_match, aligned_ratings])
    return float(linear(joined, output)[0])


def eq15_mean_squared_error(predicted_ratings: Sequence[float], ratings: Sequence[float]) -> float:
    """(1 / |T_f|) Σ_k (r′_k − r_k)², Eq. 15."""
    return sum((a - b) ** 2 for a, b in zip(predicted_ratings, ratings, strict=True)) / len(ratings)


def concatenated_reviews(reviews: Sequence[tuple[Array, float]], dim: int) -> tuple[Array, Array]:
    """Ŝ = [Ŝ₁ | Ŝ₂ | …], the rows of all reviews, and the residual of each row's review.

    C times (states (L, D), residual) → (N, D), (N,).
    """
    states = np.concatenate([np.zeros((0, dim)), *(review for review, _ in reviews)])
    return states, np.concatenate([np.zeros(0), *(np.full(len(review), residual) for review, residual in reviews)])


def rating_forward(
    weights: Weights,
    user: int,
    item: int,
    domain: int,
    user_reviews: Sequence[tuple[Array, float]],
    item_reviews: Sequence[tuple[Array, float]],
    match_pooling: str = "max",
) -> float:
    """Figure 3 for one pair: embedding rows, and each side's reviews as (states (L, D), residual) → stars.

    ``weights``: of a ``RatingModel``.
    """
    head = part(weights, "head")
    domain_embedding = weights["domain_embedding.weight"][domain]
    user_query = query(part(weights, "user_query.norm"), weights["user_query.embedding.weight"][user], domain_embedding)
    item_query = query(part(weights, "item_query.norm"), weights["item_query.embedding.weight"][item], domain_embedding)
    user_states, user_residuals = concatenated_reviews(user_reviews, len(domain_embedding))
    item_states, item_residuals = concatenated_reviews(item_reviews, len(domain_embedding))
    user_match, item_match = co_matching(part(head, "co_matching.kernel"), user_states, item_states, match_pooling)
    output = part(head, "prediction_layer.output")
    reads_ratings = output["weight"].shape[1] > 4 * len(domain_embedding)
    aligned_ratings = [
        aligned_rating(user_states, item_states, item_residuals),
        aligned_rating(item_states, user_states, user_residuals),
    ]
    return prediction(
        output,
        eq11_representation(part(head, "user_encoder"), user_query, user_states),
        user_match,
        eq11_representation(part(head, "item_encoder"), item_query, item_states),
        item_match,
        aligned_ratings=aligned_ratings if reads_ratings else (),
    )
