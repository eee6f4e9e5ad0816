"""What `ubert plan` predicts for a catalogue, against measurements of the same catalogue with synthetic states.

    nice python tests/benchmarks/simulation.py                 # 100,000 users x 50,000 items, 400,000 reviews; minutes
    nice python tests/benchmarks/simulation.py --users 10000 --items 5000 --reviews 40000       # seconds

The states are noise, of D = 32 and 16 tokens a review, in a real Redis and in a real LMDB directory. The engine, its
residents and its runtime are the service's own, with one thread and without HTTP. The plan's rates are measured on two
other catalogues, of 25,000 users each with shorter and longer histories, alternating with the large one; sizes use the
plan's own constants. Every quantity is printed as measured, as predicted, and as their ratio. Memory is the growth of
RssAnon in a separate process that has written nothing. Takes about 4 GB of memory and 1 GB of temporary disk space.
"""

import argparse
import gc
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import redis
from numpy.typing import NDArray
from scipy.optimize import nnls

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.codebooks import random_codebooks
from support.rating_columns import rating_columns
from support.redis_server import RedisServer
from support.tiny_bundle import BIAS, ITEM_WORTH, USER_WORTH
from ubert_model.bundle import CODEBOOKS, SCORER_GRAPH, Manifest
from ubert_model.config import ModelConfig, preset
from ubert_model.ids import Identities, IdTable
from ubert_model.rating.intervals import Margins, RatingIntervals
from ubert_model.review import ReviewEntry
from ubert_model.states import StateCodec, StateStore, make_codec, open_store
from ubert_model.states.codec import DEFAULT_CODEC
from ubert_service.reading.histories import Pair
from ubert_service.resident.residents import Residents
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.engine import ScoringEngine
from ubert_service.scoring.runtime import ActiveDevice, OnnxRuntime, ScoringRuntime
from ubert_training.finetuning.usual_fit import fit_usual_deviations
from ubert_training.planning.demand import Demand
from ubert_training.planning.plan import pair_flops, plan
from ubert_training.planning.rates import Rates
from ubert_training.running.timing import seconds_of

CONFIG: ModelConfig = replace(
    preset("minilm"),
    state_dim=32,
    tokens_a_row=1,
    match_pooling="max",
    max_length=64,
    max_reviews=40,
    max_rows=1_024,
)
DIM = 32
UNBOUNDED_BYTES = 1 << 40
DISTINCT_STATES = 4_096
REVIEWS_A_WRITE = 1_000
ENTITIES_A_READ = 200
ROUNDS = 10
MODES = ("warm", "cold", "without_network")
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Reviews by random users of random items."""

    users: int
    items: int
    reviews: int
    tokens: int

    def user(self, number: int) -> str:
        return f"A{number:012}U"

    def item(self, number: int) -> str:
        return f"B{number:09}"

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        random = np.random.default_rng(0)
        return random.integers(self.users, size=self.reviews), random.integers(self.items, size=self.reviews)

    def entries(self) -> Iterator[ReviewEntry]:
        for number, (user, item) in enumerate(zip(*(side.tolist() for side in self.pairs()), strict=True)):
            yield ReviewEntry(
                review_id=blake2b(number.to_bytes(8, "little"), digest_size=8).hexdigest(),
                user=self.user(user),
                item=self.item(item),
                rating=float(1 + number % 5),
                timestamp=1_300_000_000 + number,
                rows=self.tokens,
            )

    @property
    def manifest(self) -> Manifest:
        return Manifest(
            config=CONFIG,
            state_dim=DIM,
            encoder_digest=f"noise of {self}",  # so that each has its own namespace
            bias=BIAS,
            blend_weight=0.5,
            intervals=RatingIntervals(
                coverage=0.9, margins=(Margins(predicted=(3.0,), below=(1.0,), above=(1.0,)),) * 4
            ),
            files={CODEBOOKS: "random"},
        )

    def make_codec(self) -> StateCodec:
        return make_codec(self.manifest.namespace(DEFAULT_CODEC), random_codebooks(DIM))

    def identities(self) -> Identities:
        items = [self.item(number) for number in range(self.items)]
        users = IdTable(self.user(number) for number in range(self.users))
        return Identities(users, IdTable(items), IdTable(["d"]), dict.fromkeys(items, "d"), "d")

    def demand(self, candidates: int, *, hits: float) -> Demand:
        """The catalogue as a user of `ubert plan` describes it, on one core with everything resident."""
        return Demand(
            users=self.users,
            items=self.items,
            reviews=self.reviews,
            tokens=self.tokens,
            tokens_a_row=CONFIG.tokens_a_row,
            candidates=candidates,
            codec=DEFAULT_CODEC,
            state_dim=DIM,
            max_reviews=CONFIG.max_reviews,
            max_rows=CONFIG.max_rows,
            resident=1.0,
            hits=hits,
            replica_cores=1,
        )


SMALL = (
    Catalogue(users=25_000, items=12_500, reviews=75_000, tokens=14),
    Catalogue(users=25_000, items=12_500, reviews=125_000, tokens=20),
)
"""Hundreds of megabytes when resident: smaller ones would fit into the processor's cache, with rates too high."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measurements of a catalogue in service. ``seconds``: median per request, by mode and number of candidates."""

    seconds: Mapping[str, Mapping[int, float]]
    identities_bytes: float
    resident_bytes: float
    counted_bytes: float
    round_trip_s: float


