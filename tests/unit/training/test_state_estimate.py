"""Estimating the size of states from a sample of texts."""

import pytest

from support.tiny_tokenizer import CountingTokenizer
from ubert_model.states import Namespace, make_codec
from ubert_training.states import state_estimate
from ubert_training.states.state_estimate import estimate_states

CODEC = make_codec(Namespace(version="0" * 16, encoder_digest="", codec="int8", state_dim=4, max_length=16))
TEXTS = ["good strings", "", "sounds great, works", "bad", "a case", "the guitar", "fine"]


def test_an_estimate_tokenizes_its_texts_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer's output for the whole sample took most of a gigabyte."""
    tokenizer = CountingTokenizer(16)
    whole = estimate_states(TEXTS, range(len(TEXTS)), tokenizer, CODEC, tokens_a_row=2)
    tokenizer.batch_sizes.clear()
    monkeypatch.setattr(state_estimate, "TEXTS_PER_BATCH", 3)
    assert estimate_states(TEXTS, range(len(TEXTS)), tokenizer, CODEC, tokens_a_row=2) == whole
    assert tokenizer.batch_sizes == [3, 3, 1]
