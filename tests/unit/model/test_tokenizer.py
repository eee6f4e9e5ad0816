"""Text to word piece ids: between special tokens, truncated, not padded, and with the span of each token."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.tiny_tokenizer import SPECIAL_TOKENS, tiny_tokenizer_json
from ubert_model.errors import BundleError
from ubert_model.tokenizer import ReviewTokenizer

SERIALIZED = tiny_tokenizer_json()
VOCABULARY: dict[str, int] = json.loads(SERIALIZED)["model"]["vocab"]
PIECES = {row: piece for piece, row in VOCABULARY.items()}


def pieces(text: str, max_length: int = 32) -> list[str]:
    (ids,) = ReviewTokenizer(SERIALIZED, max_length).encode([text])
    return [PIECES[row] for row in ids]


def test_a_review_is_lower_cased_split_into_pieces_and_put_between_special_tokens() -> None:
    assert pieces("Great STRINGS, sounding!") == [
        "[CLS]", "great", "strings", ",", "sound", "##ing", "!", "[SEP]"
    ]  # fmt: skip


def test_an_unknown_word_is_one_unknown_token() -> None:
    assert pieces("great zyzzyva") == ["[CLS]", "great", "[UNK]", "[SEP]"]


@given(words=st.lists(st.sampled_from(["good", "bad", "zzz", "sounding"]), min_size=1), max_length=st.integers(3, 12))
def test_a_truncated_review_keeps_its_beginning_and_both_special_tokens(words: list[str], max_length: int) -> None:
    whole, cut = pieces(" ".join(words), 512), pieces(" ".join(words), max_length)
    assert len(cut) == min(len(whole), max_length)
    assert cut == [*whole[: len(cut) - 1], "[SEP]"]


def test_a_text_without_words_has_no_tokens_and_others_are_not_padded() -> None:
    tokenizer = ReviewTokenizer(SERIALIZED, 16)
    encoded = tokenizer.encode(["good", "", " \n\t", "very very good"])
    assert [len(ids) for ids in encoded] == [3, 0, 0, 5]
    assert tokenizer.encode([]) == []


@pytest.mark.parametrize("text", ["\u200b", "\ufeff", "\u00ad\u200d", "\x00", "\u0301", " \u200b\n"])
def test_a_text_of_ignored_characters_has_no_tokens(text: str) -> None:
    tokenizer = ReviewTokenizer(SERIALIZED, 16)
    assert tokenizer.encode([text, "good"]) == [[], tokenizer.encode(["good"])[0]]
    assert not tokenizer.read_part(text)


def test_a_special_token_in_a_text_is_ordinary_text() -> None:
    text = "good [SEP] bad"
    tokenizer = ReviewTokenizer(SERIALIZED, 16)
    assert pieces(text) == ["[CLS]", "good", "[UNK]", "[UNK]", "[UNK]", "bad", "[SEP]"]
    spans = [text[start:stop] for start, stop in tokenizer.character_spans(text)]
    assert spans == ["", "good", "[", "SEP", "]", "bad", ""]
    assert tokenizer.read_part(text) == text


def test_batch_neighbours_never_change_the_encoding_of_a_text() -> None:
    tokenizer = ReviewTokenizer(SERIALIZED, 8)
    texts = ["good", "a very very long text about the sound of these strings", "bad !"]
    assert tokenizer.encode(texts) == [tokenizer.encode([text])[0] for text in texts]
    assert tokenizer.read_parts(texts) == [tokenizer.read_part(text) for text in texts]


def test_padding_and_truncation_stored_with_a_tokenizer_are_ignored() -> None:
    stored = json.loads(SERIALIZED)
    stored["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    stored["padding"] = {
        "strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "[PAD]",
    }  # fmt: skip
    (ids,) = ReviewTokenizer(json.dumps(stored), 6).encode(["good good good good good good"])
    assert len(ids) == 6


def test_character_spans_point_at_each_tokens_text() -> None:
    text = "Great  sounding!"
    spans = ReviewTokenizer(SERIALIZED, 16).character_spans(text)
    assert [text[start:stop] for start, stop in spans] == ["", "Great", "sound", "ing", "!", ""]


def test_special_tokens_have_ids_and_a_missing_one_is_refused_by_name() -> None:
    tokenizer = ReviewTokenizer(SERIALIZED, 16)
    assert [tokenizer.token_id(token) for token in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    with pytest.raises(BundleError, match=r"no \[GONE\] token"):
        tokenizer.token_id("[GONE]")


def test_vocabulary_size_counts_every_row() -> None:
    assert ReviewTokenizer(SERIALIZED, 16).vocabulary_size == len(VOCABULARY) == max(VOCABULARY.values()) + 1


@pytest.mark.parametrize("serialized", ["", "{}", "not json", "[1, 2]"])
def test_a_file_that_is_no_tokenizer_is_refused(serialized: str) -> None:
    with pytest.raises(BundleError, match=r"tokenizer\.json.*export the bundle again"):
        ReviewTokenizer(serialized, 16)