class NoNetwork:
    """A runtime that costs nothing, so that only the engine around it is timed."""

    device: ActiveDevice = "cpu"

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        return np.zeros(len(batch.item), dtype=np.float32)


def write(catalogue: Catalogue, url: str) -> None:
    """Put the catalogue into a store."""
    codec = catalogue.make_codec()
    random = np.random.default_rng(1)
    states = [
        codec.encode(random.normal(size=(catalogue.tokens, DIM)).astype(np.float32)) for _ in range(DISTINCT_STATES)
    ]
    with closing(open_store(url)) as store:
        store.open_namespace(codec.namespace)
        entries = enumerate(catalogue.entries())
        while batch := [(entry, states[number % len(states)]) for number, entry in islice(entries, REVIEWS_A_WRITE)]:
            store.put(codec.namespace.version, batch)


class Service:
    """The engine and residents of one catalogue in this process, and the memory that they take."""

    def __init__(self, catalogue: Catalogue, store: StateStore, graph: Path) -> None:
        self._manifest = catalogue.manifest
        self._codec = catalogue.make_codec()
        self._store = store
        before = taken_bytes()
        self._identities = catalogue.identities()
        self._network = OnnxRuntime(graph, device="cpu", threads=1)
        users, items = self._identities.users, self._identities.items
        self._usual = fit_usual_deviations(rating_columns([], user_ids=users, item_ids=items), USER_WORTH, ITEM_WORTH)
        self.identities_bytes = taken_bytes() - before
        before = taken_bytes()
        self.residents = self._residents()
        fill(self.residents, self._identities)
        self.resident_bytes = taken_bytes() - before

    def warm(self, pairs: list[Pair]) -> None:
        self._engine(self.residents, self._network).score(pairs)

    def cold(self, pairs: list[Pair]) -> None:
        self._engine(self._residents(), self._network).score(pairs)

    def without_network(self, pairs: list[Pair]) -> None:
        self._engine(self.residents, NoNetwork()).score(pairs)

    def _engine(self, residents: Residents, runtime: ScoringRuntime) -> ScoringEngine:
        return ScoringEngine(manifest=self._manifest, identities=self._identities, residents=residents, runtime=runtime)

    def _residents(self) -> Residents:
        return Residents(
            store=self._store,
            codec=self._codec,
            config=CONFIG,
            usual=self._usual,
            bias=self._manifest.bias,
            max_bytes=UNBOUNDED_BYTES,
            max_lag_s=0.5,
        )


