"""Product codes: a row of states as a few bytes, each naming one of 256 centroids that were trained for the bundle.

A row is rotated into a basis that deals its principal directions evenly onto M groups of W dimensions, so that no group
has all the variance. Each group becomes one byte: the number of the nearest of its 256 centroids. At one bit a
dimension W = 8, at two bits W = 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ubert_model.errors import BundleError
from ubert_model.states.pooling import FloatMatrix

CENTROIDS = 256
PRODUCT_BITS: Mapping[str, int] = {"pq2": 2, "pq1": 1}
"""Bits a dimension of each product code."""
_CODEC_NUMBERS = {"pq2": 5, "pq1": 6}
_PARTS = ("basis", "centroids")
_ROWS_AT_A_TIME = 2048
"""At D = 64 the intermediate result of decoding so many rows fits into a core's own cache."""


def group_shape(state_dim: int, bits: int) -> tuple[int, int]:
    """The number of groups M, one byte each, and their width W: M · W ≥ D, padded with zeros."""
    width = 8 // bits
    return -(-state_dim // width), width


@dataclass(frozen=True, kw_only=True, eq=False)
class Codebook:
    """The trained parameters of a product code.

    Shape:
        basis: (D, M · W) with orthonormal rows; centroids: (M, 256, W). All float32.
    """

    basis: NDArray[np.float32]
    centroids: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Codebooks:
    """The codebooks of a bundle by product code. They are stored in one file, whose digest is in the state version."""

    of: Mapping[str, Codebook]

    def save(self, path: Path) -> None:
        tensors = {f"{name}.{part}": array for name, book in self.of.items() for part, array in vars(book).items()}
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Inverse of :meth:`save`. Raises ``BundleError`` for any other file."""
        remedy = "fine-tune again with a new directory, and export the bundle again"
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{path} holds no codebooks ({error}): {remedy}") from error
        if set(tensors) != {f"{name}.{part}" for name in PRODUCT_BITS for part in _PARTS}:
            raise BundleError(f"{path} holds no codebooks, but {', '.join(sorted(tensors))}: {remedy}")
        return cls(of={name: Codebook(**{part: tensors[f"{name}.{part}"] for part in _PARTS}) for name in PRODUCT_BITS})


class ProductCode:
    """M bytes a row. Its error depends on the codebook and has no bound; ``ubert bench states`` measures it."""

    largest = 1e15  # the squared distances must stay finite
    by_row = True

    def __init__(self, name: str, codebook: Codebook) -> None:
        self.name = name
        self.number = _CODEC_NUMBERS[name]
        self._bits = PRODUCT_BITS[name]
        self._basis = codebook.basis
        self._inverse = np.ascontiguousarray(codebook.basis.T)  # (M · W, D)
        self._centroids = codebook.centroids  # (M, 256, W)
        groups, _, width = codebook.centroids.shape
        self._table = codebook.centroids.reshape(groups * CENTROIDS, width)
        self._first = CENTROIDS * np.arange(groups)  # each group's first row of the table
        # The centroid c nearest to x maximises x · c − c² / 2.
        half_squares = np.square(codebook.centroids).sum(axis=2, keepdims=True) / 2
        self._scorer = np.concatenate([codebook.centroids, -half_squares], axis=2).transpose(0, 2, 1).copy()

    def size(self, rows: int, state_dim: int) -> int:
        return rows * group_shape(state_dim, self._bits)[0]

    def encode(self, values: FloatMatrix) -> bytes:
        groups, _, width = self._centroids.shape
        rotated = np.ones((groups, len(values), width + 1), dtype=np.float32)
        rotated[:, :, :width] = (values @ self._basis).reshape(len(values), groups, width).transpose(1, 0, 2)
        codes = np.empty((len(values), groups), dtype=np.uint8)  # (L, M)
        for group in range(groups):
            codes[:, group] = (rotated[group] @ self._scorer[group]).argmax(axis=1)
        return codes.tobytes()

    def decode(self, encoded: memoryview, out: FloatMatrix) -> None:
        codes = np.frombuffer(encoded, dtype=np.uint8).reshape(len(out), len(self._first))  # (L, M)
        for start in range(0, len(out), _ROWS_AT_A_TIME):
            rows = slice(start, start + _ROWS_AT_A_TIME)
            rotated = self._table.take(codes[rows] + self._first, axis=0)  # (L, M, W)
            np.matmul(rotated.reshape(len(rotated), -1), self._inverse, out=out[rows])
