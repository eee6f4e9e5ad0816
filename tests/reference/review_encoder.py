"""Figure 2 and 3, *Input Layer* and *Review Encoder*: Eq. 1–4 and 10."""

import math

import numpy as np

from reference.layers import BERT_NORM_EPSILON, Array, Rows, Weights, gelu, layer_norm, linear, part, softmax


def token_embeddings(weights: Weights, token_ids: Rows) -> Array:
    """S⁰: word, position and segment embeddings, added and normalized; all tokens belong to segment 0.

    (L,) → (L, d). The normalization is BERT's; the paper does not mention it.
    """
    words = weights["word_embeddings.weight"][token_ids]
    positions = weights["position_embeddings.weight"][: len(token_ids)]
    segment = weights["token_type_embeddings.weight"][0]
    return layer_norm(words + positions + segment, part(weights, "LayerNorm"), BERT_NORM_EPSILON)


def eq01_attention(queries: Array, keys: Array, values: Array) -> Array:
    """Attn(Q, K, V) = softmax(Q Kᵀ / √d) V, Eq. 1: (Nq, d), (N, d), (N, d) → (Nq, d).

    d is the width of the rows given. Without keys there is nothing to attend to, and the result is zero.
    """
    if len(keys) == 0:
        return np.zeros((len(queries), values.shape[1]))
    return softmax(queries @ keys.T / math.sqrt(queries.shape[1])) @ values


def eq02_multi_head_self_attention(weights: Weights, states: Array, heads: int) -> Array:
    """MH(S) = [head₁; …; head_h] W_O with head_i = Attn(S W_Qi, S W_Ki, S W_Vi), Eq. 2: (L, d) → (L, d).

    The paper writes √d in Eq. 1 for every use. But a head's rows are d/h wide, and BERT's pre-trained weights require
    division by √(d/h). BERT also adds a bias to each of the four products.
    """
    query, key, value = (linear(states, part(weights, f"self.{name}")) for name in ("query", "key", "value"))
    head_outputs = [
        eq01_attention(head_query, head_key, head_value)
        for head_query, head_key, head_value in zip(
            *(np.split(projected, heads, axis=1) for projected in (query, key, value)), strict=True
        )
    ]
    return linear(np.concatenate(head_outputs, axis=1), part(weights, "output.dense"))


def eq03_feed_forward(hidden: Array, inner: Weights, outer: Weights) -> Array:
    """FFN(H) = GELU(H W₁ + b₁) W₂ + b₂, Eq. 3: (N, d) → (N, d), 4 d in between."""
    return linear(gelu(linear(hidden, inner)), outer)


def eq04_transformer_layer(weights: Weights, states: Array, heads: int) -> Array:
    """Trm(S) = LN(H + FFN(H)) with H = LN(S + MH(S)), Eq. 4: (L, d) → (L, d)."""
    attended = eq02_multi_head_self_attention(part(weights, "attention"), states, heads)
    hidden = layer_norm(states + attended, part(weights, "attention.output.LayerNorm"), BERT_NORM_EPSILON)
    fed_forward = eq03_feed_forward(hidden, part(weights, "intermediate.dense"), part(weights, "output.dense"))
    return layer_norm(hidden + fed_forward, part(weights, "output.LayerNorm"), BERT_NORM_EPSILON)


def eq10_review_states(weights: Weights, token_ids: Rows, heads: int) -> Array:
    """S^L = Trm_L(… Trm₁(S⁰)), Eq. 10, for one review: (L,) → (L, d). ``weights``: of ``ReviewEncoder.bert``."""
    states = token_embeddings(part(weights, "embeddings"), token_ids)
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
    for layer in range(layers):
        states = eq04_transformer_layer(part(weights, f"encoder.layer.{layer}"), states, heads)
    return states


def projected_states(weights: Weights, states: Array) -> Array:
    """Beyond the paper: states projected to ``state_dim``, if the encoder does that. ``weights``: of ``ReviewEncoder``.

    (L, d) → (L, D).
    """
    has_projection = any(name.startswith("projection.") for name in weights)
    return linear(states, part(weights, "projection")) if has_projection else states
