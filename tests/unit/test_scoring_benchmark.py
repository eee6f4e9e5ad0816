"""The scoring benchmark: its eager reference equals the network, and its engine scores every candidate."""

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


PAIRS = [Pair("user", f"item {number}") for number in range(3)]


def test_the_eager_reference_equals_the_network() -> None:
    bench = tiny_bench()
    with torch.inference_mode():
        outputs = [(eager(bench.scorer, pair), bench.scorer(**pair)) for pair in bench.single_pairs(PAIRS)]
    assert len({float(expected) for _, expected in outputs}) == 3
    for reference, expected in outputs:
        torch.testing.assert_close(reference, expected, rtol=1e-5, atol=1e-5)


def test_flops_a_pair_counts_the_products_of_equations_12_to_14() -> None:
    assert flops_a_pair(tiny_bench().single_pairs(PAIRS), 16) == 6 * 32 * 32 * 16 + 4 * 64 * 16**2


def test_the_engine_passes_every_candidate_to_its_runtime() -> None:
    bench, recorder = tiny_bench(), Recorder()
    bench.engine(recorder).score(PAIRS)
    assert sum(len(batch.item) for batch in recorder.batches) == 3
    assert all(batch.user_side.mask.sum() == 32 for batch in recorder.batches)
