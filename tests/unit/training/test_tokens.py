"""All reviews of a table as word piece ids."""

import numpy as np
import pytest

from support.tiny_tokenizer import CountingTokenizer
from ubert_training.states import tokens
from ubert_training.states.tokens import TokenizedReviews

TEXTS = ["good strings", "", "sounds great, works", "bad", "a case", "the guitar", "fine"]


def test_few_texts_at_a_time_are_tokenized_and_all_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tokenizer makes of a text is some fifty times its ids: of all at once, tens of gigabytes."""
    tokenizer = CountingTokenizer(16)
    whole = tokenizer.encode(TEXTS)
    tokenizer.asked.clear()
    monkeypatch.setattr(tokens, "TEXTS_PER_BATCH", 3)
    found = TokenizedReviews.of(TEXTS, tokenizer)
    assert tokenizer.asked == [3, 3, 1]
    assert [found.review(row).tolist() for row in range(len(TEXTS))] == whole
    assert (found.ids.dtype, found.starts.dtype) == (np.int32, np.int64)
    assert len(TokenizedReviews.of([], tokenizer)) == 0
