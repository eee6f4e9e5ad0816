"""Assembles the input arrays of the scorer graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ubert_model.rating.deviations import Residuals
from ubert_model.review import ReviewEntry
from ubert_model.states import FloatMatrix


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchSide:
    """One side of B entities: the states of each entity's reviews, (rows, D) each, and their ratings' residuals.

    Every entity has at least one review; N is the most rows of any entity. The arrays are computed on demand: a runtime
    that keeps states on its device never asks for ``states``.
    """

    reviews: Sequence[Sequence[FloatMatrix]]
    review_residuals: Sequence[Residuals]

    @classmethod
    def of(
        cls,
        histories: Sequence[Sequence[ReviewEntry]],
        residuals: Sequence[Residuals],
        states: Mapping[str, FloatMatrix],
    ) -> Self:
        """The side made of these histories, all of whose states must be in ``states``."""
        return cls(
            reviews=[[states[review.review_id] for review in history] for history in histories],
            review_residuals=residuals,
        )

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Rows of each entity, (B,)."""
        return np.array([sum(map(len, reviews)) for reviews in self.reviews], dtype=np.int64)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """(B, N), True = real."""
        return np.arange(self.lengths.max()) < self.lengths[:, None]

    @cached_property
    def states(self) -> NDArray[np.float32]:
        """The concatenated states of each entity, zero-padded: (B, N, D)."""
        dim = self.reviews[0][0].shape[1]
        if self._unpadded:
            return np.concatenate([*chain.from_iterable(self.reviews)]).reshape(*self.mask.shape, dim)
        padded = np.zeros((*self.mask.shape, dim), dtype=np.float32)
        for row, (reviews, length) in enumerate(zip(self.reviews, self.lengths.tolist(), strict=True)):
            np.concatenate(reviews, out=padded[row, :length])
        return padded

    @cached_property
    def residuals(self) -> NDArray[np.float32]:
        """For each row the residual of its review, zero-padded: (B, N)."""
        rows = [len(matrix) for reviews in self.reviews for matrix in reviews]
        of_rows = np.concatenate(self.review_residuals).repeat(rows)
        if self._unpadded:
            return of_rows.reshape(self.mask.shape)
        padded = np.zeros(self.mask.shape, dtype=np.float32)
        padded[self.mask] = of_rows
        return padded

    @property
    def _unpadded(self) -> bool:
        """Do all entities, such as a single one, have equally many rows? Then no second copy, to pad, is needed."""
        return self.mask.size == int(self.lengths.sum())


@dataclass(frozen=True, kw_only=True)
class ScorerBatch:
    """B pairs: embedding rows user (U,), item (B,) and domain (B,), int64, and the two sides.

    U is B, or 1 if all pairs share one user and user side.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    domain: NDArray[np.int64]
    user_side: BatchSide
    item_side: BatchSide

    @property
    def padded_tokens(self) -> int:
        """Rows of both sides together, padding included."""
        return self.user_side.mask.size + self.item_side.mask.size

    def graph_inputs(self) -> dict[str, NDArray[np.generic]]:
        """The inputs of ``scorer.onnx`` by name."""
        return {
            **self.inputs_without_states(),
            "user_states": self.user_side.states,
            "item_states": self.item_side.states,
        }

    def inputs_without_states(self) -> dict[str, NDArray[np.generic]]:
        """The graph inputs except the states, which make up nearly all of their bytes."""
        return {
            "user": self.user,
            "item": self.item,
            "domain": self.domain,
            "user_residuals": self.user_side.residuals,
            "user_mask": self.user_side.mask,
            "item_residuals": self.item_side.residuals,
            "item_mask": self.item_side.mask,
        }


def token_count(history: Sequence[ReviewEntry], states: Mapping[str, FloatMatrix]) -> int:
    """Rows N of all states of a history."""
    return sum(len(states[review.review_id]) for review in history)
