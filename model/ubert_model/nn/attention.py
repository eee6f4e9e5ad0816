"""Attention over rows of states, Eq. 1, and the two masked reductions that the paper takes for granted."""

import math

import torch
from torch import Tensor


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the real entries of the last dimension. An all-masked row gives zeros, not NaN (law 7).

    Shape:
        scores: (..., N); mask: broadcastable to it, True = real. Output: (..., N).
    """
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).masked_fill(~mask, 0.0)


def masked_max(values: Tensor, mask: Tensor) -> Tensor:
    """Maximum over the real rows; zeros if there are none (law 7).

    Shape:
        values: (B, N, D); mask: (B, N). Output: (B, D).
    """
    lowest = torch.finfo(values.dtype).min
    pooled = values.masked_fill(~mask.unsqueeze(-1), lowest).amax(dim=1)  # (B, D)
    return pooled.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


def attend(query: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor) -> Tensor:
    """Attn(Q, K, V) = softmax(Q Kᵀ / √d) V, Eq. 1.

    Shape:
        query: (B, Nq, D); keys, values: (B, N, D); key_mask: (B, N). Output: (B, Nq, D).
    """
    scores = query @ keys.mT / math.sqrt(query.shape[-1])  # (B, Nq, N)
    return masked_softmax(scores, key_mask.unsqueeze(1)) @ values
