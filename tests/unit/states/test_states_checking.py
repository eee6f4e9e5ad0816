"""How a check of a namespace recognises the reviews that it has seen: by their digests."""

import tracemalloc
from hashlib import blake2b

import numpy as np

from ubert_model.states.checking import are_known


def digest_of(review_id: str) -> int:
    return int.from_bytes(blake2b(review_id.encode(), digest_size=8).digest(), "little")


def test_a_review_is_known_by_its_digest() -> None:
    known = np.sort(np.array([digest_of(f"r{number}") for number in range(1000)], dtype=np.uint64))
    asked = ["r0", "unknown", "r999", "r1000"]
    assert are_known(known, asked) == [True, False, True, False]
    assert are_known(known[:0], asked) == [False] * 4
    assert are_known(known, []) == []


def test_looking_up_a_few_reviews_does_not_copy_all_known_digests() -> None:
    known = np.arange(1_000_000, dtype=np.uint64)
    tracemalloc.start()
    try:
        are_known(known, ["r0", "r1"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < known.nbytes / 100, "the known digests were copied"
