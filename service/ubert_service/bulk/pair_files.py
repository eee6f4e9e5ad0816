"""Files of pairs to rate: CSV, TSV (both also gzip) or Parquet, with the columns ``user`` and ``item``."""

from collections.abc import Iterator, Sequence
from csv import Error as CsvError
from csv import reader
from hashlib import blake2b
from io import TextIOWrapper
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from ubert_model.errors import InputError
from ubert_model.identifiers import MAX_IDENTIFIER_BYTES
from ubert_model.running.sharding import Shard

COLUMNS = ("user", "item")
SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in COLUMNS])
ROWS_READ = 65_536


def read_pairs(path: Path) -> Iterator[pa.Table]:
    """The pairs of a file in order, some thousands at a time; other columns are dropped.

    Raises ``InputError`` for a file that cannot be read or lacks a column, and for the first row with an unusable
    identifier, which it names.
    """
    row = 1
    try:
        for batch in _batches(path):
            found = pa.Table.from_batches([batch])
            pairs = pa.table({name: found[name].cast(pa.string()).fill_null("") for name in COLUMNS}, schema=SCHEMA)
            for column in COLUMNS:
                _check(path, row, column, pairs[column])
            yield pairs
            row += len(pairs)
    except FileNotFoundError as error:
        raise InputError(f"no file of pairs at {path}") from error
    except (pa.ArrowException, CsvError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}, after row {row - 1}: {error}; write columns user and item, UTF-8") from error


def in_portions(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in portions of ``size``; the last may be smaller."""
    waiting = SCHEMA.empty_table()
    for table in tables:
        waiting = pa.concat_tables([waiting, table])
        while len(waiting) >= size:
            yield waiting.slice(0, size)
            waiting = waiting.slice(size)
    if len(waiting):
        yield waiting


def of_shard(pairs: pa.Table, shard: Shard) -> pa.Table:
    """The pairs whose users fall into the shard: all pairs of a user, so that one process reads the user's reviews."""
    if shard.shards == 1:
        return pairs
    users = pairs["user"].combine_chunks().dictionary_encode()
    in_shard = [shard.holds(_digest(user)) for user in users.dictionary.to_pylist()]
    return pairs.filter(pa.array(np.array(in_shard, dtype=bool)[users.indices.to_numpy()]))


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    suffixes = {suffix.lower() for suffix in path.suffixes}
    if ".parquet" in suffixes:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names)
            yield from file.iter_batches(batch_size=ROWS_READ, columns=list(COLUMNS))
    elif suffixes & {".csv", ".tsv"}:
        delimiter = "\t" if ".tsv" in suffixes else ","
        _check_columns(path, _header(path, delimiter))
        parsing = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        # Identifiers are taken literally: "007" is not a number, and "NA" may be a user.
        converting = csv.ConvertOptions(
            include_columns=COLUMNS, column_types=SCHEMA, null_values=[], strings_can_be_null=False
        )
        with (
            pa.input_stream(path, compression="detect") as stream,
            csv.open_csv(stream, parse_options=parsing, convert_options=converting) as batches,
        ):
            yield from batches
    else:
        raise InputError(f"{path}: cannot tell its format from its name; name it .csv, .tsv (also .gz) or .parquet")


def _header(path: Path, delimiter: str) -> list[str]:
    with pa.input_stream(path, compression="detect") as stream, TextIOWrapper(stream, "utf-8-sig", newline="") as text:
        return next(reader(text, delimiter=delimiter), [])


def _check_columns(path: Path, names: Sequence[str]) -> None:
    """Raise ``InputError`` for a missing column, or a duplicate one, since nothing tells which of the two is meant."""
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        present = ", ".join(names) or "none"
        raise InputError(f"{path} has no column {' or '.join(missing)}; it has {present}: rename those meant")
    for name in COLUMNS:
        if names.count(name) > 1:
            raise InputError(f"{path} has {names.count(name)} columns named {name}; remove or rename all but one")


def _check(path: Path, first_row: int, column: str, identifiers: pa.ChunkedArray) -> None:
    """Raise ``InputError`` for the first identifier that no store can hold."""
    lengths = pc.binary_length(identifiers).to_numpy()
    for place in np.flatnonzero((lengths == 0) | (lengths > MAX_IDENTIFIER_BYTES)).tolist():
        shown = identifiers[place].as_py()[:64]
        raise InputError(
            f"{path}, row {first_row + place}: {column} {shown!r} has {lengths[place]} bytes; 1 to "
            f"{MAX_IDENTIFIER_BYTES} are allowed"
        )


def _digest(user: str) -> int:
    return int.from_bytes(blake2b(user.encode(), digest_size=8).digest(), "big")
