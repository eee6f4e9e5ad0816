"""Equality of two implementations of one formula."""

import numpy as np
import torch
from numpy.typing import ArrayLike


def assert_equals_reference(actual: torch.Tensor, expected: ArrayLike, tolerance: float = 1e-5) -> None:
    """Same shape, no NaN, and single precision within ``tolerance`` (absolute plus relative) of double."""
    expected = np.asarray(expected)
    assert tuple(actual.shape) == expected.shape
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=tolerance, atol=tolerance, equal_nan=False)
