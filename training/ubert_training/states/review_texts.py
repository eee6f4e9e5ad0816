"""`ubert precompute --texts`: storing the texts that explanations show."""

import numpy as np
from numpy.typing import NDArray

from ubert_model.states import MaintenanceStore
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.reviews.table import ReviewTable

TEXTS_A_BATCH = 1_000


def write_texts(
    table: ReviewTable, rows: NDArray[np.int64], tokenizer: ReviewTokenizer, store: MaintenanceStore, version: str
) -> int:
    """Store the texts of the reviews at ``rows``, as far as the encoder reads them. Idempotent.

    Reviews that the store lacks, such as removed ones, are skipped, and so are empty texts. Returns how many were
    stored.
    """
    written = 0
    for start in range(0, len(rows), TEXTS_A_BATCH):
        batch = rows[start : start + TEXTS_A_BATCH].tolist()
        is_missing = store.missing(version, [table.entry(row, 0) for row in batch])
        stored = [row for row, missing in zip(batch, is_missing, strict=True) if not missing]
        parts = tokenizer.read_parts([table.text[row] for row in stored])
        texts = [(table.review_id[row], part) for row, part in zip(stored, parts, strict=True) if part]
        store.put_texts(version, texts)
        written += len(texts)
    return written
