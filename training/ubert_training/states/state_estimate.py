"""Estimate of the size of states before they are computed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ubert_model.rows import pooled_rows
from ubert_model.running.batches import batches
from ubert_model.states import StateCodec
from ubert_model.states.codec import stored_bytes
from ubert_model.tokenizer import TEXTS_PER_BATCH, ReviewTokenizer

REVIEWS_SAMPLED = 20_000
REDIS_BYTES_A_REVIEW = 340
"""Memory of a review in Redis (6.2, measured on 10,261 reviews) besides its state: a key, two list entries, tables."""
REDIS_BYTES_A_STATE_BYTE = 1.1
"""Its allocator has four size classes per doubling, so a value takes some 10% more than its length."""


@dataclass(frozen=True, kw_only=True)
class StateEstimate:
    """Number and size of the reviews to write. ``exact``: every review was tokenized, not a sample of them."""

    reviews: int
    tokens: int
    state_bytes: int
    redis_bytes: int
    exact: bool

    def __str__(self) -> str:
        about = "" if self.exact else "about "
        states = f"{about}{_megabytes(self.state_bytes)} of states"
        in_redis = f"about {_megabytes(self.redis_bytes)} in Redis with both lists"
        return f"{self.reviews:,} reviews to write, {about}{self.tokens:,} tokens: {states}, {in_redis}"


def redis_bytes(reviews: int, state_bytes: int) -> int:
    """Memory that Redis needs for ``reviews`` with ``state_bytes`` of states in total, without replicas."""
    return round(REDIS_BYTES_A_STATE_BYTE * state_bytes + REDIS_BYTES_A_REVIEW * reviews)


def estimate_states(
    texts: Sequence[str],
    rows: Sequence[int],
    tokenizer: ReviewTokenizer,
    codec: StateCodec,
    tokens_a_row: int,
) -> StateEstimate:
    """Estimate the size of the states of the reviews at ``rows``. If there are many, a random sample is tokenized."""
    count = len(rows)
    sampled = np.random.default_rng(0).permutation(count)[:REVIEWS_SAMPLED] if count > REVIEWS_SAMPLED else range(count)
    sample = [texts[rows[index]] for index in sampled]
    lengths = [len(ids) for batch in batches(sample, TEXTS_PER_BATCH) for ids in tokenizer.encode(batch)]
    bytes_by_length = {
        length: stored_bytes(codec.name, pooled_rows(length, tokens_a_row), codec.namespace.state_dim)
        for length in set(lengths)
    }
    scale = count / max(1, len(lengths))
    state_bytes = round(scale * sum(bytes_by_length[length] for length in lengths))
    return StateEstimate(
        reviews=count,
        tokens=round(scale * sum(lengths)),
        state_bytes=state_bytes,
        redis_bytes=redis_bytes(count, state_bytes),
        exact=count <= REVIEWS_SAMPLED,
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 10e9 else f"{size / 1e6:,.1f} MB"
