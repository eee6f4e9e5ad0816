"""Precompute on Ray: two workers against one, and one against this process, each with one thread.

    python tests/benchmarks/ray_engine.py --reviews data/reviews --bundle data/bundle

All encode the same reviews in portions of the same size into an LMDB directory. A rate is tokens a second after as many
portions as there are workers. The time until then, most of the start-up (processes, imports, the encoder), is printed
beside it: it is paid once, however long the run. A worker that is not ready when another has done two portions lowers
the rate. Rounds alternate, so that a busy machine slows all alike; ratios are medians over rounds.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ubert_model.bundle import Bundle
from ubert_model.running.ray_engine import RayEngine
from ubert_model.states import DEFAULT_CODEC, open_store
from ubert_training.commands.options import load_reviews, table_file
from ubert_training.reviews.table import ReviewTable
from ubert_training.states.precompute import Written, written_batches
from ubert_training.states.precompute_by_ray import PrecomputeJob, RowPortion, written_by_ray
from ubert_training.states.review_encoders import choose_encoder

HERE, ONE, TWO = "this process", "Ray, one worker", "Ray, two workers"


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Seconds until as many portions are done as there are workers, and tokens a second from then on."""

    start: float
    rate: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2048, help="reviews a round")
    parser.add_argument("--portion", type=int, default=128, help="reviews a portion")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    table = load_reviews(options.reviews)
    rows = np.sort(np.random.default_rng(0).permutation(len(table))[: options.count])
    portions = [rows[start : start + options.portion] for start in range(0, len(rows), options.portion)]
    if len(portions) <= 2:
        parser.error(f"--count {len(rows)}, --portion {options.portion}: for two workers, take three portions or more")
    workloads: dict[str, Callable[[], Throughput]] = {
        HERE: lambda: in_this_process(table, portions, options.bundle),
        ONE: lambda: by_ray(table_file(options.reviews), portions, options.bundle, workers=1),
        TWO: lambda: by_ray(table_file(options.reviews), portions, options.bundle, workers=2),
    }
    with RayEngine(workers=2).connected():
        measured = [{name: work() for name, work in workloads.items()} for _ in range(options.rounds)]
    print(f"{len(rows)} reviews in {len(portions)} portions, {options.rounds} rounds, 1 thread a worker")
    for name in workloads:
        rate, start = (np.median([getattr(each[name], what) for each in measured]) for what in ("rate", "start"))
        print(f"{name}: {rate:,.0f} tokens/s, after {start:.1f} s of start-up")
    print(compared(measured, TWO, ONE, "target 1.7"))
    print(compared(measured, ONE, HERE, "target above 0.85: overhead below 15%"))


def compared(measured: list[dict[str, Throughput]], one: str, other: str, target: str) -> str:
    ratios = np.sort([each[one].rate / each[other].rate for each in measured])
    return f"{one} / {other}: {np.median(ratios):.2f}× ({ratios[0]:.2f} to {ratios[-1]:.2f}; {target})"


def in_this_process(table: ReviewTable, portions: list[NDArray[np.int64]], path: Path) -> Throughput:
    started = time.perf_counter()
    bundle = Bundle.load(path)
    codec, encoder = bundle.codec(DEFAULT_CODEC), choose_encoder(bundle, "cpu", "fp32", 1)
    with tempfile.TemporaryDirectory() as directory, closing(open_store(f"lmdb:{directory}")) as store:
        store.open_namespace(codec.namespace)
        written = (sum(written_batches(table, rows, bundle, store, codec, encoder), Written()) for rows in portions)
        return throughput(written, started, workers=1)


def by_ray(table: Path, portions: list[NDArray[np.int64]], bundle: Path, *, workers: int) -> Throughput:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory, closing(open_store(f"lmdb:{directory}")) as store:
        store.open_namespace(Bundle.load(bundle).codec(DEFAULT_CODEC).namespace)
        job = PrecomputeJob(
            reviews=table.absolute(),
            bundle=bundle.absolute(),
            store=f"lmdb:{directory}",
            codec=DEFAULT_CODEC,
            texts=False,
            device="cpu",
            precision="fp32",
            threads=1,
        )
        lacking = [RowPortion(rows=rows, lacking=np.ones(len(rows), dtype=bool)) for rows in portions]
        with closing(written_by_ray(RayEngine(workers=workers), job, lacking, store)) as written:
            return throughput(written, started, workers=workers)


def throughput(written: Iterable[Written], started: float, *, workers: int) -> Throughput:
    ends: list[float] = []
    tokens: list[int] = []
    for portion in written:
        ends.append(time.perf_counter())
        tokens.append(portion.tokens)
    warm_at = ends[workers - 1]
    return Throughput(start=warm_at - started, rate=sum(tokens[workers:]) / (ends[-1] - warm_at))


if __name__ == "__main__":
    main()
