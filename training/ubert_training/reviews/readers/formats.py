"""The known formats: the reader and the field names of each, and the detection of a file's format."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from ubert_model.errors import ConfigError
from ubert_training.errors import ReviewFileError
from ubert_training.reviews.readers.columnar import ParquetReader
from ubert_training.reviews.readers.delimited import DelimitedReader
from ubert_training.reviews.readers.jsonlines import JsonLinesReader, parse_object
from ubert_training.reviews.readers.records import (
    REMEDIES,
    BadLine,
    Fields,
    Reason,
    RecordReader,
    nonblank_lines,
    open_source,
)

PARQUET_MAGIC = b"PAR1"
LINES_FOR_DETECTION = 1000
CSV_SEPARATORS = (",", ";", "\t")
"""Spreadsheets write semicolons in countries with a decimal comma."""

Column = Literal["user", "item", "rating", "text", "title", "timestamp", "domain"]
COLUMNS: tuple[Column, ...] = ("user", "item", "rating", "text", "title", "timestamp", "domain")
REQUIRED_COLUMNS: tuple[Column, ...] = ("user", "item", "rating", "text")


class FormatName(StrEnum):
    """The formats of review files."""

    AMAZON_2014 = "amazon-2014"
    AMAZON_2018 = "amazon-2018"
    AMAZON_2023 = "amazon-2023"
    YELP = "yelp"
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"


MAPPED_FORMATS = frozenset({FormatName.JSONL, FormatName.CSV, FormatName.TSV, FormatName.PARQUET})
"""Formats without field names of their own: the caller maps the columns."""
SUFFIXES: Mapping[str, FormatName | None] = {
    ".parquet": FormatName.PARQUET,
    ".csv": FormatName.CSV,
    ".tsv": FormatName.TSV,
    ".json": None,
    ".jsonl": None,
    ".ndjson": None,
}
"""The format that a suffix names; None: one of those in JSON, which the fields tell apart."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The names of the review table's columns in a file; of several names the first one present is used.

    ``optional`` columns may be absent from a record: an absent text is empty, an absent time is unknown.
    """

    names: Mapping[Column, tuple[str, ...]]
    optional: frozenset[Column] = frozenset({"title", "timestamp", "domain"})
    html: bool = False
    """Texts contain HTML, as Amazon's do: its tags ("<br />") become spaces, its entities ("&#34;") characters."""


AMAZON_NAMES: Mapping[Column, tuple[str, ...]] = {
    "user": ("reviewerID",),
    "item": ("asin",),
    "rating": ("overall",),
    "text": ("reviewText",),
    "title": ("summary",),
    "timestamp": ("unixReviewTime",),
}
LAYOUTS: Mapping[FormatName, Layout] = {
    FormatName.AMAZON_2014: Layout(names=AMAZON_NAMES, html=True),
    FormatName.AMAZON_2018: Layout(
        names=AMAZON_NAMES, optional=frozenset({"title", "timestamp", "domain", "text"}), html=True
    ),
    FormatName.AMAZON_2023: Layout(
        names={
            "user": ("user_id",),
            # The variants of a product share one parent; their reviews count as reviews of one item.
            "item": ("parent_asin", "asin"),
            "rating": ("rating",),
            "text": ("text",),
            "title": ("title",),
            "timestamp": ("timestamp",),
        },
        html=True,
    ),
    FormatName.YELP: Layout(
        names={
            "user": ("user_id",),
            "item": ("business_id",),
            "rating": ("stars",),
            "text": ("text",),
            "timestamp": ("date",),
        }
    ),
}


@dataclass(frozen=True, kw_only=True)
class ReviewFormat:
    """How to read one file.

    ``absent`` are the columns of the review table that a file of no known layout lacks, ``unused`` its own that are not
    read.
    """

    name: FormatName
    reader: RecordReader
    layout: Layout
    absent: tuple[Column, ...] = ()
    unused: tuple[str, ...] = ()


def open_format(path: Path, name: FormatName | None, columns: Mapping[str, str]) -> ReviewFormat:
    """Choose how to read ``path``. ``columns`` maps columns of the review table to those of a file of no known layout.

    Raises ``ReviewFileError`` if the format cannot be detected or such a file lacks a column, ``ConfigError`` for a
    mapping that does not fit.
    """
    name = name or detect_format(path)
    if name not in MAPPED_FORMATS:
        if columns:
            raise ConfigError(
                f"{path} is read as {name}, whose fields are known: leave out the column mapping, or give --format "
                f"{FormatName.JSONL}"
            )
        return ReviewFormat(name=name, reader=JsonLinesReader(), layout=LAYOUTS[name])
    return _open_mapped(path, name, _checked_columns(columns))


