"""Masking (task 1): which tokens pre-training hides, and what the encoder sees instead."""

import re
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ubert_model.running.batches import batches
from ubert_model.tokenizer import TEXTS_PER_BATCH, ReviewTokenizer
from ubert_training.ragged import RaggedArray

MaskingStrategy = Literal["opinion", "random", "none"]

WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")
"""A word as lexicons write it, hyphens and apostrophes included ("well-made", "don't")."""

OPINION_SHARE = 0.5  # the paper's
RANDOM_SHARE = 0.15  # BERT's share of words, for the ablation of Table 3
SHOW_MASK, SHOW_RANDOM = 0.8, 0.1  # BERT's 80/10/10


class Masker:
    """Masks half of a review's opinion words (or, for the ablation, 15% of all words; or none).

    All word pieces of a chosen word are predicted. Of the chosen words 80% are shown as [MASK], 10% as random word
    pieces, 10% unchanged. All draws come from the caller's generator.
    """

    def __init__(self, tokenizer: ReviewTokenizer, lexicon: frozenset[str], strategy: MaskingStrategy) -> None:
        self._tokenizer = tokenizer
        self._lexicon = lexicon
        self.strategy = strategy
        self.share = RANDOM_SHARE if strategy == "random" else OPINION_SHARE
        self._mask_id = tokenizer.token_id("[MASK]")
        special = {tokenizer.token_id(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
        self._ordinary = np.array([i for i in range(tokenizer.vocabulary_size) if i not in special])

    def maskable(self, texts: Sequence[str]) -> RaggedArray:
        """The words of each review that may be masked, as token spans (start, stop): (W, 2) each."""
        flat = array("q")
        ends = [0]
        for batch in batches(texts, TEXTS_PER_BATCH):
            stripped = [text.strip() for text in batch]
            words = [self._words(text) for text in stripped]
            with_words = [text for text, found in zip(stripped, words, strict=True) if found]
            characters = iter(self._tokenizer.character_spans_of(with_words))
            for found in words:
                if found:
                    flat.extend(chain.from_iterable(_token_spans(found, next(characters))))
                ends.append(len(flat) // 2)
        return RaggedArray(values=np.array(flat, dtype=np.int64).reshape(-1, 2), starts=np.array(ends, dtype=np.int64))

    def _words(self, text: str) -> list[tuple[int, int]]:
        """Character spans of the words that the strategy may mask."""
        if self.strategy == "none":
            return []
        return [
            match.span()
            for match in WORD.finditer(text)
            if self.strategy == "random" or match.group().lower().replace("’", "'") in self._lexicon
        ]

    def mask(
        self, token_ids: NDArray[np.int64], maskable: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Token ids as shown to the encoder, and which positions it must reconstruct: both (L,).

        Shape:
            maskable: (W, 2), the review's entry of :meth:`maskable`.
        """
        shown = token_ids.copy()
        predicted = np.zeros(len(token_ids), dtype=bool)
        words = len(maskable)
        if not words:
            return shown, predicted
        chosen = rng.choice(words, size=max(1, round(self.share * words)), replace=False)
        for start, stop in maskable[np.sort(chosen)]:
            predicted[start:stop] = True
            draw = rng.random()
            if draw < SHOW_MASK:
                shown[start:stop] = self._mask_id
            elif draw < SHOW_MASK + SHOW_RANDOM:
                shown[start:stop] = rng.choice(self._ordinary, size=stop - start)
        return shown, predicted


def _token_spans(words: Sequence[tuple[int, int]], characters: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Character spans of words → token spans; words that the length limit cuts off are left out.

    ``characters``: each token's span of characters; special tokens have empty ones. Both sequences ascend, so one pass
    over the tokens serves all words.
    """
    spans: list[tuple[int, int]] = []
    token = 0
    for begin, end in words:
        while token < len(characters) and (characters[token][1] <= begin or _is_special(characters[token])):
            token += 1
        stop = token
        while stop < len(characters) and not _is_special(characters[stop]) and characters[stop][0] < end:
            stop += 1
        if stop > token and characters[stop - 1][1] >= end:
            spans.append((token, stop))
        token = stop
    return spans


def _is_special(span: tuple[int, int]) -> bool:
    return span[0] == span[1]
