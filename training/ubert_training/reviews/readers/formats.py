"""The known formats: which reader reads each, what its fields are called, and how a file's format is told."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from ubert_model.errors import ConfigError, ReviewFileError
from ubert_training.reviews.readers.columnar import ParquetReader
from ubert_training.reviews.readers.delimited import DelimitedReader
from ubert_training.reviews.readers.jsonlines import JsonLinesReader, parsed_object
from ubert_training.reviews.readers.records import BadLine, Fields, RecordReader, filled_lines, open_source

PARQUET_MAGIC = b"PAR1"
LINES_TO_TELL_BY = 1000
CSV_SEPARATORS = (",", ";", "\t")
"""A spreadsheet writes semicolons where the comma is the decimal sign."""

Column = Literal["user", "item", "rating", "text", "title", "timestamp", "domain"]
COLUMNS: tuple[Column, ...] = ("user", "item", "rating", "text", "title", "timestamp", "domain")
REQUIRED_COLUMNS: tuple[Column, ...] = ("user", "item", "rating", "text")


class FormatName(StrEnum):
    """The formats of review files."""

    AMAZON_2014 = "amazon-2014"
    AMAZON_2018 = "amazon-2018"
    AMAZON_2023 = "amazon-2023"
    YELP = "yelp"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"


TABULAR = frozenset({FormatName.CSV, FormatName.TSV, FormatName.PARQUET})


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the columns of the review table are called in a file; of several names the first present counts.

    ``optional`` columns may be absent from a record: an absent text is empty, an absent time unknown.
    """

    names: Mapping[Column, tuple[str, ...]]
    optional: frozenset[Column] = frozenset({"title", "timestamp", "domain"})
    html_entities: bool = False
    """Texts are written with HTML entities ("&#34;"), as Amazon's are; they are read as characters."""


AMAZON_NAMES: Mapping[Column, tuple[str, ...]] = {
    "user": ("reviewerID",),
    "item": ("asin",),
    "rating": ("overall",),
    "text": ("reviewText",),
    "title": ("summary",),
    "timestamp": ("unixReviewTime",),
}
LAYOUTS: Mapping[FormatName, Layout] = {
    FormatName.AMAZON_2014: Layout(names=AMAZON_NAMES, html_entities=True),
    FormatName.AMAZON_2018: Layout(
        names=AMAZON_NAMES, optional=frozenset({"title", "timestamp", "domain", "text"}), html_entities=True
    ),
    FormatName.AMAZON_2023: Layout(
        names={
            "user": ("user_id",),
            # The variants of one product have one parent: reviews of it are reviews of one item.
            "item": ("parent_asin", "asin"),
            "rating": ("rating",),
            "text": ("text",),
            "title": ("title",),
            "timestamp": ("timestamp",),
        },
        html_entities=True,
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
    """How to read one file."""

    name: FormatName
    reader: RecordReader
    layout: Layout


def open_format(path: Path, name: FormatName | None, columns: Mapping[str, str]) -> ReviewFormat:
    """Tell how to read ``path``; ``columns`` maps columns of the review table to those of a tabular file.

    Raises ``ReviewFileError`` where the format cannot be told or a tabular file lacks a column,
    ``ConfigError`` for a mapping that does not fit.
    """
    name = name or detect_format(path)
    if name not in TABULAR:
        if columns:
            raise ConfigError(f"{path} is read as {name}, whose fields are known: leave out the column mapping")
        return ReviewFormat(name=name, reader=JsonLinesReader(), layout=LAYOUTS[name])
    return _open_tabular(path, name, _checked_columns(columns))


def detect_format(path: Path) -> FormatName:
    """Tell the format of ``path`` from its name and its first good line. Raises ``ReviewFileError``."""
    suffixes = {suffix.lower() for suffix in path.suffixes}
    for name in (FormatName.PARQUET, FormatName.CSV, FormatName.TSV):
        if f".{name}" in suffixes:
            return name
    with open_source(path) as source:
        lines = [line for _, line in itertools.islice(filled_lines(source.stream), LINES_TO_TELL_BY)]
    if not lines:
        raise ReviewFileError(f"{path} is empty")
    if lines[0].startswith(PARQUET_MAGIC):
        return FormatName.PARQUET
    parsed = [parsed_object(line) for line in lines]
    for fields in parsed:
        if not isinstance(fields, BadLine) and (told := _json_format(fields)):
            return told
    if all(isinstance(fields, BadLine) for fields in parsed) and not suffixes & {".json", ".jsonl"}:
        for separator, name in ((b"\t", FormatName.TSV), (b",", FormatName.CSV), (b";", FormatName.CSV)):
            if separator in lines[0]:
                return name
    beginning = lines[0][:80].decode(errors="replace")
    remedy = f"name it with --format ({', '.join(FormatName)})"
    if lines[0].lstrip().startswith(b"["):
        remedy = "a JSON array is not read, write an object a line, as jq -c '.[]' FILE does"
    raise ReviewFileError(
        f"the format of {path} cannot be told from its first {len(lines)} lines (line 1 begins {beginning!r}): {remedy}"
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
        raise ConfigError(f"no column {', '.join(unknown)} in a review table: map {', '.join(COLUMNS)}")
    return {column: columns[column] for column in COLUMNS if column in columns}


def _open_tabular(path: Path, name: FormatName, columns: Mapping[Column, str]) -> ReviewFormat:
    """A column that is not mapped is looked for under its own name."""
    delimited = _csv_reader(path) if name is FormatName.CSV else DelimitedReader(separator="\t", quoted=False)
    header = ParquetReader(columns=()).header(path) if name is FormatName.PARQUET else delimited.header(path)
    if not header:
        raise ReviewFileError(f"{path} is empty: its first line has to name the columns")
    present = {column: columns.get(column, column) for column in COLUMNS}
    present = {column: there for column, there in present.items() if there in header}
    lacking = [column for column in COLUMNS if column not in present and column in (*REQUIRED_COLUMNS, *columns)]
    if lacking:
        wanted = ", ".join(f"{column}={columns.get(column, column)}" for column in lacking)
        raise ReviewFileError(
            f"{path} has no column for {wanted}; its columns are {', '.join(header)}: "
            "map them, as in --columns user=reviewer,item=sku,rating=stars,text=body"
        )
    ambiguous = sorted({there for there in present.values() if header.count(there) > 1})
    if ambiguous:
        raise ReviewFileError(f"{path} has several columns named {', '.join(ambiguous)}: rename all but one")
    reader = ParquetReader(columns=tuple(present.values())) if name is FormatName.PARQUET else delimited
    layout = Layout(names={column: (there,) for column, there in present.items()})
    return ReviewFormat(name=name, reader=reader, layout=layout)


def _csv_reader(path: Path) -> DelimitedReader:
    """With the separator that divides the header line; a review has more than one column."""
    readers = [DelimitedReader(separator=separator, quoted=True) for separator in CSV_SEPARATORS]
    return next((reader for reader in readers if len(reader.header(path)) > 1), readers[0])
