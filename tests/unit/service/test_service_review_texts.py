"""Which characters of a review each row of its states covers."""

from collections.abc import Sequence
from typing import cast

import pytest

from support.tiny_tokenizer import tiny_tokenizer_json
from ubert_model.states import Namespace, StateStore, make_codec
from ubert_model.tokenizer import ReviewTokenizer
from ubert_service.explaining.review_texts import ReviewTexts, Span

TEXT = "all big color"


class UnusableStore:
    """Has no methods, so that any access fails."""


class StoreWithoutTexts:
    def texts(self, version: str, review_ids: Sequence[str]) -> list[None]:
        return [None for _ in review_ids]


def review_texts(codec: str, tokens_a_row: int = 1, store: object = None, *, keeps: bool = False) -> ReviewTexts:
    namespace = Namespace(version="0" * 16, encoder_digest="any", codec=codec, state_dim=8, max_length=16)
    tokenizer = ReviewTokenizer(tiny_tokenizer_json(), 16)
    return ReviewTexts(
        store=cast("StateStore", store or UnusableStore()),
        codec=make_codec(namespace),
        tokenizer=tokenizer,
        tokens_a_row=tokens_a_row,
        keeps=keeps,
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


def test_a_store_without_texts_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    texts = review_texts("fp32", store=StoreWithoutTexts(), keeps=True)
    assert [texts.read(["a", "b"]) for _ in range(2)] == [{}, {}]
    assert [record.getMessage() for record in caplog.records] == [
        "no text is stored of the reviews that an explanation shows: `ubert precompute` needs --texts, too"
    ]
