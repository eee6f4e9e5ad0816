"""What a text says beyond its stars: its words, what they read as, and what such texts usually read as."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from support.tiny_bundle import random_text_reader
from support.tiny_tokenizer import tiny_tokenizer_json
from ubert_model.errors import BundleError
from ubert_model.rating.text_reader import BUCKETS, ITEM_GROUPS, PIECES_READ, TextReader, item_group, word_buckets
from ubert_model.tokenizer import TEXTS_PER_BATCH

READER = random_text_reader(tiny_tokenizer_json())
ITEMS = [f"item-{number}" for number in range(20)]
TEXTS = ["A good guitar.", "Broken after a week, not worth the money!", "", "love love love", "éè \N{SNOWMAN}"]

pieces = st.lists(st.integers(0, 30_000), max_size=60)


def bucket_of(*neighbours: int) -> int:
    """The bucket of one word piece or of two neighbours, in integers without a bound."""
    key = 0
    for piece in neighbours:
        key = key * 1_000_003 + piece + 1
    return (key * 0x9E3779B97F4A7C15 % 2**64) >> (64 - 16)


def test_buckets_are_the_same_on_every_machine() -> None:
    assert word_buckets([7, 9, 7]).tolist() == sorted({bucket_of(7), bucket_of(9), bucket_of(7, 9), bucket_of(9, 7)})
    assert [item_group(item) for item in ("B0002E1G5C", "é", "")] == [3, 1, 0]


@given(pieces)
def test_the_buckets_of_a_text_are_those_of_its_words_and_neighbours_once_each(token_ids: list[int]) -> None:
    expected = {*map(bucket_of, token_ids), *(bucket_of(*pair) for pair in pairwise(token_ids))}
    found = word_buckets(token_ids)
    assert found.dtype == np.int64
    assert found.tolist() == sorted(expected)
    assert all(0 <= bucket < BUCKETS for bucket in found.tolist())


def test_the_order_of_words_matters_and_their_repetition_does_not() -> None:
    assert word_buckets([5, 6, 7]).tolist() != word_buckets([7, 6, 5]).tolist()
    assert word_buckets([5, 6, 5, 6]).tolist() == word_buckets([5, 6, 5]).tolist()


def test_few_words_of_a_vocabulary_share_a_bucket() -> None:
    """As few as chance would have: 30,000 balls in 65,536 boxes leave 24,000 boxes with at least one."""
    buckets = {bucket for piece in range(30_000) for bucket in word_buckets([piece]).tolist()}
    assert len(buckets) > 23_000


def test_items_are_spread_evenly_over_the_groups() -> None:
    groups = [item_group(f"B{number:09}") for number in range(5_000)]
    assert set(groups) == set(range(ITEM_GROUPS))
    assert max(np.bincount(groups)) < 1.2 * 5_000 / ITEM_GROUPS


@given(token_ids=st.lists(st.integers(0, 30_000), min_size=1, max_size=60), item=st.sampled_from(ITEMS))
def test_a_reading_is_the_intercept_and_the_sum_of_the_weights_over_the_root_of_their_number(
    token_ids: list[int], item: str
) -> None:
    group, buckets = item_group(item), word_buckets(token_ids).tolist()
    total = sum(float(READER.weights[group, bucket]) for bucket in buckets)
    expected = float(READER.intercepts[group]) + total / len(buckets) ** 0.5
    assert READER.reading(token_ids, item) == pytest.approx(expected, abs=1e-9)


def test_a_surplus_is_the_reading_less_the_usual_one_of_the_rating() -> None:
    (token_ids,) = READER.tokenizer.encode(["Broken, but I love it."])
    for rating in (1.0, 2.5, 4.0, 5.0):
        expected = READER.reading(token_ids, "item") - READER.usual(rating)
        found = READER.surplus("Broken, but I love it.", "item", rating)
        assert found == float(np.float32(expected))


@pytest.mark.parametrize("text", ["", " \n\t", "\N{COMBINING ACUTE ACCENT}"])
def test_a_text_without_words_has_no_surplus(text: str) -> None:
    assert READER.surplus(text, "item", 5.0) == 0


def test_many_reviews_have_the_surpluses_of_each_to_the_bit() -> None:
    count = TEXTS_PER_BATCH + 3
    texts, items = ([choices[number % len(choices)] for number in range(count)] for choices in (TEXTS, ITEMS))
    ratings = [1.0 + number % 9 / 2 for number in range(count)]
    found = READER.surpluses(texts, items, ratings)
    last = range(TEXTS_PER_BATCH - 20, count)
    assert [found[row] for row in last] == [READER.surplus(texts[row], items[row], ratings[row]) for row in last]
    assert READER.surpluses([], [], []) == []


def test_items_of_different_groups_are_read_with_different_weights() -> None:
    groups = [item_group(item) for item in ITEMS]
    readings = [READER.surplus("A good guitar.", item, 4.0) for item in ITEMS]
    assert set(groups) == set(range(ITEM_GROUPS))
    assert len(set(zip(groups, readings, strict=True))) == len(set(readings)) == ITEM_GROUPS


def test_a_text_is_read_up_to_its_limit_and_no_further() -> None:
    words = ["good"] * (PIECES_READ - 3)  # [CLS], [SEP] and the word below are read, too
    assert READER.surplus(" ".join([*words, "awful"]), "item", 4.0) != READER.surplus(" ".join(words), "item", 4.0)
    ended = [*words, "awful"]
    assert READER.surplus(" ".join([*ended, "great"]), "item", 4.0) == READER.surplus(" ".join(ended), "item", 4.0)


def test_a_saved_reader_is_loaded_unchanged(tmp_path: Path) -> None:
    READER.save(tmp_path / "reader")
    loaded = TextReader.load(tmp_path / "reader", tiny_tokenizer_json())
    reviews = (TEXTS, ITEMS[: len(TEXTS)], [1.0, 2.0, 3.0, 4.0, 5.0])
    assert loaded.surpluses(*reviews) == READER.surpluses(*reviews)
    assert loaded.usual == READER.usual
    assert loaded.tokenizer.max_length == PIECES_READ
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "reader").read_bytes()


@pytest.mark.parametrize("content", [b"", b"not tensors", None], ids=["empty", "junk", "missing"])
def test_a_file_that_holds_no_tensors_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "reader").write_bytes(content)
    with pytest.raises(BundleError, match="export the bundle again"):
        TextReader.load(tmp_path / "reader", tiny_tokenizer_json())


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("weights", np.zeros((ITEM_GROUPS, BUCKETS // 2), dtype=np.float32)),
        ("weights", np.zeros((ITEM_GROUPS + 1, BUCKETS), dtype=np.float32)),
        ("intercepts", np.zeros(ITEM_GROUPS - 1)),
        ("knots", np.arange(3.0)),
        ("usual", np.arange(5.0, 0.0, -1.0)),
    ],
)
def test_tables_of_another_shape_and_curves_that_decrease_are_refused(
    tmp_path: Path, name: str, table: np.ndarray
) -> None:
    READER.save(tmp_path / "reader")
    save_file({**load_file(tmp_path / "reader"), name: table}, tmp_path / "reader")
    with pytest.raises(BundleError, match="export the bundle again"):
        TextReader.load(tmp_path / "reader", tiny_tokenizer_json())


@pytest.mark.parametrize("name", ["weights", "intercepts", "knots", "usual"])
def test_a_file_that_lacks_a_table_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    READER.save(tmp_path / "reader")
    tables = load_file(tmp_path / "reader")
    del tables[name]
    save_file(tables, tmp_path / "reader")
    with pytest.raises(BundleError, match=name):
        TextReader.load(tmp_path / "reader", tiny_tokenizer_json())
