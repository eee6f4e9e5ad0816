"""The benchmark of scoring measures what it says: the same ratings, by the paper's equations and by the engine."""

import numpy as np
import torch

from benchmarks.scoring import Bench, InMemoryResidents, Recorder, eager, flops_a_pair, synthetic
from support.random_models import randomized
from ubert_model.config import preset
from ubert_model.nn.pair_scorer import PairScorer
from ubert_service.reading.histories import Pair


def tiny_bench() -> Bench:
    config = preset("tiny")
    pool = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    residents = InMemoryResidents(synthetic(3, 32, 16), config, pool)
    users, items = len(residents.identities.users), len(residents.identities.items)
    scorer = randomized(PairScorer(16, config, users=users, items=items, domains=1, mean_rating=4.0))
    return Bench(config=config, pool=pool, residents=residents, scorer=scorer, runtimes={})


def test_the_yardstick_computes_what_the_network_computes() -> None:
    bench = tiny_bench()
    inputs = bench.single_pairs([Pair("user", f"item {number}") for number in range(3)])
    with torch.inference_mode():
        outputs = [(eager(bench.scorer, one), bench.scorer(**one)) for one in inputs]
    assert len({float(expected) for _, expected in outputs}) == 3
    for plain, expected in outputs:
        torch.testing.assert_close(plain, expected, rtol=1e-5, atol=1e-5)
    assert flops_a_pair(inputs, 16) == 6 * 32 * 32 * 16 + 4 * 64 * 16**2


def test_the_engine_of_the_benchmark_gives_its_runtime_every_candidate() -> None:
    bench, recorder = tiny_bench(), Recorder()
    bench.engine(recorder).score([Pair("user", f"item {number}") for number in range(3)])
    assert sum(len(batch.item) for batch in recorder.batches) == 3
    assert all(batch.user_side.mask.sum() == 32 for batch in recorder.batches)
