"""CSV and TSV with a header line.

CSV is quoted as in RFC 4180, so a record may span lines; the separator need not be a comma. TSV has no quoting: one
line is one record.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ubert_training.errors import ReviewFileError
from ubert_training.reviews.readers.records import (
    MAX_LINE_BYTES,
    REMEDIES,
    BadLine,
    Fields,
    Reason,
    Record,
    Source,
    check_length,
    decode,
    nonblank_lines,
    numbered_lines,
    open_source,
)

SEPARATOR_LINE = re.compile(rb"sep=.", re.IGNORECASE)
"""A line for Excel that may precede the header line."""

NumberedLine = tuple[int, bytes]


@dataclass(frozen=True, kw_only=True)
class DelimitedReader:
    """Reads plain or gzip files whose first line names the columns."""

    separator: str
    quoted: bool

    def records(self, path: Path, skip: int) -> Iterator[Record]:
        with open_source(path) as source:
            rows = self._rows(source)
            header = _names(path, rows)
            for row in islice(rows, skip, None):
                yield Record(
                    line=row.line,
                    raw=row.raw,
                    fields=_named(header, row.cells),
                    position=source.position,
                )

    def header(self, path: Path) -> list[str]:
        """The column names; empty for an empty file. Raises ``ReviewFileError``."""
        with open_source(path) as source:
            return _names(path, self._rows(source))

    def _rows(self, source: Source) -> Iterator["_Row"]:
        if self.quoted:
            return self._quoted_rows(numbered_lines(source.stream))
        return map(self._plain_row, nonblank_lines(source.stream))

    def _plain_row(self, numbered: NumberedLine) -> "_Row":
        number, line = numbered
        try:
            check_length(line)
            cells: list[str] | BadLine = decode(line).split(self.separator)
        except BadLine as bad_line:
            cells = bad_line
        return _Row(line=number, raw=line, cells=cells)

    def _quoted_rows(self, lines: Iterator[NumberedLine]) -> Iterator["_Row"]:
        """Read rows that may span lines.

        A quote that is never closed would swallow the rows after it. So only the first line of a broken row is
        rejected, and the lines after it are read again.
        """
        csv.field_size_limit(MAX_LINE_BYTES)  # for the whole process; Python's own limit is 128 KiB
        pushed_back: deque[NumberedLine] = deque()
        while True:
            consumed: list[NumberedLine] = []
            cells = self._next_cells(_pushed_back_first(pushed_back, lines), consumed)
            if not consumed:
                return
            if isinstance(cells, BadLine):
                pushed_back.extendleft(reversed(consumed[1:]))
                consumed = consumed[:1]
            if any(line.strip() for _, line in consumed):
                yield _Row(line=consumed[0][0], raw=b"\n".join(line for _, line in consumed), cells=cells)

    def _next_cells(self, lines: Iterator[NumberedLine], consumed: list[NumberedLine]) -> list[str] | BadLine:
        """The cells of the next row; the lines that it spans are appended to ``consumed``."""

        def texts() -> Iterator[str]:
            for number, line in lines:
                consumed.append((number, line))
                check_length(line)
                yield decode(line) + "\n"

        try:
            return next(csv.reader(texts(), delimiter=self.separator, strict=True), [])
        except BadLine as bad_line:
            return bad_line
        except csv.Error as error:
            return BadLine(Reason.BROKEN_ROW, str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    line: int
    raw: bytes
    cells: list[str] | BadLine


def _names(path: Path, rows: Iterator[_Row]) -> list[str]:
    """Read the header line: the column names, stripped of white space."""
    header = next(rows, None)
    if header is not None and SEPARATOR_LINE.fullmatch(header.raw):
        header = next(rows, None)
    if header is None:
        return []
    if b"\r" in header.raw:
        raise ReviewFileError(
            f"{path} ends its lines with carriage returns alone: convert it, as with tr '\\r' '\\n' < FILE > CONVERTED"
        )
    if isinstance(header.cells, BadLine):
        remedy = REMEDIES.get(header.cells.reason, "name the columns in the first line")
        raise ReviewFileError(f"{path} has no readable header line: {header.cells}; {remedy}")
    return [name.strip() for name in header.cells]


def _pushed_back_first(pushed_back: deque[NumberedLine], lines: Iterator[NumberedLine]) -> Iterator[NumberedLine]:
    while pushed_back:
        yield pushed_back.popleft()
    for numbered in lines:  # noqa: UP028 - `yield from` would close `lines` when this iterator is dropped
        yield numbered


def _named(header: list[str], cells: list[str] | BadLine) -> Fields | BadLine:
    if isinstance(cells, BadLine):
        return cells
    if len(cells) != len(header):
        return BadLine(Reason.BROKEN_ROW, f"{len(cells)} cells under {len(header)} column names")
    return dict(zip(header, cells, strict=True))
