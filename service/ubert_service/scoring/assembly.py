"""From stored bytes to the padded arrays that the scorer graph reads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ubert_model.config import RatingScale
from ubert_model.errors import StateError
from ubert_model.rating import rating_offsets
from ubert_model.states import FloatMatrix, ReviewEntry, StateCodec, StateStore


def read_states(store: StateStore, codec: StateCodec, review_ids: Iterable[str]) -> dict[str, FloatMatrix]:
    """The states, (rows, D) each, of those reviews that the store has, in one round trip.

    Raises ``CorruptStateError``, ``ForeignStateError`` or ``StateError`` naming the review whose state cannot be
    used.
    """
    distinct = list(dict.fromkeys(review_ids))
    payloads = store.states(codec.namespace.version, distinct) if distinct else []
    found = {name: payload for name, payload in zip(distinct, payloads, strict=True) if payload is not None}
    try:
        states, offsets = codec.decode_many(list(found.values()))
    except StateError as error:
        raise _named(error, found, codec) from error
    return dict(zip(found, np.split(states, offsets[1:-1]), strict=True)) if found else {}


def _named(error: StateError, payloads: Mapping[str, bytes], codec: StateCodec) -> StateError:
    """The error of the first review whose state cannot be used, with its name."""
    for review_id, payload in payloads.items():
        try:
            codec.decode(payload)
        except StateError as cause:
            return type(cause)(f"state of review {review_id!r}: {cause}; run `ubert precompute` again")
    return error


@dataclass(frozen=True, kw_only=True)
class PaddedSide:
    """One side of B entities: states (B, N, D), offsets (B, N) and mask (B, N), True = real."""

    states: NDArray[np.float32]
    offsets: NDArray[np.float32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ScorerBatch:
    """B pairs: embedding rows user (U,), item (B,) and domain (B,), int64, and the two sides.

    U is B, or 1 for a user and its side that all items share.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    domain: NDArray[np.int64]
    user_side: PaddedSide
    item_side: PaddedSide

    @property
    def padded_tokens(self) -> int:
        """Rows of both sides together, padding included."""
        return self.user_side.mask.size + self.item_side.mask.size

    def graph_inputs(self) -> dict[str, NDArray[np.generic]]:
        """The inputs of ``scorer.onnx`` by name."""
        return {
            "user": self.user,
            "item": self.item,
            "domain": self.domain,
            "user_states": self.user_side.states,
            "user_offsets": self.user_side.offsets,
            "user_mask": self.user_side.mask,
            "item_states": self.item_side.states,
            "item_offsets": self.item_side.offsets,
            "item_mask": self.item_side.mask,
        }


def pad_side(
    histories: Sequence[Sequence[ReviewEntry]], states: Mapping[str, FloatMatrix], scale: RatingScale
) -> PaddedSide:
    """Each history's states one after the other, each token with its review's rating; every history has a token."""
    lengths = [token_count(history, states) for history in histories]
    width = max(lengths)
    dim = states[histories[0][0].review_id].shape[1]
    padded = np.zeros((len(histories), width, dim), dtype=np.float32)  # (B, N, D)
    offsets = np.zeros((len(histories), width), dtype=np.float32)  # (B, N)
    for row, (history, length) in enumerate(zip(histories, lengths, strict=True)):
        matrices = [states[review.review_id] for review in history]
        np.concatenate(matrices, out=padded[row, :length])
        review_offsets = rating_offsets([review.rating for review in history], scale)
        offsets[row, :length] = np.repeat(review_offsets, [len(matrix) for matrix in matrices])
    mask = np.arange(width) < np.asarray(lengths)[:, None]  # (B, N)
    return PaddedSide(states=padded, offsets=offsets, mask=mask)


def token_count(history: Sequence[ReviewEntry], states: Mapping[str, FloatMatrix]) -> int:
    """Rows N that a history's states have together."""
    return sum(len(states[review.review_id]) for review in history)
