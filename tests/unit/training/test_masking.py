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
def test_a_word_is_found_whichever_apostrophe_is_typed(tokenizer: ReviewTokenizer, apostrophe: str) -> None:
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


def test_hidden_words_are_shown_as_bert_shows_them() -> None:
    """A word shown as others has a piece drawn for each of its own, and none that is no piece of a word."""
    tokenizer, text = ReviewTokenizer(tiny_tokenizer_json(), 32), "well-made"
    masker = Masker(tokenizer, LEXICON, "opinion")
    ids, maskable = tokens_of(tokenizer, text), masker.maskable([text])[0]
    shown = np.array([masker.mask(ids, maskable, np.random.default_rng(seed))[0][1:-1] for seed in range(3000)])
    masked = (shown == tokenizer.token_id("[MASK]")).all(axis=1)
    kept = (shown == ids[1:-1]).all(axis=1)
    assert masked.mean() == pytest.approx(0.8, abs=0.03)
    assert kept.mean() == pytest.approx(0.1, abs=0.03)
    others = shown[~masked & ~kept]
    assert not np.isin(others, [tokenizer.token_id(token) for token in SPECIAL_TOKENS]).any()
    assert len(np.unique(others)) > 0.9 * (tokenizer.vocabulary_size - len(SPECIAL_TOKENS))
    assert (others[:, 0] != others[:, 1]).mean() > 0.9


@pytest.mark.parametrize(
    ("strategy", "text"), [("opinion", ""), ("opinion", "   "), ("opinion", "a strap for a guitar"), ("none", "great")]
)
def test_a_review_without_words_to_hide_has_nothing_to_predict(
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


def test_words_are_the_same_however_many_reviews_are_tokenized_at_a_time(
    tokenizer: ReviewTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["great", "", "a plain strap", "  beautiful and terrible ", "well-made", "great great"]
    masker = Masker(tokenizer, LEXICON, "opinion")
    whole = masker.maskable(texts)
    monkeypatch.setattr(masking, "TEXTS_PER_BATCH", 2)
    parts = masker.maskable(texts)
    found = [
        words_at(text.strip(), tokenizer, parts[number]) if text.strip() else [] for number, text in enumerate(texts)
    ]
    assert found == [["great"], [], [], ["beautiful", "terrible"], ["well-made"], ["great", "great"]]
    assert len(parts.values) == 6
    np.testing.assert_array_equal(parts.values, whole.values)
    np.testing.assert_array_equal(parts.starts, whole.starts)
