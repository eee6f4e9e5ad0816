"""Precompute on a Ray cluster: the reviews that lack a state, in portions, by workers that each open the store."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ubert_model.bundle import Bundle
from ubert_model.running.ray_engine import RayEngine
from ubert_model.states import StateStore, open_store
from ubert_training.reviews.table import ReviewTable
from ubert_training.running.devices import DeviceChoice, Precision
from ubert_training.states.precompute import PrecomputeReport, PrecomputeWork, Written, follow, written_batches
from ubert_training.states.review_encoders import choose_encoder
from ubert_training.states.review_texts import write_texts

REVIEWS_A_PORTION = 256
"""Seconds of work for a processor. A portion that is tried again is encoded again as a whole."""
MOST_PORTIONS = 20_000
"""Of so many the driver keeps count in seconds; more reviews make larger portions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RowPortion:
    """Rows of the review table, ascending, and which of them lack their states. Shape: rows, lacking: (R,)."""

    rows: NDArray[np.int64]
    lacking: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class PrecomputeJob:
    """Encodes rows of a review table and writes their states; with ``texts`` it keeps the texts of all its rows, too.

    Paths and URL must hold on every node.
    """

    reviews: Path
    bundle: Path
    store: str
    codec: str
    texts: bool
    device: DeviceChoice
    precision: Precision
    threads: int

    def open(self) -> Callable[[RowPortion], Written]:
        """Raises as ``Bundle.load``, ``choose_encoder`` and ``open_store`` do."""
        bundle = Bundle.load(self.bundle)
        codec, tokenizer = bundle.codec(self.codec), bundle.tokenizer()
        encoder = choose_encoder(bundle, self.device, self.precision, self.threads)
        store = open_store(self.store)

        def write(portion: RowPortion) -> Written:
            table = ReviewTable.load_rows(self.reviews, portion.rows)
            lacking = np.flatnonzero(portion.lacking)
            with closing(written_batches(table, lacking, tokenizer, store, codec, encoder)) as batches:
                written = sum(batches, Written())
            if self.texts:
                kept = write_texts(table, np.arange(len(table)), tokenizer, store, codec.namespace.version)
                written = replace(written, texts=kept)
            return written

        return write


def write_missing_by_ray(
    engine: RayEngine, job: PrecomputeJob, work: PrecomputeWork, bundle: Bundle, store: StateStore
) -> PrecomputeReport:
    """What :func:`write_missing` and :func:`write_texts` do, on a cluster. Raises as :meth:`RayEngine.results` does.

    On processors in fp32 the states are the same to the byte however the reviews are parted: there, neither padding nor
    neighbours change a bit of them.
    """
    portions = _portions(work.rows if job.texts else work.missing, work.missing)
    return follow(work, store, bundle.manifest.namespace(job.codec), written_by_ray(engine, job, portions, store))


def written_by_ray(
    engine: RayEngine, job: PrecomputeJob, portions: Sequence[RowPortion], store: StateStore
) -> Generator[Written]:
    """Portion by portion what was written, in the order in which they end. Raises as :meth:`RayEngine.results` does."""
    with closing(engine.results(job, portions, one_node=store.local)) as results:
        for _, written in results:
            yield written


def _portions(rows: NDArray[np.int64], missing: NDArray[np.int64]) -> list[RowPortion]:
    lacking = np.isin(rows, missing)
    size = max(REVIEWS_A_PORTION, math.ceil(len(rows) / MOST_PORTIONS))
    cuts = [slice(start, start + size) for start in range(0, len(rows), size)]
    return [RowPortion(rows=rows[cut], lacking=lacking[cut]) for cut in cuts]
