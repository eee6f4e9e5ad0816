"""The review table: review ids, order of the rows, subsets, and which files are refused."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubert_model.config import RatingScale
from ubert_model.errors import InputError
from ubert_model.review import review_id
from ubert_training.errors import ReviewFileError
from ubert_training.reviews import table as table_module
from ubert_training.reviews.table import SCHEMA, WITHOUT_TEXT, Review, ReviewTable, TableMetadata, TableWriter

REVIEWS = [
    Review(user="ann", item="drum", rating=4, text="Loud.", domain="music", timestamp=30),
    Review(user="bob", item="drum", rating=2, text="", domain="music", timestamp=10),
    Review(user="ann", item="lamp", rating=5, text="Bright 💡", domain="home", timestamp=20),
    Review(user="cid", item="lamp", rating=1, text="Dim.", domain="home"),
]


def test_a_review_id_is_stable_and_ignores_the_sign_of_zero() -> None:
    assert REVIEWS[0].review_id == "a4db76ed8333864b"
    assert replace(REVIEWS[0], rating=-0.0).review_id == replace(REVIEWS[0], rating=0.0).review_id


@given(st.tuples(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4)))
def test_moving_a_character_between_columns_changes_the_review_id(parts: tuple[str, str, str]) -> None:
    user, item, text = parts
    ids = {
        review_id(user=user + "x", item=item, timestamp=1, rating=3, text=text),
        review_id(user=user, item="x" + item, timestamp=1, rating=3, text=text),
        review_id(user=user, item=item, timestamp=1, rating=3, text="x" + text),
    }
    distinct = {(user + "x", item, text), (user, "x" + item, text), (user, item, "x" + text)}
    assert len(ids) == len(distinct)


def test_a_review_id_does_not_depend_on_the_domain() -> None:
    assert replace(REVIEWS[0], domain="other").review_id == REVIEWS[0].review_id


def test_the_order_of_rows_does_not_depend_on_the_order_of_the_reviews(tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(REVIEWS, len(REVIEWS))
    ReviewTable.of(REVIEWS).save(tmp_path / "first.parquet")
    ReviewTable.of(shuffled).save(tmp_path / "second.parquet")
    assert (tmp_path / "first.parquet").read_bytes() == (tmp_path / "second.parquet").read_bytes()
    assert ReviewTable.of(shuffled).timestamp.tolist() == [0, 10, 20, 30]


def test_a_table_survives_saving_and_loading(tmp_path: Path) -> None:
    metadata = TableMetadata(scale=RatingScale(lowest=0, highest=10), with_title=True)
    table = ReviewTable.of(REVIEWS, metadata)
    table.save(tmp_path / "reviews.parquet")
    loaded = ReviewTable.load(tmp_path / "reviews.parquet")
    for column in SCHEMA.names:
        assert list(getattr(loaded, column)) == list(getattr(table, column))
    assert loaded.metadata == metadata
    assert loaded.fingerprint == table.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["reviews.parquet"]


@pytest.fixture
def ten_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved table of items i0 to i9, in row groups of 3."""
    monkeypatch.setattr(table_module, "ROWS_PER_GROUP", 3)
    table = ReviewTable.of(
        Review(user="u", item=f"i{n}", rating=3, text="", domain="d", timestamp=n) for n in range(10)
    )
    table.save(tmp_path / "whole.parquet")
    return tmp_path / "whole.parquet"


def test_a_table_written_in_pieces_has_the_same_bytes(ten_rows: Path, tmp_path: Path) -> None:
    columns = pq.read_table(ten_rows)
    with TableWriter(tmp_path / "pieces.parquet", TableMetadata()) as writer:
        for start, stop in ((0, 1), (1, 8), (8, 10)):
            writer.write(columns.slice(start, stop - start))
    assert (tmp_path / "pieces.parquet").read_bytes() == ten_rows.read_bytes()


@pytest.mark.parametrize("rows", [[], [0, 2, 3, 9], [4], list(range(10))])
def test_load_rows_reads_the_given_rows(rows: list[int], ten_rows: Path) -> None:
    assert ReviewTable.load_rows(ten_rows, np.array(rows, dtype=np.int64)).item == [f"i{row}" for row in rows]


@pytest.mark.parametrize("rows", [[-1, 3], [3, 10]])
def test_load_rows_refuses_rows_outside_the_table(rows: list[int], ten_rows: Path) -> None:
    with pytest.raises(ReviewFileError, match="it was replaced"):
        ReviewTable.load_rows(ten_rows, np.array(rows))


