"""Token batches for the encoder: every review once and whole, whatever window and batch it falls into."""

import numpy as np
import pytest

from support.small_corpus import small_table
from support.tiny_tokenizer import tiny_tokenizer_json
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.states.token_batches import token_batches


def test_every_review_is_in_one_batch_with_its_own_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ubert_training.states.token_batches.REVIEWS_PER_WINDOW", 7)
    monkeypatch.setattr("ubert_training.states.token_batches.TOKENS_PER_BATCH", 60)
    texts, tokenizer = small_table(users=10).text, ReviewTokenizer(tiny_tokenizer_json(), 16)
    rows = np.arange(1, len(texts), 2)
    assert len(rows) > 2 * 7
    batches = list(token_batches(texts, rows, tokenizer))
    assert sorted(row for batch in batches for row in batch.rows.tolist()) == rows.tolist()
    for batch in batches:
        ids = [padded[mask].tolist() for padded, mask in zip(batch.token_ids, batch.mask, strict=True)]
        assert ids == tokenizer.encode([texts[row] for row in batch.rows.tolist()])
        assert batch.lengths.tolist() == [len(review_ids) for review_ids in ids]
        assert batch.tokens == sum(map(len, ids))
