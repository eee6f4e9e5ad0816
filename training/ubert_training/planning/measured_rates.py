"""What one core of this machine does with a bundle: the rates that `ubert plan` is fed."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ubert_model.bundle import SCORER_GRAPH, Bundle
from ubert_training.planning.plan import pair_flops
from ubert_training.states.review_encoders import OnnxEncoder, cpu_session
from ubert_training.states.token_batches import token_batches

ROUNDS = 5
PAIRS = 16


def encode_tokens_per_core(bundle: Bundle, texts: Sequence[str]) -> float:
    """Tokens a second that one thread encodes as precompute does by default: the median over batches of like length."""
    encoder = OnnxEncoder.of(bundle, threads=1)
    batches = [batch for batch in token_batches(texts, np.arange(len(texts)), bundle.tokenizer()) if batch.tokens]
    encoder.states(batches[0])  # warms up
    seconds = [_seconds(partial(encoder.states, batch)) for batch in batches]
    return statistics.median(batch.tokens / taken for batch, taken in zip(batches, seconds, strict=True))


def score_flops_per_core(bundle: Bundle) -> float:
    """Operations a second of the scorer graph in one thread, by the count that the plan uses: full sides, one user."""
    config, dim = bundle.manifest.config, bundle.manifest.state_dim
    session = cpu_session(bundle.file(SCORER_GRAPH), threads=1)
    draw = np.random.default_rng(0)
    inputs: dict[str, np.ndarray] = {"domain": np.zeros(PAIRS, dtype=np.int64)}
    for side, entities in (("user", 1), ("item", PAIRS)):
        inputs[side] = np.zeros(entities, dtype=np.int64)
        inputs[f"{side}_states"] = draw.normal(size=(entities, config.max_rows, dim)).astype(np.float32)
        inputs[f"{side}_residuals"] = np.zeros((entities, config.max_rows), dtype=np.float32)
        inputs[f"{side}_mask"] = np.ones((entities, config.max_rows), dtype=np.bool_)
    session.run(["rating"], inputs)  # warms up
    taken = statistics.median(_seconds(partial(session.run, ["rating"], inputs)) for _ in range(ROUNDS))
    return PAIRS * pair_flops(config.max_rows, config.max_rows, dim) / taken


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
