"""Which characters of a review each row of its states stands for."""

import pytest

from support.tiny_tokenizer import tiny_tokenizer_json
from ubert_model.states import Namespace, StateStore, make_codec
from ubert_model.tokenizer import ReviewTokenizer
from ubert_service.explaining.review_texts import ReviewTexts, Span

TEXT = "all big color"


class NoStore:
    """Must not be asked."""


def texts(codec: str, tokens_a_row: int = 1) -> ReviewTexts:
    namespace = Namespace(version="0" * 16, encoder_digest="any", codec=codec, state_dim=8, max_length=16)
    store: StateStore = NoStore()  # type: ignore[assignment]
    tokenizer = ReviewTokenizer(tiny_tokenizer_json(), 16)
    return ReviewTexts(
        store=store, codec=make_codec(namespace), tokenizer=tokenizer, tokens_a_row=tokens_a_row, keeps=False
    )


@pytest.mark.parametrize(
    ("codec", "model_pools", "tokens_a_row"),
    [("fp32", 1, 1), ("fp32/pool2", 1, 2), ("fp32/pool3", 1, 3), ("fp32", 2, 2), ("fp32/pool2", 2, 4)],
)
def test_a_row_stands_for_the_tokens_that_were_averaged_into_it(
    codec: str, model_pools: int, tokens_a_row: int
) -> None:
    single: list[Span] = list(texts("fp32").as_read(TEXT).spans)
    rows = texts(codec, model_pools).as_read(TEXT).spans
    assert len(rows) == 1 + -(-(len(single) - 1) // tokens_a_row)
    for number, (start, end) in enumerate(rows[1:]):
        words = [span for span in single[1 + number * tokens_a_row :][:tokens_a_row] if span != (0, 0)]
        assert (start, end) == ((words[0][0], words[-1][1]) if words else (0, 0))


def test_a_text_without_words_has_no_rows() -> None:
    assert texts("fp32").as_read(" \n").spans == []


def test_where_no_texts_are_kept_the_store_is_not_asked() -> None:
    kept = texts("fp32")
    assert kept.to_keep("review", TEXT) == []
    assert kept.read(["review"]) == {}
