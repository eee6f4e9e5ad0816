"""Figure 2 and 3, *User Encoder* and *Item Encoder*: Eq. 5, 6 and 11."""

import numpy as np

from reference.layers import Array, Weights, layer_norm, linear, part
from reference.review_encoder import eq01_attention, eq03_feed_forward


def query(norm: Weights, entity_embedding: Array, domain_embedding: Array) -> Array:
    """ũ = LN(u + o), and ĩ likewise: (D,), (D,) → (D,)."""
    return layer_norm(entity_embedding + domain_embedding, norm)


def eq05_review_summary(projection: Weights, entity_query: Array, review_states: Array) -> Array:
    """s_u = Attn(ũ W_u, S, S), Eq. 5: (D,), (N, D) → (D,)."""
    queries = linear(entity_query, projection)[np.newaxis]  # (1, D)
    return eq01_attention(queries, review_states, review_states).squeeze(axis=0)


def eq06_fuse(weights: Weights, projection: Weights, entity_query: Array, review_summary: Array) -> Array:
    """Fuse(ũ, s_u) = LN(H + FFN(H)) with H = LN(ũ W_u + s_u), Eq. 6: (D,), (D,) → (D,).

    W_u is the matrix of Eq. 5, as the paper's notation has it.
    """
    hidden = layer_norm(linear(entity_query, projection) + review_summary, part(weights, "inner_norm"))
    fed_forward = eq03_feed_forward(
        hidden, part(weights, "feed_forward.expand"), part(weights, "feed_forward.contract")
    )
    return layer_norm(hidden + fed_forward, part(weights, "outer_norm"))


def eq11_representation(weights: Weights, entity_query: Array, review_states: Array) -> Array:
    """û (or î) = Fuse(ũ, ŝ) with ŝ = Attn(ũ W, Ŝ, Ŝ), Eq. 11: (D,), (N, D) → (D,).

    Ŝ holds the rows of all reviews. For a single review this is Eq. 5 followed by Eq. 6.
    """
    projection = part(weights, "query_projection")
    summary = eq05_review_summary(projection, entity_query, review_states)
    return eq06_fuse(part(weights, "fusion"), projection, entity_query, summary)
