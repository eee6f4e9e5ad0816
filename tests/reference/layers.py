"""The building blocks that the equations use without numbering them."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Weights = Mapping[str, Array]

NORM_EPSILON = 1e-5
BERT_NORM_EPSILON = 1e-12

_erf = np.vectorize(math.erf, otypes=[np.float64])


def part(weights: Weights, prefix: str) -> dict[str, Array]:
    """The weights under a dotted prefix, by the rest of their names."""
    found = {name.removeprefix(f"{prefix}."): array for name, array in weights.items() if name.startswith(f"{prefix}.")}
    if not found:
        raise KeyError(f"no weights under {prefix!r}")
    return found


def linear(x: Array, weights: Weights) -> Array:
    """x W + b, or x W if there is no bias: (..., in) → (..., out)."""
    product = x @ weights["weight"].T
    return product + weights["bias"] if "bias" in weights else product


def layer_norm(x: Array, weights: Weights, epsilon: float = NORM_EPSILON) -> Array:
    """LN: zero mean and unit (biased) variance over the last dimension, then scale and shift."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    normalized: Array = centred / np.sqrt(variance + epsilon) * weights["weight"] + weights["bias"]
    return normalized


def gelu(x: Array) -> Array:
    """x Φ(x) with the exact normal distribution function Φ, not the tanh approximation."""
    activated: Array = x * (1.0 + _erf(x / math.sqrt(2.0))) / 2.0
    return activated


def softmax(x: Array) -> Array:
    """Softmax over the last dimension."""
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    probabilities: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities
