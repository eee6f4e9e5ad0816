"""How many words of a short review task 1 hides: the nearest number to the share, and at least one."""

import numpy as np
import pytest

from support.tiny_tokenizer import tiny_tokenizer_json
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.pretraining.masking import Masker, MaskingStrategy


@pytest.mark.parametrize(
    ("strategy", "words", "hidden"),
    [("opinion", 1, 1), ("opinion", 3, 2), ("opinion", 7, 4), ("random", 1, 1), ("random", 12, 2), ("random", 16, 2)],
)
def test_the_number_of_hidden_words_is_rounded_and_not_cut(strategy: MaskingStrategy, words: int, hidden: int) -> None:
    tokenizer, text = ReviewTokenizer(tiny_tokenizer_json(), 96), " ".join(["good"] * words)
    masker = Masker(tokenizer, frozenset({"good"}), strategy)
    maskable = masker.maskable([text])[0]
    assert len(maskable) == words
    _, predicted = masker.mask(np.array(tokenizer.encode([text])[0]), maskable, np.random.default_rng(0))
    assert sum(predicted[start] for start, _ in maskable) == hidden
