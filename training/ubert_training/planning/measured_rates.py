"""Measured rates of one core of this machine with a bundle, the input of `ubert plan --rates`."""

import statistics
from collections.abc import Sequence
from functools import partial

import numpy as np

from ubert_model.bundle import SCORER_GRAPH, Bundle
from ubert_training.planning.plan import pair_flops
from ubert_training.running.timing import seconds_of
from ubert_training.states.review_encoders import OnnxEncoder, cpu_session
from ubert_training.states.token_batches import token_batches

ROUNDS = 5
PAIRS = 16


def encode_tokens_per_core(bundle: Bundle, texts: Sequence[str]) -> float:
    """Tokens per second that one thread encodes, as precompute does by default: the median over length buckets."""
    encoder = OnnxEncoder.of(bundle, threads=1)
    batches = [batch for batch in token_batches(texts, np.arange(len(texts)), bundle.tokenizer()) if batch.tokens]
    encoder.states(batches[0])  # warms up
    seconds = [seconds_of(partial(encoder.states, batch)) for batch in batches]
    return statistics.median(batch.tokens / taken for batch, taken in zip(batches, seconds, strict=True))


def score_flops_per_core(bundle: Bundle) -> float:
    """Operations per second of the scorer graph in one thread: one user, full sides, counted by ``pair_flops``."""
    config, dim = bundle.manifest.config, bundle.manifest.state_dim
    session = cpu_session(bundle.file(SCORER_GRAPH), threads=1)
    rng = np.random.default_rng(0)
    inputs: dict[str, np.ndarray] = {"domain": np.zeros(PAIRS, dtype=np.int64)}
    for side, entities in (("user", 1), ("item", PAIRS)):
        inputs[side] = np.zeros(entities, dtype=np.int64)
        inputs[f"{side}_states"] = rng.normal(size=(entities, config.max_rows, dim)).astype(np.float32)
        inputs[f"{side}_residuals"] = np.zeros((entities, config.max_rows), dtype=np.float32)
        inputs[f"{side}_mask"] = np.ones((entities, config.max_rows), dtype=np.bool_)
    session.run(["rating"], inputs)  # warms up
    taken = statistics.median(seconds_of(partial(session.run, ["rating"], inputs)) for _ in range(ROUNDS))
    return PAIRS * pair_flops(config.max_rows, config.max_rows, dim) / taken
