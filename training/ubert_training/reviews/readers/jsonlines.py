"""JSON lines: one object per line."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ubert_training.errors import ReviewFileError
from ubert_training.reviews.readers.records import (
    BadLine,
    Fields,
    Reason,
    Record,
    check_length,
    decode,
    nonblank_lines,
    open_source,
)

LINES_FOR_HEADER = 1000
"""More than one, because a record may lack some of the fields."""


class JsonLinesReader:
    """Reads plain or gzip files of JSON objects, one per line."""

    def records(self, path: Path, skip: int) -> Iterator[Record]:
        with open_source(path) as source:
            for number, line in islice(nonblank_lines(source.stream), skip, None):
                yield Record(line=number, raw=line, fields=parse_object(line), position=source.position)

    def header(self, path: Path) -> list[str]:
        """The field names in the first lines. Raises ``ReviewFileError``, also if there are none."""
        names: dict[str, None] = {}
        for record in islice(self.records(path, 0), LINES_FOR_HEADER):
            if not isinstance(record.fields, BadLine):
                names |= dict.fromkeys(record.fields)
        if not names:
            raise ReviewFileError(f"{path} has no JSON object with a field in its first {LINES_FOR_HEADER} lines")
        return list(names)


def parse_object(line: bytes) -> Fields | BadLine:
    """Parse one line as a JSON object; returns the reason if it is not one."""
    try:
        check_length(line)
        parsed = json.loads(decode(line))
    except BadLine as bad_line:
        return bad_line
    except (ValueError, RecursionError) as error:
        return BadLine(Reason.BROKEN_JSON, str(error))
    if not isinstance(parsed, dict):
        return BadLine(Reason.BROKEN_JSON, f"a line must hold an object, not {type(parsed).__name__}")
    return parsed
