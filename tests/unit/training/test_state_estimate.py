"""How large states will be, before any is made."""

import pytest

from support.tiny_tokenizer import CountingTokenizer
from ubert_model.states import Namespace, make_codec
from ubert_training.states import state_estimate
from ubert_training.states.state_estimate import estimate_states

CODEC = make_codec(Namespace(version="0" * 16, encoder_digest="", codec="int8", state_dim=4, max_length=16))
TEXTS = ["good strings", "", "sounds great, works", "bad", "a case", "the guitar", "fine"]


def test_few_texts_at_a_time_are_tokenized_for_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the whole sample at once, what the tokenizer makes came to most of a gigabyte."""
    tokenizer = CountingTokenizer(16)
    whole = estimate_states(TEXTS, range(len(TEXTS)), tokenizer, CODEC, tokens_a_row=2)
    tokenizer.asked.clear()
    monkeypatch.setattr(state_estimate, "TEXTS_PER_BATCH", 3)
    assert estimate_states(TEXTS, range(len(TEXTS)), tokenizer, CODEC, tokens_a_row=2) == whole
    assert tokenizer.asked == [3, 3, 1]
