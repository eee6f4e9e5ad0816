"""Task 1: which tokens are hidden, and what is shown in their place."""

import numpy as np
import pytest

from support.tiny_tokenizer import SPECIAL_TOKENS, tiny_tokenizer_json
from ubert_model.tokenizer import ReviewTokenizer
from ubert_training.pretraining import masking
from ubert_training.pretraining.masking import Masker, MaskingStrategy
from ubert_training.weights.backbones import load_backbone

LEXICON = frozenset({"great", "terrible", "well-made", "beautiful"})


@pytest.fixture(scope="module")
def tokenizer() -> ReviewTokenizer:
    return ReviewTokenizer(load_backbone("random-tiny").tokenizer_json, 32)


def tokens_of(tokenizer: ReviewTokenizer, text: str) -> np.ndarray:
    return np.array(tokenizer.encode([text])[0], dtype=np.int64)


def words_at(text: str, tokenizer: ReviewTokenizer, spans: np.ndarray) -> list[str]:
    characters = tokenizer.character_spans(text)
    return [text[characters[start][0] : characters[stop - 1][1]] for start, stop in spans]


def test_only_opinion_words_are_maskable(tokenizer: ReviewTokenizer) -> None:
    text = "A Great strap, well-made and beautiful; not great-looking though"
    masker = Masker(tokenizer, LEXICON, "opinion")
    assert words_at(text, tokenizer, masker.maskable([text])[0]) == ["Great", "well-made", "beautiful"]


@pytest.mark.parametrize("apostrophe", "'’")
def test_a_word_is_found_with_either_apostrophe(tokenizer: ReviewTokenizer, apostrophe: str) -> None:
    text = f"It didn{apostrophe}t work"
    masker = Masker(tokenizer, frozenset({"didn't"}), "opinion")
    assert words_at(text, tokenizer, masker.maskable([text])[0]) == [f"didn{apostrophe}t"]


def test_all_word_pieces_of_a_word_are_hidden_together(tokenizer: ReviewTokenizer) -> None:
    text = "well-made"
    masker = Masker(tokenizer, LEXICON, "opinion")
    _, predicted = masker.mask(tokens_of(tokenizer, text), masker.maskable([text])[0], np.random.default_rng(0))
    assert predicted.tolist() == [False, True, True, True, False]  # [CLS] well - made [SEP]


def test_half_of_the_opinion_words_are_predicted_and_nothing_else_changes(tokenizer: ReviewTokenizer) -> None:
    text = "great great great great strap terrible terrible terrible terrible"
    masker = Masker(tokenizer, LEXICON, "opinion")
    ids = tokens_of(tokenizer, text)
    shown, predicted = masker.mask(ids, masker.maskable([text])[0], np.random.default_rng(3))
    assert predicted.sum() == 4
    assert (shown == ids)[~predicted].all()
    assert not predicted[5]  # "strap"


def test_of_the_hidden_words_80_percent_are_masked_10_replaced_and_10_unchanged() -> None:
    """A replaced word has a random piece for each of its own, and never a special token."""
    tokenizer, text = ReviewTokenizer(tiny_tokenizer_json(), 32), "well-made"
    masker = Masker(tokenizer, LEXICON, "opinion")
    ids, maskable = tokens_of(tokenizer, text), masker.maskable([text])[0]
    shown = np.array([masker.mask(ids, maskable, np.random.default_rng(seed))[0][1:-1] for seed in range(3000)])
    masked = (shown == tokenizer.token_id("[MASK]")).all(axis=1)
    unchanged = (shown == ids[1:-1]).all(axis=1)
    assert masked.mean() == pytest.approx(0.8, abs=0.03)
    assert unchanged.mean() == pytest.approx(0.1, abs=0.03)
    replaced = shown[~masked & ~unchanged]
    assert not np.isin(replaced, [tokenizer.token_id(token) for token in SPECIAL_TOKENS]).any()
    assert len(np.unique(replaced)) > 0.9 * (tokenizer.vocabulary_size - len(SPECIAL_TOKENS))
    assert (replaced[:, 0] != replaced[:, 1]).mean() > 0.9