def measure_services(
    url: str, workloads: Sequence[tuple[Catalogue, Sequence[int]]], graphs: "Graphs", clock: str
) -> list[Measured]:
    """Serve and measure all catalogues, alternating, so that a busy machine slows all alike."""
    now = CLOCKS[clock]
    OnnxRuntime(graphs.smallest, device="cpu", threads=1)  # so that the library's one-time memory is not counted
    with closing(open_store(url)) as store:
        store.ping()
        services = [Service(catalogue, store, graphs.of(catalogue)) for catalogue, _ in workloads]
        requests = [
            {number: requests_for(catalogue, number) for number in candidates} for catalogue, candidates in workloads
        ]
        gc.collect()
        gc.freeze()  # as the service does once it is warm
        seconds: defaultdict[tuple[int, str, int], list[float]] = defaultdict(list)
        for round_number in range(ROUNDS):
            for number, service in enumerate(services):
                for candidates, rounds in requests[number].items():
                    for name in MODES:
                        took = seconds_of(partial(getattr(service, name), rounds[round_number]), now)
                        if round_number:  # the first round warms up
                            seconds[number, name, candidates].append(took)
        round_trip_s = statistics.median(seconds_of(store.ping, now) for _ in range(200))
        return [
            Measured(
                seconds={
                    name: {
                        candidates: statistics.median(seconds[number, name, candidates])
                        for candidates in requests[number]
                    }
                    for name in MODES
                },
                identities_bytes=service.identities_bytes,
                resident_bytes=service.resident_bytes,
                counted_bytes=service.residents.held_bytes,
                round_trip_s=round_trip_s,
            )
            for number, service in enumerate(services)
        ]


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """Scorer graphs with random weights, in files for the processes that serve."""

    directory: Path

    @property
    def smallest(self) -> Path:
        return self.of(Catalogue(users=1, items=1, reviews=1, tokens=1))

    def of(self, catalogue: Catalogue) -> Path:
        return self.directory / f"{catalogue.users} x {catalogue.items}" / SCORER_GRAPH

    def write(self, catalogues: Sequence[Catalogue]) -> None:
        for graph in {self.smallest, *map(self.of, catalogues)}:
            users, _, items = graph.parent.name.split()
            export_graph(int(users), int(items), graph)


def export_graph(users: int, items: int, graph: Path) -> None:
    import torch  # not at the top: the processes that serve do not need it

    from ubert_model.nn.pair_scorer import PairScorer
    from ubert_training.export.graphs import export_scorer

    torch.manual_seed(0)
    graph.parent.mkdir()
    scorer = PairScorer(DIM, CONFIG, users=users, items=items, domains=1, mean_rating=0.0).eval()
    export_scorer(scorer, graph)


def requests_for(catalogue: Catalogue, candidates: int) -> list[list[Pair]]:
    """Requests for random users with a review, each with random items that have one."""
    random = np.random.default_rng(candidates)
    users, items = (np.unique(side) for side in catalogue.pairs())
    return [
        [
            Pair(catalogue.user(user), catalogue.item(item))
            for item in random.choice(items, candidates, replace=False).tolist()
        ]
        for user in random.choice(users, ROUNDS, replace=False).tolist()
    ]


def fill(residents: Residents, identities: Identities) -> None:
    """Read everything, as the service's warming does."""
    users, items = identities.users.identifiers, identities.items.identifiers
    for first in range(0, max(len(users), len(items)), ENTITIES_A_READ):
        part = slice(first, first + ENTITIES_A_READ)
        lists = residents.review_lists(users[part], items[part], warming=True)
        residents.states((review.review_id for one in lists for review in one.full_history.selected), warming=True)


def taken_bytes() -> int:
    """The process's anonymous memory (RssAnon), in bytes."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def in_new_process(work: Callable[[], Result]) -> Result:
    """Run ``work`` in a fresh process, whose memory nothing else has used."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work).result()


def in_redis(catalogues: Sequence[Catalogue], measure: Callable[[str], list[Measured]]) -> tuple[list[Measured], float]:
    """Measure the catalogues in Redis; also returns the memory that Redis takes for the first."""
    with RedisServer() as server, redis.Redis(port=server.port) as client:

        def used() -> float:
            return float(client.info("memory")["used_memory"])

        empty = used()
        in_new_process(partial(write, catalogues[0], server.url))
        taken = used() - empty
        for catalogue in catalogues[1:]:
            in_new_process(partial(write, catalogue, server.url))
        return in_new_process(partial(measure, server.url)), taken


def in_lmdb(catalogues: Sequence[Catalogue], measure: Callable[[str], list[Measured]]) -> tuple[list[Measured], float]:
    """Measure the catalogues in an LMDB directory; also returns the disk space that it takes for the first."""
    with tempfile.TemporaryDirectory() as directory:
        in_new_process(partial(write, catalogues[0], f"lmdb:{directory}"))
        taken = 512 * Path(directory, "data.mdb").stat().st_blocks
        for catalogue in catalogues[1:]:
            in_new_process(partial(write, catalogue, f"lmdb:{directory}"))
        return in_new_process(partial(measure, f"lmdb:{directory}")), taken


STORES = {"Redis": in_redis, "LMDB": in_lmdb}


