"""How much faster resident states are scored than stored ones, and whether the residents keep to their bound of memory.

    python tests/benchmarks/residents.py --bundle DIR --states lmdb:DIR [--codecs pq1 int8 fp32] [--requests 100000]

``--states`` holds the bundle's fp32 states; other codecs are made from them. First, for each codec, the engine ranks up
to 1,000 real candidates for one user: cold (nothing resident, all from a loopback Redis) over warm (all resident),
medians of rounds that alternate between the two. Then a random workload of scoring and writing runs with much less
memory than the states need: the most bytes ever held and the process's own memory, each against its bound.
"""

import argparse
import gc
import resource
import statistics
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.engines import engine_over, residents_over
from support.redis_server import RedisServer
from ubert_model.bundle import SCORER_GRAPH, Bundle
from ubert_model.review import ReviewEntry, Side
from ubert_model.states import MaintenanceStore, numpy_in_one_thread, open_store
from ubert_service.reading.histories import Pair
from ubert_service.resident.residents import Residents
from ubert_service.scoring.engine import ScoringEngine
from ubert_service.scoring.runtime import OnnxRuntime
from ubert_training.running.timing import seconds_of

MOST_CANDIDATES, ROUNDS = 1_000, 9
REVIEWS_A_WRITE = 256
UNBOUNDED_BYTES = 1 << 32
MAX_BYTES = 8 * 1024 * 1024
WARM_UP_REQUESTS = 10_000


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Every review of a store, and its fp32 state as stored."""

    entries: list[ReviewEntry]
    payloads: list[bytes]

    @classmethod
    def of(cls, bundle: Bundle, store: MaintenanceStore) -> "Corpus":
        version = bundle.manifest.namespace("fp32").version
        lists, _ = store.review_lists(version, users=store.entities(version, Side.USER))
        entries = [entry for reviews in lists for entry in reviews]
        found = store.states(version, [entry.review_id for entry in entries])
        return cls(
            entries=[entry for entry, state in zip(entries, found, strict=True) if state is not None],
            payloads=[state for state in found if state is not None],
        )

    def write(self, bundle: Bundle, codec_name: str, store: MaintenanceStore) -> int:
        """Write all reviews under a codec; returns the bytes of their states."""
        full, codec = bundle.codec("fp32"), bundle.codec(codec_name)
        store.open_namespace(codec.namespace)
        states = [codec.encode(full.decode(payload)) for payload in self.payloads]
        reviews = list(zip(self.entries, states, strict=True))
        for first in range(0, len(reviews), REVIEWS_A_WRITE):
            store.put(codec.namespace.version, reviews[first : first + REVIEWS_A_WRITE])
        return sum(map(len, states))


@dataclass(frozen=True, kw_only=True)
class Setup:
    """An engine with residents of its own."""

    residents: Residents
    engine: ScoringEngine

    @classmethod
    def over(
        cls, bundle: Bundle, codec: str, store: MaintenanceStore, runtime: OnnxRuntime, *, max_bytes: int, lag: float
    ) -> "Setup":
        residents = residents_over(store, bundle, codec, max_bytes=max_bytes, max_lag_s=lag)
        return cls(residents=residents, engine=engine_over(residents, bundle, runtime))


def seconds_to_score(engine: ScoringEngine, pairs: list[Pair]) -> float:
    gc.collect()
    return seconds_of(lambda: engine.score(pairs))


def cold_against_warm(bundle: Bundle, corpus: Corpus, codec: str, runtime: OnnxRuntime) -> None:
    user = max(bundle.identities.users.identifiers, key=[entry.user for entry in corpus.entries].count)
    items = list(dict.fromkeys(entry.item for entry in corpus.entries))[:MOST_CANDIDATES]
    pairs = [Pair(user, item) for item in items]
    with RedisServer() as server, closing(open_store(server.url)) as store:
        size = corpus.write(bundle, codec, store)
        warm_engine = Setup.over(bundle, codec, store, runtime, max_bytes=UNBOUNDED_BYTES, lag=0.5).engine
        warm, cold = [], []
        for _ in range(ROUNDS + 1):
            cold_engine = Setup.over(bundle, codec, store, runtime, max_bytes=UNBOUNDED_BYTES, lag=0.5).engine
            cold.append(seconds_to_score(cold_engine, pairs))
            warm_engine.score(pairs[:1])
            warm.append(seconds_to_score(warm_engine, pairs))
    ratios = sorted(one / other for one, other in zip(cold[1:], warm[1:], strict=True))
    print(
        f"{codec:>10}: {size / 1e6:6.1f} MB in Redis, 1 × {len(pairs)} candidates cold "
        f"{1e3 * statistics.median(cold[1:]):.0f} ms, warm {1e3 * statistics.median(warm[1:]):.0f} ms: "
        f"cold is {statistics.median(ratios):.2f}× warm (from {ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


def process_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def random_workload(bundle: Bundle, corpus: Corpus, codec_name: str, runtime: OnnxRuntime, requests: int) -> None:
    random = np.random.default_rng(0)
    codec = bundle.codec(codec_name)
    entries = corpus.entries
    with RedisServer() as server, closing(open_store(server.url)) as store:
        corpus.write(bundle, codec_name, store)
        setup = Setup.over(bundle, codec_name, store, runtime, max_bytes=MAX_BYTES, lag=0.05)
        most, settled, highest = 0, 0.0, 0.0
        for number in range(1, requests + 1):
            # Half of the items asked for are popular, half uniformly random.
            user = entries[int(random.integers(len(entries)))].user
            items = {entries[int(len(entries) * random.random() ** power)].item for power in (1.0, 4.0)}
            setup.engine.score([Pair(user, item) for item in items])
            if number % 100 == 0:
                chosen = int(random.integers(len(entries)))
                state = codec.encode(bundle.codec("fp32").decode(corpus.payloads[chosen]))
                store.put(codec.namespace.version, [(entries[chosen], state)])
            most = max(most, setup.residents.held_bytes)
            if number == WARM_UP_REQUESTS:
                settled = process_megabytes()
            elif number > WARM_UP_REQUESTS and number % 1_000 == 0:
                highest = max(highest, process_megabytes())
    print(
        f"{requests} requests in {MAX_BYTES / 1e6:.1f} MB of residents: at most {100 * most / MAX_BYTES:.1f}% of the "
        f"bound held; process {settled:.0f} MB after {WARM_UP_REQUESTS}, then at most {highest:.0f} MB "
        f"({100 * (highest / settled - 1):+.1f}%)"
        if settled
        else f"{requests} requests: at most {100 * most / MAX_BYTES:.1f}% of the bound held"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--states", required=True, help="URL of a store with the bundle's fp32 states")
    parser.add_argument("--codecs", nargs="*", default=["pq1", "int8", "fp32"])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    numpy_in_one_thread()  # as the service does
    bundle = Bundle.load(arguments.bundle)
    runtime = OnnxRuntime(bundle.file(SCORER_GRAPH), device="cpu", threads=arguments.threads)
    with closing(open_store(arguments.states)) as store:
        corpus = Corpus.of(bundle, store)
    for codec in arguments.codecs:
        cold_against_warm(bundle, corpus, codec, runtime)
    if arguments.requests:
        random_workload(
            bundle, corpus, arguments.codecs[0] if arguments.codecs else "fp32", runtime, arguments.requests
        )


if __name__ == "__main__":
    main()
