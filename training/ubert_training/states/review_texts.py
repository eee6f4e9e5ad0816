"""`ubert precompute --texts`: what explanations show of the reviews, beside their states."""

import numpy as np
from numpy.typing import NDArray

from ubert_model.states import StateStore
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.reviews.table import ReviewTable

TEXTS_A_BATCH = 1_000


def write_texts(
    table: ReviewTable, rows: NDArray[np.int64], tokenizer: ReviewTokenizer, store: StateStore, version: str
) -> int:
    """Keep the texts at ``rows`` as far as the encoder reads them, of the reviews that the store has: none of one that
    was removed. How many have words. May be repeated.
    """
    written = 0
    for start in range(0, len(rows), TEXTS_A_BATCH):
        batch = rows[start : start + TEXTS_A_BATCH].tolist()
        absences = store.missing(version, [table.entry(row, 0) for row in batch])
        there = [row for row, absent in zip(batch, absences, strict=True) if not absent]
        parts = tokenizer.read_parts([table.text[row] for row in there])
        worded = [(table.review_id[row], part) for row, part in zip(there, parts, strict=True) if part]
        store.put_texts(version, worded)
        written += len(worded)
    return written