def rates_of(catalogues: Sequence[Catalogue], measured: Sequence[Measured], candidates: int) -> Rates:
    """The rates of this machine on these catalogues, as the plan takes them.

    Measured for each number of candidates: the reviews of a thousand candidates do not stay in the cache between the
    engine's passes over them, and each then costs half as much again around the network as one of a hundred.
    """
    network_s = flops = 0.0
    engine_rows, engine_s, read_rows, read_s, cold_s = [], [], [], [], []
    for catalogue, served in zip(catalogues, measured, strict=True):
        of_user, of_item = catalogue.reviews / catalogue.users, catalogue.reviews / catalogue.items
        rows = round(of_user * catalogue.tokens), round(of_item * catalogue.tokens)
        warm, cold, around = (served.seconds[mode][candidates] for mode in MODES)
        reviews = of_user + candidates * of_item
        engine_rows.append([1, candidates, reviews])
        engine_s.append(around)
        network_s += warm - around
        flops += candidates * pair_flops(*rows, DIM)
        read_rows.append([1 + candidates, reviews])
        read_s.append(cold - warm)
        cold_s.append(cold)
    request, candidate, review = fitted_costs(engine_rows, engine_s, noise=engine_s)
    read_list, read_review = fitted_costs(read_rows, read_s, noise=cold_s)
    return Rates(
        score_flops_per_core=flops / network_s,
        request_core_ms=1e3 * request,
        candidate_core_ms=1e3 * candidate,
        review_core_ms=1e3 * review,
        read_list_core_ms=1e3 * read_list,
        read_review_core_ms=1e3 * read_review,
        redis_round_trip_ms=1e3 * measured[0].round_trip_s,
    )


def fitted_costs(counts: list[list[float]], seconds: list[float], *, noise: list[float]) -> list[float]:
    """Positive costs, in seconds, of what each column counts: least squares, with rows weighted by 1 / ``noise``."""
    scale = np.array(noise)
    costs, _ = nnls(np.array(counts) / scale[:, None], np.array(seconds) / scale)
    return [max(cost, sys.float_info.epsilon) for cost in costs.tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--reviews", type=int, default=400_000)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--candidates", type=int, nargs="*", default=[100, 1_000])
    parser.add_argument("--stores", nargs="*", choices=list(STORES), default=list(STORES))
    parser.add_argument(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="processor counts this process alone: for a busy machine",
    )
    options = parser.parse_args()
    large = Catalogue(users=options.users, items=options.items, reviews=options.reviews, tokens=options.tokens)
    with tempfile.TemporaryDirectory() as directory:
        graphs = Graphs(directory=Path(directory))
        graphs.write([large, *SMALL])
        workloads = [(large, options.candidates), *((one, options.candidates) for one in SMALL)]
        measure = partial(measure_services, workloads=workloads, graphs=graphs, clock=options.clock)
        for store in options.stores:
            (served, *others), taken = STORES[store]([large, *SMALL], measure)
            rates = {number: rates_of(SMALL, others, number) for number in options.candidates}
            compare(store, large, rates, served, taken)


def compare(store: str, catalogue: Catalogue, rates: Mapping[int, Rates], served: Measured, taken: float) -> None:
    figures = plan(catalogue.demand(1, hits=1.0), Rates()).figures
    for candidates, each_rates in rates.items():
        print(f"\n{store}; rates of the small catalogues, {candidates} candidates: {asdict(each_rates)}")
    rows = [
        (f"{store} bytes", taken, figures[{"Redis": "Redis memory", "LMDB": "LMDB directory"}[store]].value),
        ("residents, as counted", served.counted_bytes, figures["resident states a replica"].value),
        ("residents, of the process", served.resident_bytes, figures["resident states a replica"].value),
        ("embeddings and identifiers", served.identities_bytes, figures["embeddings and identifiers a replica"].value),
    ]
    for name, hits in (("warm", 1.0), ("cold", 0.0)):
        for candidates, each in served.seconds[name].items():
            predicted = plan(catalogue.demand(candidates, hits=hits), rates[candidates]).figures[
                "answer of an idle replica"
            ]
            rows.append((f"/rank of {candidates}, {name}, ms", 1e3 * each, predicted.value))
    for candidates, each in served.seconds["without_network"].items():
        predicted = plan(catalogue.demand(candidates, hits=1.0), rates[candidates]).figures["around the network"]
        rows.append((f"/rank of {candidates}, no network, ms", 1e3 * each, predicted.value))
    print(f"{'':30s} {'measured':>15s} {'predicted':>15s} {'ratio':>7s}")
    for name, measured, predicted_value in rows:
        print(f"{name:30s} {measured:15,.1f} {predicted_value:15,.1f} {measured / predicted_value:7.2f}", flush=True)


if __name__ == "__main__":
    main()
