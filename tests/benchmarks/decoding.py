"""How fast each codec decodes stored states, compared with fp32, and in batches compared with review by review.

    python tests/benchmarks/decoding.py [REVIEWS]

The states are random, in the shape of real ones (D = 64, 64 tokens a review): decoding time does not depend on values.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.codebooks import random_codebooks
from ubert_model.states import Namespace, StateCodec, codec_names, make_codec
from ubert_training.running.timing import seconds_of

STATE_DIM = 64
TOKENS = 64
ROUNDS = 7


def codec_of(name: str) -> StateCodec:
    namespace = Namespace(version="0" * 16, encoder_digest="", codec=name, state_dim=STATE_DIM, max_length=TOKENS)
    return make_codec(namespace, random_codebooks(STATE_DIM))


def median_s(call: Callable[[], object]) -> float:
    return statistics.median(seconds_of(call) for _ in range(ROUNDS))


def decode_singly(codec: StateCodec, payloads: Iterable[bytes]) -> None:
    for payload in payloads:
        codec.decode(payload)


def main(reviews: int) -> None:
    random = np.random.default_rng(0)
    states = random.standard_normal((reviews, TOKENS, STATE_DIM)).astype(np.float32)
    fp32_s = 0.0
    for name in codec_names():
        codec = codec_of(name)
        started = time.perf_counter()
        payloads = [codec.encode(matrix) for matrix in states]
        encoding = time.perf_counter() - started
        batched = median_s(partial(codec.decode_many, payloads))
        single = median_s(partial(decode_singly, codec, payloads))
        fp32_s = fp32_s or batched
        print(
            f"{name:11} {reviews / batched:9,.0f} reviews/s decoded: {fp32_s / batched:4.2f}× fp32, "
            f"{single / batched:4.2f}× one by one; {reviews / encoding:9,.0f} reviews/s encoded"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)
