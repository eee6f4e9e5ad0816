"""The folder of a bulk rating under way: the pairs in portions, and the ratings of those that are done.

Every file appears whole or not at all, so a run that was killed is continued from the portions that have ratings.
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
from ubert_model.running.claims import claimed
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
"""Columns of the output; what the ratings and counts mean is what the fields of ``/predict`` of that name mean."""
METADATA_KEY = b"ubert.ratings"


@dataclass(frozen=True, kw_only=True)
class Portions:
    """A folder for one ``fingerprint`` of pairs, bundle, states and share."""

    folder: Path
    fingerprint: str

    @contextmanager
    def opened(self, *, discard: bool) -> Iterator[None]:
        """Keep other runs out.

        Raises ``InputError`` if another run is at work in the folder and, unless :meth:`stage` is to ``discard`` them,
        for ratings of another fingerprint.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with claimed(self.folder) as ours:
            if not ours:
                raise InputError(f"another run is at work in {self.folder}: wait for its end, or choose another --out")
            if self.hold_ratings() and not self._are_own() and not discard:
                raise InputError(
                    f"{self.folder} holds the ratings of a run that did not end, of other pairs (or a file changed "
                    "since), bundle, store, codec, runtime or share: continue it as it was, or discard them with "
                    "--force"
                )
            yield

    def stage(self, pairs: Iterable[pa.Table]) -> None:
        """Keep the portions of pairs, unless that was done; what is left of another fingerprint is discarded."""
        if not self._are_own():
            self._label.unlink(missing_ok=True)  # first: without it nothing of what may be left counts
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
        """Pairs of each portion, once all are staged."""
        sizes: list[int] = json.loads(self._sizes_file.read_text())
        return sizes

    def is_rated(self, number: int) -> bool:
        return self._ratings_file(number).is_file()

    def pairs(self, number: int) -> list[Pair]:
        """The pairs of one portion."""
        read = _read(self._pairs_file(number))
        return [
            Pair(user, item) for user, item in zip(*(read[name].to_pylist() for name in ("user", "item")), strict=True)
        ]

    def rate(self, number: int, predictions: Sequence[Prediction]) -> None:
        """Keep the ratings of one portion."""
        columns = {
            "user": [one.pair.user for one in predictions],
            "item": [one.pair.item for one in predictions],
            **{name: [getattr(one, name) for one in predictions] for name in RATED.names[2:]},
        }
        _write(pa.table(columns, schema=RATED), self._ratings_file(number))

    def gather(self, out: Path, origin: Mapping[str, object]) -> None:
        """Write all ratings, in the order of the pairs, to ``out``; ``origin`` tells how they came about."""
        schema = RATED.with_metadata({METADATA_KEY: json.dumps(origin, sort_keys=True).encode()})
        with replacing(out) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for number in range(len(self.sizes())):
                writer.write_table(_read(self._ratings_file(number)).cast(schema))

    def hold_ratings(self) -> bool:
        """Whether any portion is rated."""
        return any(self.folder.glob("ratings-*.parquet"))

    def discard(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)

    def _are_own(self) -> bool:
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
