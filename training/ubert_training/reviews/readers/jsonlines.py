"""JSON lines: one object a line."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ubert_model.errors import ReviewFileError
from ubert_training.reviews.readers.records import (
    BadLine,
    Fields,
    Reason,
    Record,
    check_length,
    decoded,
    filled_lines,
    open_source,
)

LINES_OF_NAMES = 1000
"""A record may lack some fields, so the first alone does not tell what there are."""


class JsonLinesReader:
    """Reads plain or gzip files of JSON objects, one a line."""

    def records(self, path: Path, skip: int) -> Iterator[Record]:
        with open_source(path) as source:
            for number, line in islice(filled_lines(source.stream), skip, None):
                yield Record(line=number, raw=line, fields=parsed_object(line), position=source.position)

    def header(self, path: Path) -> list[str]:
        """The names of the fields of the first lines. Raises ``ReviewFileError``, also where they have none."""
        names: dict[str, None] = {}
        for record in islice(self.records(path, 0), LINES_OF_NAMES):
            if not isinstance(record.fields, BadLine):
                names |= dict.fromkeys(record.fields)
        if not names:
            raise ReviewFileError(f"{path} has no JSON object with a field in its first {LINES_OF_NAMES} lines")
        return list(names)


def parsed_object(line: bytes) -> Fields | BadLine:
    """Parse one line as a JSON object, or say why it is none."""
    try:
        check_length(line)
        parsed = json.loads(decoded(line))
    except BadLine as verdict:
        return verdict
    except (ValueError, RecursionError) as error:
        return BadLine(Reason.BROKEN_JSON, str(error))
    if not isinstance(parsed, dict):
        return BadLine(Reason.BROKEN_JSON, f"a line must hold an object, not {type(parsed).__name__}")
    return parsed
