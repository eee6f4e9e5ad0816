"""Lines that were set aside: each is kept with its place, its reason and its bytes (law 8)."""

import base64
import json
from pathlib import Path

from ubert_training.reviews.readers.records import BadLine, Record

MAX_KEPT_BYTES = 4096


def reject_line(path: Path, record: Record, verdict: BadLine) -> str:
    """Render one line of ``rejects.jsonl``.

    ``raw`` holds the line as text, or ``raw_base64`` its bytes where they are no UTF-8. Of a long line the
    first 4,096 bytes are kept; ``raw_bytes`` is its whole length.
    """
    rejected: dict[str, object] = {
        "file": path.name,
        "line": record.line,
        "reason": verdict.reason,
        "detail": verdict.detail,
        "raw_bytes": len(record.raw),
    }
    kept = record.raw[:MAX_KEPT_BYTES]
    try:
        rejected["raw"] = kept.decode()
    except UnicodeDecodeError:
        rejected["raw_base64"] = base64.b64encode(kept).decode()
    return json.dumps(rejected, ensure_ascii=True) + "\n"
