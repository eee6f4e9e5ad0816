"""Rejected lines: each is kept with its file, line number, reason and bytes (law 8)."""

import base64
import json
from pathlib import Path

from ubert_training.reviews.readers.records import BadLine, Record

MAX_KEPT_BYTES = 4096


def reject_line(path: Path, record: Record, bad_line: BadLine) -> str:
    """Render one line of ``rejects.jsonl``.

    ``raw`` holds the line as text; if it is not UTF-8, ``raw_base64`` holds its bytes instead. Only the first 4,096
    bytes are kept; ``raw_bytes`` is the length of the whole line.
    """
    rejected: dict[str, object] = {
        "file": path.name,
        "line": record.line,
        "reason": bad_line.reason,
        "detail": bad_line.detail,
        "raw_bytes": len(record.raw),
    }
    kept = record.raw[:MAX_KEPT_BYTES]
    try:
        rejected["raw"] = kept.decode()
    except UnicodeDecodeError:
        rejected["raw_base64"] = base64.b64encode(kept).decode()
    return json.dumps(rejected, ensure_ascii=True) + "\n"