@pytest.mark.parametrize(
    ("strategy", "text"), [("opinion", ""), ("opinion", "   "), ("opinion", "a strap for a guitar"), ("none", "great")]
)
def test_a_review_without_maskable_words_is_shown_unchanged(
    tokenizer: ReviewTokenizer, strategy: MaskingStrategy, text: str
) -> None:
    masker = Masker(tokenizer, LEXICON, strategy)
    ids = tokens_of(tokenizer, text)
    shown, predicted = masker.mask(ids, masker.maskable([text])[0], np.random.default_rng(0))
    assert not predicted.any()
    assert (shown == ids).all()


def test_words_beyond_the_length_limit_are_left_out() -> None:
    tokenizer = ReviewTokenizer(tiny_tokenizer_json(), 6)
    text = "the good the good the good the good"
    masker = Masker(tokenizer, frozenset({"good"}), "opinion")
    spans = masker.maskable([text])[0]
    assert spans.tolist() == [[2, 3], [4, 5]]


@pytest.mark.parametrize(("text", "spans"), [("great well-made", [[1, 2], [2, 5]]), ("great, well-made", [[1, 2]])])
def test_a_word_that_the_length_limit_cuts_in_two_is_left_out(text: str, spans: list[list[int]]) -> None:
    masker = Masker(ReviewTokenizer(tiny_tokenizer_json(), 6), LEXICON, "opinion")
    assert masker.maskable([text])[0].tolist() == spans


def test_random_masking_hides_fifteen_percent_of_all_words(tokenizer: ReviewTokenizer) -> None:
    text = " ".join(["strap"] * 20)
    masker = Masker(tokenizer, LEXICON, "random")
    _, predicted = masker.mask(tokens_of(tokenizer, text), masker.maskable([text])[0], np.random.default_rng(0))
    assert predicted.sum() == 3


def test_the_same_generator_masks_the_same_words(tokenizer: ReviewTokenizer) -> None:
    text = "great terrible great terrible beautiful"
    masker = Masker(tokenizer, LEXICON, "opinion")
    ids, maskable = tokens_of(tokenizer, text), masker.maskable([text])[0]
    first, second = (masker.mask(ids, maskable, np.random.default_rng(5)) for _ in range(2))
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()


def test_maskable_words_do_not_depend_on_the_batch_size_of_the_tokenizer(
    tokenizer: ReviewTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["great", "", "a plain strap", "  beautiful and terrible ", "well-made", "great great"]
    masker = Masker(tokenizer, LEXICON, "opinion")
    whole = masker.maskable(texts)
    monkeypatch.setattr(masking, "TEXTS_PER_BATCH", 2)
    batched = masker.maskable(texts)
    found = [
        words_at(text.strip(), tokenizer, batched[number]) if text.strip() else [] for number, text in enumerate(texts)
    ]
    assert found == [["great"], [], [], ["beautiful", "terrible"], ["well-made"], ["great", "great"]]
    assert len(batched.values) == 6
    np.testing.assert_array_equal(batched.values, whole.values)
    np.testing.assert_array_equal(batched.starts, whole.starts)


@pytest.mark.parametrize(
    ("strategy", "words", "hidden"),
    [("opinion", 1, 1), ("opinion", 3, 2), ("opinion", 7, 4), ("random", 1, 1), ("random", 12, 2), ("random", 16, 2)],
)
def test_the_number_of_hidden_words_is_rounded_and_at_least_one(
    strategy: MaskingStrategy, words: int, hidden: int
) -> None:
    tokenizer, text = ReviewTokenizer(tiny_tokenizer_json(), 96), " ".join(["good"] * words)
    masker = Masker(tokenizer, frozenset({"good"}), strategy)
    maskable = masker.maskable([text])[0]
    assert len(maskable) == words
    _, predicted = masker.mask(np.array(tokenizer.encode([text])[0]), maskable, np.random.default_rng(0))
    assert sum(predicted[start] for start, _ in maskable) == hidden
