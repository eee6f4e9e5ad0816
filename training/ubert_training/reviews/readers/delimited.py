"""CSV and TSV with a header line.

CSV is quoted as in RFC 4180, so a record may span lines; its separator may be another than the comma. TSV has no
quoting at all: one line is one record.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ubert_model.errors import ReviewFileError
from ubert_training.reviews.readers.records import (
    REMEDIES,
    BadLine,
    Fields,
    Reason,
    Record,
    Source,
    check_length,
    decoded,
    filled_lines,
    numbered_lines,
    open_source,
)

SEPARATOR_LINE = re.compile(rb"sep=.", re.IGNORECASE)
"""What may stand above the names of the columns, for Excel."""

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
        """The names of the columns; empty for an empty file. Raises ``ReviewFileError``."""
        with open_source(path) as source:
            return _names(path, self._rows(source))

    def _rows(self, source: Source) -> Iterator["_Row"]:
        if self.quoted:
            return self._quoted_rows(numbered_lines(source.stream))
        return map(self._plain_row, filled_lines(source.stream))

    def _plain_row(self, numbered: NumberedLine) -> "_Row":
        number, line = numbered
        try:
            check_length(line)
            cells: list[str] | BadLine = decoded(line).split(self.separator)
        except BadLine as verdict:
            cells = verdict
        return _Row(line=number, raw=line, cells=cells)

    def _quoted_rows(self, lines: Iterator[NumberedLine]) -> Iterator["_Row"]:
        """Read rows that may span lines.

        A quote that is never closed would swallow the rows after it, so a broken row costs its first line
        alone: the lines read in vain are read again.
        """
        again: deque[NumberedLine] = deque()
        while True:
            taken: list[NumberedLine] = []
            cells = self._next_cells(_drained(again, lines), taken)
            if not taken:
                return
            if isinstance(cells, BadLine):
                again.extendleft(reversed(taken[1:]))
                taken = taken[:1]
            if cells:  # a blank line between rows has none
                yield _Row(line=taken[0][0], raw=b"\n".join(line for _, line in taken), cells=cells)

    def _next_cells(self, lines: Iterator[NumberedLine], taken: list[NumberedLine]) -> list[str] | BadLine:
        def texts() -> Iterator[str]:
            for number, line in lines:
                taken.append((number, line))
                check_length(line)
                yield decoded(line) + "\n"

        try:
            return next(csv.reader(texts(), delimiter=self.separator, strict=True), [])
        except BadLine as verdict:
            return verdict
        except csv.Error as error:
            return BadLine(Reason.BROKEN_ROW, str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    line: int
    raw: bytes
    cells: list[str] | BadLine


def _names(path: Path, rows: Iterator[_Row]) -> list[str]:
    """The names of the columns, without white space around them; reads as far as the line that has them."""
    header = next(rows, None)
    if header is not None and SEPARATOR_LINE.fullmatch(header.raw):
        header = next(rows, None)
    if header is None:
        return []
    if b"\r" in header.raw:
        raise ReviewFileError(
            f"{path} ends its lines with carriage returns alone: convert it, as tr '\\r' '\\n' < FILE > CONVERTED does"
        )
    if isinstance(header.cells, BadLine):
        remedy = REMEDIES.get(header.cells.reason, "name the columns in the first line")
        raise ReviewFileError(f"{path} has no readable header line: {header.cells}; {remedy}")
    return [name.strip() for name in header.cells]


def _drained(again: deque[NumberedLine], lines: Iterator[NumberedLine]) -> Iterator[NumberedLine]:
    while again:
        yield again.popleft()
    for numbered in lines:  # noqa: UP028 - `yield from` would close `lines` when this iterator is dropped
        yield numbered


def _named(header: list[str], cells: list[str] | BadLine) -> Fields | BadLine:
    if isinstance(cells, BadLine):
        return cells
    if len(cells) != len(header):
        return BadLine(Reason.BROKEN_ROW, f"{len(cells)} cells under {len(header)} column names")
    return dict(zip(header, cells, strict=True))
