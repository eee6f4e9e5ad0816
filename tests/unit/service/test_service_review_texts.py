"""Which characters of a review each row of its states covers."""

import pytest

from support.tiny_tokenizer import tiny_tokenizer_json
from ubert_model.states import Namespace, StateStore, make_codec
from ubert_model.tokenizer import ReviewTokenizer
from ubert_service.explaining.review_texts import ReviewTexts, Span

TEXT = "all big color"


class UnusableStore:
    """Has no methods, so that any access fails."""


def review_texts(codec: str, tokens_a_row: int = 1) -> ReviewTexts:
    namespace = Namespace(version="0" * 16, encoder_digest="any", codec=codec, state_dim=8, max_length=16)
    store: StateStore = UnusableStore()  # type: ignore[assignment]
    tokenizer = ReviewTokenizer(tiny_tokenizer_json(), 16)
    return ReviewTexts(
        store=store, codec=make_codec(namespace), tokenizer=tokenizer, tokens_a_row=tokens_a_row, keeps=False
    )


@pytest.mark.parametrize(
    ("codec", "model_pools", "tokens_a_row"),
    [("fp32", 1, 1), ("fp32/pool2", 1, 2), ("fp32/pool3", 1, 3), ("fp32", 2, 2), ("fp32/pool2", 2, 4)],
)
def test_a_row_covers_the_tokens_that_were_averaged_into_it(codec: str, model_pools: int, tokens_a_row: int) -> None:
    single: list[Span] = list(review_texts("fp32").as_read(TEXT).spans)
    rows = review_texts(codec, model_pools).as_read(TEXT).spans
    assert len(rows) == 1 + -(-(len(single) - 1) // tokens_a_row)
    for number, (start, end) in enumerate(rows[1:]):
        words = [span for span in single[1 + number * tokens_a_row :][:tokens_a_row] if span != (0, 0)]
        assert (start, end) == ((words[0][0], words[-1][1]) if words else (0, 0))


def test_a_text_without_words_has_no_spans() -> None:
    assert review_texts("fp32").as_read(" \n").spans == []


def test_a_service_that_keeps_no_texts_neither_writes_nor_reads_any() -> None:
    assert review_texts("fp32").to_keep("review", TEXT) == []
    assert review_texts("fp32").read(["review"]) == {}
