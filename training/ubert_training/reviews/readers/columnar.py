"""Parquet files of reviews. A row is also rendered as a JSON line, for the report of rejected lines."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ubert_training.errors import ReviewFileError
from ubert_training.reviews.readers.records import Record

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class ParquetReader:
    """Reads the named columns of a Parquet file. Rows are numbered from 1, as lines are."""

    columns: Sequence[str]

    def records(self, path: Path, skip: int) -> Iterator[Record]:
        size = path.stat().st_size
        try:
            with pq.ParquetFile(path) as file:
                total = max(file.metadata.num_rows, 1)
                batches = file.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(self.columns))
                rows = (row for batch in batches for row in _plain(batch).to_pylist())
                for number, row in islice(enumerate(rows, start=1), skip, None):
                    raw = json.dumps(row, ensure_ascii=False, default=str).encode()
                    yield Record(line=number, raw=raw, fields=row, position=size * number // total)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ReviewFileError(f"{path} cannot be read as Parquet: {error}") from error

    def header(self, path: Path) -> list[str]:
        """The names of the columns. Raises ``ReviewFileError``."""
        try:
            return list(pq.read_schema(path).names)
        except (pa.ArrowException, OSError) as error:
            raise ReviewFileError(f"{path} cannot be read as Parquet: {error}") from error


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Convert what JSON has no type for: times, and decimals, as which warehouses write whole numbers too."""
    return pa.RecordBatch.from_arrays([_plain_column(column) for column in batch.columns], names=batch.schema.names)


def _plain_column(column: pa.Array) -> pa.Array:
    if pa.types.is_decimal(column.type):
        return column.cast(pa.float64() if column.type.scale else pa.string())
    # To ISO dates in UTC: Python's datetime ends with the year 9999, and a later one would fail the file.
    if pa.types.is_timestamp(column.type):
        # Whole seconds and no time zone, because Arrow then writes the time in UTC.
        return column.cast(pa.timestamp("s"), safe=False).cast(pa.string())
    return column.cast(pa.string()) if pa.types.is_date(column.type) else column
