"""Product codes: a row of states as a few bytes, each naming one of 256 centroids that were trained for the bundle.

A row is turned into a basis in which its principal directions are dealt evenly onto M groups of W dimensions (so that
no group has all the variance to itself); each group is one byte, the number of the nearest of its 256 centroids.
At one bit a dimension W = 8, at two bits W = 4.
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
from ubert_model.states.review import FloatMatrix

CENTROIDS = 256
PRODUCT_BITS: Mapping[str, int] = {"pq2": 2, "pq1": 1}
"""Product codes by name, and their bits a dimension."""
_NUMBERS = {"pq2": 5, "pq1": 6}


def group_shape(state_dim: int, bits: int) -> tuple[int, int]:
    """Groups M, one byte each, and their width W; M · W ≥ D, filled up with zeros."""
    width = 8 // bits
    return -(-state_dim // width), width


@dataclass(frozen=True, kw_only=True, eq=False)
class Codebook:
    """What a product code was trained to.

    Shape:
        mean: (D,); basis: (D, M · W) with orthonormal rows; centroids: (M, 256, W). All float32.
    """

    mean: NDArray[np.float32]
    basis: NDArray[np.float32]
    centroids: NDArray[np.float32]

    @property
    def state_dim(self) -> int:
        return len(self.mean)


@dataclass(frozen=True, kw_only=True)
class Codebooks:
    """The codebooks of a bundle by the product code's name. They travel as one file, which names the state version."""

    of: Mapping[str, Codebook]

    def save(self, path: Path) -> None:
        tensors = {f"{name}.{part}": array for name, book in self.of.items() for part, array in vars(book).items()}
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Inverse of :meth:`save`. Raises ``BundleError`` for a file that is none."""
        try:
            tensors = load_file(path)
            parts = ("mean", "basis", "centroids")
            return cls(
                of={name: Codebook(**{part: tensors[f"{name}.{part}"] for part in parts}) for name in PRODUCT_BITS}
            )
        except (OSError, SafetensorError, KeyError) as error:
            raise BundleError(f"{path} holds no codebooks ({error}): export the bundle again") from error


class ProductCode:
    """M bytes a row. Its error is what the codebook was trained to, not bounded: measured by ``ubert bench states``."""

    largest = 1e15  # the squares of what it compares must stay finite
    by_row = True

    def __init__(self, name: str, codebook: Codebook) -> None:
        self.name = name
        self.number = _NUMBERS[name]
        self._bits = PRODUCT_BITS[name]
        self._codebook = codebook
        groups = len(codebook.centroids)
        self._table = codebook.centroids.reshape(groups * CENTROIDS, -1)  # (M · 256, W)
        self._first = (CENTROIDS * np.arange(groups))[None, :]  # each group's first row of the table
        self._half_squares = np.square(codebook.centroids).sum(axis=2) / 2  # (M, 256)
        self._back = np.ascontiguousarray(codebook.basis.T)  # (M · W, D)

    def size(self, rows: int, state_dim: int) -> int:
        return rows * group_shape(state_dim, self._bits)[0]

    def encode(self, values: FloatMatrix) -> bytes:
        turned = (values - self._codebook.mean) @ self._codebook.basis  # (L, M · W)
        codes = np.empty((len(values), len(self._half_squares)), dtype=np.uint8)  # (L, M)
        width = self._table.shape[1]
        for group, (centroids, half_squares) in enumerate(
            zip(self._codebook.centroids, self._half_squares, strict=True)
        ):
            part = turned[:, group * width : (group + 1) * width]  # (L, W)
            codes[:, group] = (part @ centroids.T - half_squares).argmax(axis=1)
        return codes.tobytes()

    def decode(self, encoded: memoryview, out: FloatMatrix) -> None:
        codes = np.frombuffer(encoded, dtype=np.uint8).reshape(len(out), len(self._half_squares))  # (L, M)
        turned = self._table.take(codes + self._first, axis=0).reshape(len(out), len(self._back))  # (L, M · W)
        np.matmul(turned, self._back, out=out)
        out += self._codebook.mean
