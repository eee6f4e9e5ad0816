"""Precompute on a Ray cluster: workers that each open the store write the missing reviews, portion by portion."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ubert_model.bundle import Bundle
from ubert_model.running.ray_engine import RayEngine
from ubert_model.states import MaintenanceStore, open_store
from ubert_training.reviews.table import ReviewTable
from ubert_training.running.devices import DeviceChoice, Precision
from ubert_training.states.precompute import PrecomputeReport, PrecomputeWork, Written, complete_shard, written_batches
from ubert_training.states.review_encoders import choose_encoder
from ubert_training.states.review_texts import write_texts

REVIEWS_A_PORTION = 256
"""Seconds of work for a processor. A portion that is retried is encoded again as a whole."""
MOST_PORTIONS = 20_000
"""As many as the driver can schedule in seconds; with more reviews the portions get larger."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RowPortion:
    """Rows of the review table, ascending, and which of them lack their states. Shape: rows, lacking: (R,)."""

    rows: NDArray[np.int64]
    lacking: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class PrecomputeJob:
    """Encodes rows of a review table and writes their states; with ``texts``, also stores the texts of all its rows.

    Paths and URL must be valid on every node.
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
        """A function that writes one portion. Raises as ``Bundle.load``, ``choose_encoder`` and ``open_store`` do."""
        bundle = Bundle.load(self.bundle)
        codec, tokenizer = bundle.codec(self.codec), bundle.tokenizer()
        encoder = choose_encoder(bundle, self.device, self.precision, self.threads)
        store = open_store(self.store)

        def write(portion: RowPortion) -> Written:
            table = ReviewTable.load_rows(self.reviews, portion.rows)
            lacking = np.flatnonzero(portion.lacking)
            with closing(written_batches(table, lacking, bundle, store, codec, encoder)) as batches:
                written = sum(batches, Written())
            if self.texts:
                texts = write_texts(table, np.arange(len(table)), tokenizer, store, codec.namespace.version)
                written = replace(written, texts=texts)
            return written

        return write


def write_missing_by_ray(
    engine: RayEngine, job: PrecomputeJob, work: PrecomputeWork, bundle: Bundle, store: MaintenanceStore
) -> PrecomputeReport:
    """Do the work of :func:`write_missing` and :func:`write_texts` on a cluster.

    On CPUs in fp32 the states are the same to the byte however the reviews are divided, because neither padding nor
    batch neighbours change a bit of them. Raises as :meth:`RayEngine.results` does.
    """
    portions = _portions(work.rows if job.texts else work.missing, work.missing)
    namespace = bundle.manifest.namespace(job.codec)
    return complete_shard(work, store, namespace, written_by_ray(engine, job, portions, store))


def written_by_ray(
    engine: RayEngine, job: PrecomputeJob, portions: Sequence[RowPortion], store: MaintenanceStore
) -> Generator[Written]:
    """What each portion has written, in order of completion. Raises as :meth:`RayEngine.results` does."""
    with closing(engine.results(job, portions, one_node=store.local)) as results:
        for _, written in results:
            yield written


def _portions(rows: NDArray[np.int64], missing: NDArray[np.int64]) -> list[RowPortion]:
    lacking = np.isin(rows, missing)
    size = max(REVIEWS_A_PORTION, math.ceil(len(rows) / MOST_PORTIONS))
    cuts = [slice(start, start + size) for start in range(0, len(rows), size)]
    return [RowPortion(rows=rows[cut], lacking=lacking[cut]) for cut in cuts]
