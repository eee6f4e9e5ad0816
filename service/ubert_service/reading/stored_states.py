"""Decodes stored states."""

from collections.abc import Iterable, Mapping

import numpy as np

from ubert_model.errors import StateError
from ubert_model.states import REPAIR_REMEDY, FloatMatrix, StateCodec, StateStore


def read_states(store: StateStore, codec: StateCodec, review_ids: Iterable[str]) -> dict[str, FloatMatrix]:
    """The (rows, D) states of those reviews that the store has, in one round trip.

    Raises ``CorruptStateError``, ``ForeignStateError`` or ``StateError``, naming the review with the unusable state.
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
    """The error of the first review with an unusable state, with the name of that review."""
    for review_id, payload in payloads.items():
        try:
            codec.decode(payload)
        except StateError as cause:
            return type(cause)(f"state of review {review_id!r}: {cause}; {REPAIR_REMEDY}")
    return error
