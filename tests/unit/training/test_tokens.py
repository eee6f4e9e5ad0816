"""Tokenization of all reviews of a table."""

import pytest

from support.tiny_tokenizer import CountingTokenizer
from ubert_training.states import tokens as tokens_module
from ubert_training.states.tokens import TokenizedReviews

TEXTS = ["good strings", "", "sounds great, works", "bad", "a case", "the guitar", "fine"]


def test_texts_are_tokenized_in_batches_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer's output takes some fifty times the memory of the ids: tens of gigabytes for a large table."""
    tokenizer = CountingTokenizer(16)
    expected = tokenizer.encode(TEXTS)
    tokenizer.batch_sizes.clear()
    monkeypatch.setattr(tokens_module, "TEXTS_PER_BATCH", 3)
    tokens = TokenizedReviews.of(TEXTS, tokenizer)
    assert tokenizer.batch_sizes == [3, 3, 1]
    assert [tokens.review(row).tolist() for row in range(len(TEXTS))] == expected
    assert (tokens.ids.dtype.name, tokens.starts.dtype.name) == ("int32", "int64")
    assert len(TokenizedReviews.of([], tokenizer)) == 0
