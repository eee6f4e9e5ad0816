"""The working folder of a bulk rating: the pairs in portions, and the ratings of finished portions.

Every file is written atomically, so a killed run resumes after the portions that have ratings.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ubert_model.errors import InputError
from ubert_model.running.atomic import replacing, write_text
from ubert_model.running.folder_lock import try_lock
from ubert_service.reading.histories import Pair
from ubert_service.scoring.engine import Prediction

RATED = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in {
            "user": pa.string(),
            "item": pa.string(),
            "rating": pa.float64(),
            "low": pa.float64(),
            "high": pa.float64(),
            "basis": pa.string(),
            "user_reviews": pa.int32(),
            "item_reviews": pa.int32(),
            "missing_states": pa.int32(),
        }.items()
    ]
)
"""Columns of the output; each means what the field of that name means in an answer of ``/predict``."""
METADATA_KEY = b"ubert.ratings"


@dataclass(frozen=True, kw_only=True)
class Portions:
    """A folder for one ``fingerprint`` of pairs, bundle, states and shard."""

    folder: Path
    fingerprint: str

    @contextmanager
    def opened(self, *, discard: bool) -> Iterator[None]:
        """Lock the folder, which is created if needed.

        Raises ``InputError`` if another run has locked it, and if it holds ratings of another fingerprint, unless
        :meth:`stage` may ``discard`` them.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with try_lock(self.folder) as ours:
            if not ours:
                raise InputError(f"another run is at work in {self.folder}: wait for its end, or choose another --out")
            if self.has_ratings() and not self._matches() and not discard:
                raise InputError(
                    f"{self.folder} holds ratings of an unfinished run with other pairs (or a file changed since), "
                    "bundle, store, codec, runtime or shard: finish that run with its own options, or discard its "
                    "ratings with --force"
                )
            yield

    def stage(self, pairs: Iterable[pa.Table]) -> None:
        """Write the portions of pairs, unless a run before has; discard whatever is of another fingerprint."""
        if not self._matches():
            self._label.unlink(missing_ok=True)  # first: without it, leftovers are never taken for this run's
            for file in self.folder.iterdir():
                file.unlink()
            write_text(self._label, self.fingerprint)
        if self._sizes_file.is_file():
            return
        sizes = []
        for number, portion in enumerate(pairs):
            _write(portion, self._pairs_file(number))
            sizes.append(len(portion))
        write_text(self._sizes_file, json.dumps(sizes))

    def sizes(self) -> list[int]:
        """The number of pairs of each portion, once all are staged."""
        sizes: list[int] = json.loads(self._sizes_file.read_text())
        return sizes

    def is_rated(self, number: int) -> bool:
        return self._ratings_file(number).is_file()

    def pairs(self, number: int) -> list[Pair]:
        """The pairs of one portion."""
        table = _read(self._pairs_file(number))
        return list(map(Pair, table["user"].to_pylist(), table["item"].to_pylist()))

    def rate(self, number: int, predictions: Sequence[Prediction]) -> None:
        """Write the ratings of one portion."""
        columns = {
            "user": [prediction.pair.user for prediction in predictions],
            "item": [prediction.pair.item for prediction in predictions],
            **{name: [getattr(prediction, name) for prediction in predictions] for name in RATED.names[2:]},
        }
        _write(pa.table(columns, schema=RATED), self._ratings_file(number))

    def gather(self, out: Path, origin: Mapping[str, object]) -> None:
        """Write all ratings to ``out``, in the order of the pairs; ``origin``, how they were made, is its metadata."""
        schema = RATED.with_metadata({METADATA_KEY: json.dumps(origin, sort_keys=True).encode()})
        with replacing(out) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for number in range(len(self.sizes())):
                writer.write_table(_read(self._ratings_file(number)).cast(schema))

    def has_ratings(self) -> bool:
        """Is any portion rated?"""
        return any(self.folder.glob("ratings-*.parquet"))

    def discard(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)

    def _matches(self) -> bool:
        return self._label.is_file() and self._label.read_text() == self.fingerprint

    @property
    def _label(self) -> Path:
        return self.folder / "fingerprint"

    @property
    def _sizes_file(self) -> Path:
        return self.folder / "sizes.json"

    def _pairs_file(self, number: int) -> Path:
        return self.folder / f"pairs-{number:06d}.parquet"

    def _ratings_file(self, number: int) -> Path:
        return self.folder / f"ratings-{number:06d}.parquet"


def _write(table: pa.Table, path: Path) -> None:
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def _read(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read()