def test_a_text_digest_depends_on_user_and_words_and_not_on_case_or_spacing() -> None:
    texts = [("ann", "It hums."), ("ann", " it\tHUMS. "), ("bob", "It hums."), ("ann", "It hums"), ("ann", " \n")]
    first, same, other_user, other_words, without_words = ReviewTable.of(
        Review(user=user, item=f"i{n}", rating=3, text=text, domain="d", timestamp=n)
        for n, (user, text) in enumerate(texts)
    ).text_digests.tolist()
    assert first == same
    assert len({first, other_user, other_words, without_words}) == 4
    assert without_words == WITHOUT_TEXT


def test_the_digests_of_a_table_cover_its_domains_and_its_fingerprint_does_not() -> None:
    moved = [replace(review, domain="garden") for review in REVIEWS]
    tables = [ReviewTable.of(reviews) for reviews in (REVIEWS, moved)]
    assert tables[0].fingerprint == tables[1].fingerprint
    assert tables[0].digests != tables[1].digests


def test_an_empty_table_is_saved_and_loaded(tmp_path: Path) -> None:
    ReviewTable.of([]).save(tmp_path / "reviews.parquet")
    assert len(ReviewTable.load(tmp_path / "reviews.parquet")) == 0


def test_columns_are_read_only() -> None:
    table = ReviewTable.of(REVIEWS)
    with pytest.raises(ValueError, match="read-only"):
        table.rating[0] = 3


def test_a_subset_keeps_table_order() -> None:
    table = ReviewTable.of(REVIEWS)
    some = table.subset([3, 1])
    assert list(some.review_id) == [table.review_id[1], table.review_id[3]]
    assert some.rating.tolist() == [2, 4]
    assert len(table.subset([])) == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [([0, 0], "one row is named twice"), ([4], "rows 4 to 4 do not fit"), ([-1], "rows -1 to -1 do not fit")],
)
def test_a_subset_refuses_duplicate_rows_and_rows_outside_the_table(rows: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ReviewTable.of(REVIEWS).subset(rows)


def test_rows_of_domains_are_exactly_the_reviews_of_these_domains() -> None:
    table = ReviewTable.of(REVIEWS)
    assert {table.user[row] for row in table.rows_of_domains("home")} == {"ann", "cid"}
    assert table.domains == ("home", "music")
    with pytest.raises(InputError, match="garden"):
        table.rows_of_domains("home", "garden")


def test_a_repeated_review_is_refused() -> None:
    with pytest.raises(InputError, match="repeats"):
        ReviewTable.of([REVIEWS[0], REVIEWS[0]])


@pytest.mark.parametrize("rating", [0.5, 5.5, float("nan")])
def test_a_rating_outside_the_scale_is_refused(rating: float) -> None:
    with pytest.raises(InputError, match="scale 1:5"):
        ReviewTable.of([Review(user="u", item="i", rating=rating, text="", domain="d")])


def test_a_file_that_is_not_a_review_table_is_refused_by_name(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"user": ["a"]}), foreign)
    garbage = tmp_path / "garbage.parquet"
    garbage.write_bytes(b"PAR1 not really PAR1")
    for path in (foreign, garbage, tmp_path / "absent.parquet"):
        with pytest.raises(ReviewFileError, match=path.name):
            ReviewTable.load(path)


def write_table(path: Path, columns: pa.Table, metadata: dict[bytes, bytes]) -> Path:
    pq.write_table(columns.cast(SCHEMA).replace_schema_metadata(metadata), path)
    return path


def test_a_damaged_or_newer_table_is_refused(tmp_path: Path) -> None:
    ReviewTable.of(REVIEWS).save(tmp_path / "good.parquet")
    good = pq.read_table(tmp_path / "good.parquet")
    metadata = TableMetadata().to_parquet()
    newer = {key: value.replace(b'"format_version": 1', b'"format_version": 2') for key, value in metadata.items()}
    other_ids = good.set_column(0, SCHEMA.field("review_id"), pa.array([*"abcd"]))
    for number, (columns, described) in enumerate(
        [
            (good.take([1, 0, 2, 3]), metadata),
            (good.take([0, 1, 1, 2]), metadata),
            (good, newer),
            (good, {b"ubert.review_table": b"{}"}),
            (other_ids, metadata),
        ]
    ):
        with pytest.raises(ReviewFileError, match="again"):
            ReviewTable.load(write_table(tmp_path / f"bad-{number}.parquet", columns, described))
