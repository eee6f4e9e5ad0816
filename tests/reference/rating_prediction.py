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
    """t: the maximum of M over its rows, Eq. 14, (N, D) → (D,). Without rows it is zero."""
    return matching.max(axis=0) if len(matching) else np.zeros(matching.shape[1])


def mean_pool(matching: Array) -> Array:
    """Beyond the paper: the mean of M over its rows, (N, D) → (D,). Without rows it is zero."""
    return matching.mean(axis=0) if len(matching) else np.zeros(matching.shape[1])


POOLINGS = {"max": eq14_max_pool, "mean": mean_pool}


def co_matching(kernel: Weights, user_states: Array, item_states: Array, pooling: str = "max") -> tuple[Array, Array]:
    """(tᵘ, tⁱ), Eq. 12–14: (Nu, D), (Ni, D) → (D,) each."""
    pool = POOLINGS[pooling]
    user_matching = eq13_match(kernel, user_states, eq12_align(user_states, item_states))
    item_matching = eq13_match(kernel, item_states, eq12_align(item_states, user_states))
    return pool(user_matching), pool(item_matching)


def prediction(
    output: Weights, user_representation: Array, user_match: Array, item_representation: Array, item_match: Array
) -> float:
    """r′ = [û; tᵘ; î; tⁱ] W_f + b_f: four (D,) → stars."""
    joined = np.concatenate([user_representation, user_match, item_representation, item_match])
    return float(linear(joined, output)[0])


def eq15_mean_squared_error(predicted_ratings: Sequence[float], ratings: Sequence[float]) -> float:
    """(1 / |T_f|) Σ_k (r′_k − r_k)², Eq. 15."""
    return sum((a - b) ** 2 for a, b in zip(predicted_ratings, ratings, strict=True)) / len(ratings)


def rated_states(head: Weights, states: Array, offset: float) -> Array:
    """Beyond the paper: one review's states with its rating offset added along the learned direction, if any."""
    return states + offset * head["rating_direction"] if "rating_direction" in head else states


def concatenated_reviews(head: Weights, reviews: Sequence[tuple[Array, float]], dim: int) -> Array:
    """Ŝ = [Ŝ₁ | Ŝ₂ | …], the rows of all reviews: C times (states (L, D), rating offset) → (N, D)."""
    return np.concatenate([np.zeros((0, dim)), *(rated_states(head, states, offset) for states, offset in reviews)])


def rating_forward(
    weights: Weights,
    user: int,
    item: int,
    domain: int,
    user_reviews: Sequence[tuple[Array, float]],
    item_reviews: Sequence[tuple[Array, float]],
    match_pooling: str = "max",
) -> float:
    """Figure 3 for one pair: embedding rows, and each side's reviews as (states (L, D), rating offset) → stars.

    ``weights``: of a ``RatingModel``.
    """
    head = part(weights, "head")
    domain_embedding = weights["domain_embedding.weight"][domain]
    user_query = query(part(weights, "user_query.norm"), weights["user_query.embedding.weight"][user], domain_embedding)
    item_query = query(part(weights, "item_query.norm"), weights["item_query.embedding.weight"][item], domain_embedding)
    user_states = concatenated_reviews(head, user_reviews, len(domain_embedding))
    item_states = concatenated_reviews(head, item_reviews, len(domain_embedding))
    user_match, item_match = co_matching(part(head, "co_matching.kernel"), user_states, item_states, match_pooling)
    return prediction(
        part(head, "prediction_layer.output"),
        eq11_representation(part(head, "user_encoder"), user_query, user_states),
        user_match,
        eq11_representation(part(head, "item_encoder"), item_query, item_states),
        item_match,
    )