def detect_format(path: Path) -> FormatName:
    """Detect the format of ``path`` by the last suffix that is a known one, and its first good line.

    Raises ``ReviewFileError``.
    """
    known = [suffix for suffix in map(str.lower, path.suffixes) if suffix in SUFFIXES]
    if known and (named := SUFFIXES[known[-1]]):
        return named
    with open_source(path) as source:
        lines = [line for _, line in itertools.islice(nonblank_lines(source.stream), LINES_FOR_DETECTION)]
    if not lines:
        raise ReviewFileError(f"{path} is empty")
    if lines[0].startswith(PARQUET_MAGIC):
        return FormatName.PARQUET
    parsed = [parse_object(line) for line in lines]
    for fields in parsed:
        if not isinstance(fields, BadLine) and (detected := _json_format(fields)):
            return detected
    if not all(isinstance(fields, BadLine) for fields in parsed):
        return FormatName.JSONL
    if not known:
        for separator, name in ((b"\t", FormatName.TSV), (b",", FormatName.CSV), (b";", FormatName.CSV)):
            if separator in lines[0]:
                return name
    beginning = lines[0][:80].decode(errors="replace")
    remedy = f"give it with --format ({', '.join(FormatName)})"
    if lines[0].lstrip().startswith(b"["):
        remedy = "JSON arrays are not supported, write one object per line, as with jq -c '.[]' FILE"
    elif lines[0].lstrip().startswith(b"{"):
        remedy = f"{REMEDIES[Reason.BROKEN_JSON]}; or {remedy}"
    raise ReviewFileError(
        f"cannot detect the format of {path} in its first {len(lines)} lines (line 1 begins {beginning!r}): {remedy}"
    )


def _json_format(fields: Fields) -> FormatName | None:
    names = fields.keys()
    if {"reviewerID", "asin", "overall"} <= names:
        return FormatName.AMAZON_2018 if {"verified", "vote"} & names else FormatName.AMAZON_2014
    if {"user_id", "rating"} <= names and {"parent_asin", "asin"} & names:
        return FormatName.AMAZON_2023
    if {"user_id", "business_id", "stars"} <= names:
        return FormatName.YELP
    return None


def _checked_columns(columns: Mapping[str, str]) -> dict[Column, str]:
    unknown = sorted(set(columns) - set(COLUMNS))
    if unknown:
        raise ConfigError(f"a review table has no column {', '.join(unknown)}: map {', '.join(COLUMNS)}")
    return {column: columns[column] for column in COLUMNS if column in columns}


def _open_mapped(path: Path, name: FormatName, columns: Mapping[Column, str]) -> ReviewFormat:
    """A format with the caller's column names. A column that is not mapped keeps its own name."""
    reader = _mapped_reader(path, name)
    header = reader.header(path)
    if not header:
        raise ReviewFileError(f"{path} is empty: its first line has to name the columns")
    names = {column: columns.get(column, column) for column in COLUMNS}
    missing = [column for column in COLUMNS if column in (*REQUIRED_COLUMNS, *columns) and names[column] not in header]
    if missing:
        expected = ", ".join(f"{column}={names[column]}" for column in missing)
        found, remedy = "its columns are", "map them, as in --columns user=reviewer,item=sku,rating=stars,text=body"
        if len(header) == 1:
            found = "it has a single one,"
            remedy = "name the columns in the first line, divided by commas, semicolons or tabs"
        raise ReviewFileError(f"{path} has no column for {expected}; {found} {', '.join(header)}: {remedy}")
    ambiguous = sorted({file_column for file_column in names.values() if header.count(file_column) > 1})
    if ambiguous:
        raise ReviewFileError(f"{path} has several columns named {', '.join(ambiguous)}: rename all but one")
    if isinstance(reader, ParquetReader):
        reader = ParquetReader(columns=[file_column for file_column in names.values() if file_column in header])
    layout = Layout(names={column: (file_column,) for column, file_column in names.items()})
    return ReviewFormat(
        name=name,
        reader=reader,
        layout=layout,
        absent=tuple(column for column in COLUMNS if names[column] not in header),
        unused=tuple(file_column for file_column in header if file_column not in names.values()),
    )


def _mapped_reader(path: Path, name: FormatName) -> JsonLinesReader | DelimitedReader | ParquetReader:
    """The reader of a file of no known layout."""
    if name is FormatName.JSONL:
        return JsonLinesReader()
    if name is FormatName.PARQUET:
        return ParquetReader(columns=())
    if name is FormatName.TSV:
        return DelimitedReader(separator="\t", quoted=False)
    # The first separator that divides the header line: a review has more than one column.
    readers = [DelimitedReader(separator=separator, quoted=True) for separator in CSV_SEPARATORS]
    return next((reader for reader in readers if len(reader.header(path)) > 1), readers[0])
