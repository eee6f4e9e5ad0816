"""Readers and validation: every format gives the same review, and every bad record is rejected with a reason."""

import csv
import gzip
import io
import json
import tempfile
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubert_model.config import RatingScale
from ubert_model.errors import ConfigError
from ubert_training.errors import ReviewFileError
from ubert_training.reviews import validation
from ubert_training.reviews.domains import Domains
from ubert_training.reviews.readers import jsonlines, records
from ubert_training.reviews.readers.delimited import DelimitedReader
from ubert_training.reviews.readers.formats import LAYOUTS, FormatName, Layout, detect_format, open_format
from ubert_training.reviews.readers.jsonlines import JsonLinesReader, parse_object
from ubert_training.reviews.readers.records import BadLine, Fields, Reason, Record
from ubert_training.reviews.table import Review
from ubert_training.reviews.validation import Validator, join_title

AMAZON_2014: dict[str, Any] = {
    "reviewerID": "U1", "asin": "I1", "reviewText": "It hums.", "summary": "Noisy", "overall": 2.0,
    "unixReviewTime": 1393545600, "helpful": [0, 0],
}  # fmt: skip
AMAZON_2018 = {key: value for key, value in AMAZON_2014.items() if key != "helpful"} | {"verified": True, "vote": "2"}
AMAZON_2023: dict[str, Any] = {
    "user_id": "U1", "parent_asin": "I1", "asin": "I1-red", "text": "It hums.", "title": "Noisy", "rating": 2.0,
    "timestamp": 1393545600999,
}  # fmt: skip
YELP: dict[str, Any] = {
    "review_id": "x", "user_id": "U1", "business_id": "I1", "stars": 2, "text": "It hums.",
    "date": "2014-02-28 00:00:00",
}  # fmt: skip
JSON_FORMATS = {
    FormatName.AMAZON_2014: AMAZON_2014,
    FormatName.AMAZON_2018: AMAZON_2018,
    FormatName.AMAZON_2023: AMAZON_2023,
    FormatName.YELP: YELP,
}
TABULAR_HEADER = ["user", "item", "rating", "text", "timestamp"]
TABULAR_ROW = ["U1", "I1", "2", "It hums.", "1393545600"]


def validator(layout: Layout, *, with_title: bool = False) -> Validator:
    domains = Domains(of_item=None, of_file="file")
    return Validator(layout=layout, scale=RatingScale(), with_title=with_title, domains=domains)


def review_of(fields: Fields, name: FormatName = FormatName.AMAZON_2014, *, with_title: bool = False) -> Review:
    return validator(LAYOUTS[name], with_title=with_title).review(fields)


def read(path: Path, **columns: str) -> list[Review | BadLine]:
    """The reviews of a file, and the reason for every rejected record."""
    opened = open_format(path, None, columns)
    return [validated(record, opened.layout) for record in opened.reader.records(path, 0)]


def validated(record: Record, layout: Layout) -> Review | BadLine:
    if isinstance(record.fields, BadLine):
        return record.fields
    try:
        return validator(layout).review(record.fields)
    except BadLine as bad_line:
        return bad_line


def write_lines(path: Path, *lines: str | bytes | dict[str, Any]) -> Path:
    encoded = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
    content = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in encoded)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


EXPECTED = Review(user="U1", item="I1", rating=2, text="It hums.", domain="file", timestamp=1393545600)


@pytest.mark.parametrize("name", JSON_FORMATS)
@pytest.mark.parametrize("file_name", ["reviews.json", "reviews.jsonl.gz", "reviews"])
def test_every_json_format_is_detected_and_gives_the_same_review(
    name: FormatName, file_name: str, tmp_path: Path
) -> None:
    path = write_lines(tmp_path / file_name, JSON_FORMATS[name])
    assert detect_format(path) is name
    assert read(path) == [EXPECTED]


@pytest.mark.parametrize(
    ("file_name", "separator"),
    [
        ("r.csv", ","), ("r.csv.gz", ","), ("r.csv", ";"), ("r.csv", "\t"), ("r.tsv", "\t"), ("r", "\t"), ("r", ";"),
        ("r.txt", ","),
    ],
)  # fmt: skip
def test_every_delimited_format_is_detected_and_gives_the_same_review(
    file_name: str, separator: str, tmp_path: Path
) -> None:
    path = write_lines(tmp_path / file_name, separator.join(TABULAR_HEADER), separator.join(TABULAR_ROW))
    assert read(path) == [EXPECTED]


@pytest.mark.parametrize("file_name", ["reviews.parquet", "reviews"])
def test_parquet_is_detected_and_gives_the_same_review(file_name: str, tmp_path: Path) -> None:
    columns = {"user": ["U1"], "item": ["I1"], "rating": [2], "text": ["It hums."], "timestamp": [1393545600]}
    pq.write_table(pa.table(columns), tmp_path / file_name)
    assert read(tmp_path / file_name) == [EXPECTED]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1393545600_000_000_001], pa.timestamp("ns")),
        pa.array([1393545600_000_000_001], pa.timestamp("ns", "+01:00")),
        pa.array([1393545600], pa.timestamp("s", "Mars/Base")),
        pa.array([date(2014, 2, 28)], pa.date32()),
    ],
)
def test_a_parquet_time_of_any_unit_and_zone_is_read_as_seconds(times: pa.Array, tmp_path: Path) -> None:
    columns = {"user": ["U1"], "item": ["I1"], "rating": [2], "text": ["It hums."], "timestamp": times}
    pq.write_table(pa.table(columns), tmp_path / "r.parquet")
    assert read(tmp_path / "r.parquet") == [EXPECTED]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([Decimal(2**60 + 1)], pa.decimal128(38, 0)), str(2**60 + 1)),
        (pa.array([Decimal(7)], pa.decimal128(38, 10)), "7"),
        (pa.array([b"caf\xc3\xa9"]), "café"),
        (pa.array([UUID(int=1).bytes], pa.uuid()), "00000000-0000-0000-0000-000000000001"),
        (pa.array(["U1"]).dictionary_encode(), "U1"),
    ],
)
def test_a_parquet_id_of_any_type_is_read_as_text(ids: pa.Array, expected: str, tmp_path: Path) -> None:
    columns = {"user": ids, "item": ["I1"], "rating": [2], "text": ["It hums."], "timestamp": [1393545600]}
    pq.write_table(pa.table(columns), tmp_path / "r.parquet")
    assert read(tmp_path / "r.parquet") == [replace(EXPECTED, user=expected)]


def test_a_parquet_rating_and_time_may_be_decimals(tmp_path: Path) -> None:
    numbers = {
        "rating": pa.array([Decimal("4.5")], pa.decimal128(3, 1)),
        "timestamp": pa.array([Decimal(1393545600)], pa.decimal128(38, 0)),
    }
    pq.write_table(pa.table({"user": ["U1"], "item": ["I1"], "text": ["It hums."], **numbers}), tmp_path / "r.parquet")
    assert read(tmp_path / "r.parquet") == [replace(EXPECTED, rating=4.5)]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1393545600, 2**40], pa.timestamp("s")),
        pa.array([1393545600_000_000, 2**62], pa.timestamp("us", "UTC")),
        pa.array([16129, 2**30], pa.date32()),
    ],
)
def test_a_parquet_time_out_of_range_rejects_only_its_own_row(times: pa.Array, tmp_path: Path) -> None:
    columns = {"user": ["U1"] * 2, "item": ["I1"] * 2, "rating": [2] * 2, "text": ["It hums."] * 2, "timestamp": times}
    pq.write_table(pa.table(columns), tmp_path / "r.parquet")
    good, bad = read(tmp_path / "r.parquet")
    assert good == EXPECTED
    assert isinstance(bad, BadLine)
    assert bad.reason is Reason.BAD_TIMESTAMP


def test_columns_are_mapped_by_name(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "shop.csv", "who,sku,stars,body,kind", "U1,I1,2,It hums.,toys")
    (review,) = read(path, user="who", item="sku", rating="stars", text="body", domain="kind")
    assert review == Review(user="U1", item="I1", rating=2, text="It hums.", domain="toys")


def test_a_file_without_a_required_or_mapped_column_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "shop.csv", "user,item,rating,body", "U1,I1,2,It hums.")
    with pytest.raises(ReviewFileError, match=r"text=text.*user, item, rating, body"):
        open_format(path, None, {})
    with pytest.raises(ReviewFileError, match="timestamp=when"):
        open_format(path, None, {"text": "body", "timestamp": "when"})
    with pytest.raises(ConfigError, match="txet"):
        open_format(path, None, {"txet": "body"})


def test_a_repeated_column_name_is_refused_only_if_the_column_is_read(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "shop.csv", "user,item,rating,text,note,note,text", "U1,I1,2,It hums.,a,b,other")
    with pytest.raises(ReviewFileError, match="several columns named text: rename all but one"):
        open_format(path, None, {})
    other = write_lines(tmp_path / "other.csv", "user,item,rating,text,note,note", "U1,I1,2,It hums.,a,b")
    assert read(other) == [Review(user="U1", item="I1", rating=2, text="It hums.", domain="file")]


def test_white_space_around_column_names_is_ignored(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "shop.csv", "user, item, stars , text", "U1, I1, 2, It hums.")
    assert read(path, rating="stars") == [Review(user="U1", item="I1", rating=2, text="It hums.", domain="file")]


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"", "is empty: its first line has to name the columns"),
        ("user,item".encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
    ],
)
def test_a_csv_without_a_readable_header_is_refused_with_a_remedy(content: bytes, remedy: str, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(ReviewFileError, match=remedy):
        open_format(tmp_path / "r.csv", None, {})


def test_a_json_array_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "r.json", "[" + json.dumps(AMAZON_2014) + "]")
    with pytest.raises(ReviewFileError, match="write one object per line, as with jq"):
        detect_format(path)


def test_columns_of_a_format_with_known_names_cannot_be_mapped(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="amazon-2014"):
        open_format(write_lines(tmp_path / "r.json", AMAZON_2014), None, {"user": "who"})


def test_the_format_is_detected_by_the_first_good_line(tmp_path: Path) -> None:
    assert detect_format(write_lines(tmp_path / "r.json", "{broken", "[]", "", AMAZON_2018)) is FormatName.AMAZON_2018


@pytest.mark.parametrize(
    ("name", "detected"),
    [
        ("r.csv.jsonl", FormatName.JSONL),
        ("r.tsv.csv", FormatName.CSV),
        ("r.csv.tsv.gz", FormatName.TSV),
        ("r.v1.CSV.GZ", FormatName.CSV),
        ("r.json.csv.old", FormatName.CSV),
        ("r.csv.json.1", FormatName.JSONL),
    ],
)
def test_the_last_known_suffix_names_the_format(name: str, detected: FormatName, tmp_path: Path) -> None:
    assert detect_format(write_lines(tmp_path / name, {"user": "u"})) is detected


@pytest.mark.parametrize("absent", ["verified", "vote"])
def test_amazon_2018_is_detected_by_either_of_its_own_fields(absent: str, tmp_path: Path) -> None:
    """Most of its reviews have no vote."""
    fields = {name: value for name, value in AMAZON_2018.items() if name != absent}
    assert detect_format(write_lines(tmp_path / "r.json", fields)) is FormatName.AMAZON_2018


def test_json_lines_of_other_field_names_are_detected_and_need_a_mapping(tmp_path: Path) -> None:
    without_time = {"uid": "U1", "sku": "I1", "stars": 2, "body": "It hums."}
    path = write_lines(tmp_path / "r.jsonl", "{broken", without_time, without_time | {"when": "2014-02-28"})
    with pytest.raises(ReviewFileError, match=r"its columns are uid, sku, stars, body, when: map them"):
        open_format(path, None, {})
    mapped = read(path, user="uid", item="sku", rating="stars", text="body", timestamp="when")
    assert [type(read_line) for read_line in mapped] == [BadLine, Review, Review]
    assert mapped[2] == EXPECTED


def test_a_field_that_the_first_lines_lack_is_read_from_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonlines, "LINES_FOR_HEADER", 1)
    lines = dict(zip(TABULAR_HEADER, TABULAR_ROW, strict=True))
    path = write_lines(tmp_path / "r.jsonl", {name: lines[name] for name in TABULAR_HEADER[:4]}, lines)
    assert read(path)[1] == EXPECTED


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[1]\n"])
def test_json_lines_without_a_field_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(content)
    with pytest.raises(ReviewFileError, match=r"r\.jsonl has no JSON object with a field"):
        open_format(tmp_path / "r.jsonl", FormatName.JSONL, {})


@pytest.mark.parametrize("name", ["r.csv", "r.json", "r"])
@pytest.mark.parametrize(
    ("magic", "remedy"),
    [
        (b"BZh91AY&SY", "bunzip2"), (b"\xfd7zXZ\x00", "unxz"), (b"\x28\xb5\x2f\xfd", "unzstd"),
        (b"PK\x03\x04", "as CSV"), ("user\r\n".encode("utf-16"), "iconv"), (b"\xfe\xff\x00u\x00\r\x00\n", "iconv"),
    ],
)  # fmt: skip
def test_a_file_of_another_compression_or_encoding_is_refused_with_a_remedy(
    magic: bytes, remedy: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(magic + b"\x14\n\x00,\n")
    with pytest.raises(ReviewFileError, match=remedy):
        open_format(tmp_path / name, None, {})


@pytest.mark.parametrize("content", [b"", b"[1, 2]\n", b"{'reviewerID': 1}\n", "{}".encode("utf-16")])
def test_a_file_of_no_detectable_format_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(ReviewFileError, match=r"r\.json"):
        detect_format(path)


BAD_FIELDS = [
    ({"reviewerID": ""}, Reason.EMPTY_ID),
    ({"reviewerID": "  "}, Reason.EMPTY_ID),
    ({"reviewerID": "\\N"}, Reason.EMPTY_ID),
    ({"asin": "NULL"}, Reason.EMPTY_ID),
    ({"asin": None}, Reason.EMPTY_ID),
    ({"asin": float("nan")}, Reason.EMPTY_ID),
    ({"asin": 1.5}, Reason.BAD_ITEM),
    ({"asin": {"id": "i"}}, Reason.BAD_ITEM),
    ({"reviewerID": ["u"]}, Reason.BAD_USER),
    ({"asin": "x" * 257}, Reason.LONG_ID),
    ({"asin": "ü" * 129}, Reason.LONG_ID),
    ({"asin": True}, Reason.BAD_ITEM),
    ({"reviewText": 5}, Reason.BAD_TEXT),
    ({"reviewText": "half a pair \ud83d"}, Reason.WRONG_ENCODING),
    ({"overall": "five"}, Reason.NO_NUMBER),
    ({"overall": "4,500"}, Reason.NO_NUMBER),
    ({"overall": None}, Reason.NO_NUMBER),
    ({"overall": True}, Reason.NO_NUMBER),
    ({"overall": [5]}, Reason.NO_NUMBER),
    ({"overall": float("nan")}, Reason.NO_NUMBER),
    ({"overall": float("inf")}, Reason.NO_NUMBER),
    ({"overall": 10**400}, Reason.NO_NUMBER),
    ({"overall": 0}, Reason.OUTSIDE_SCALE),
    ({"overall": 5.01}, Reason.OUTSIDE_SCALE),
    ({"unixReviewTime": "yesterday"}, Reason.BAD_TIMESTAMP),
    ({"unixReviewTime": -1}, Reason.BAD_TIMESTAMP),
    ({"unixReviewTime": 253402300800}, Reason.BAD_TIMESTAMP),
    ({"unixReviewTime": 9e20}, Reason.BAD_TIMESTAMP),
    ({"unixReviewTime": [1]}, Reason.BAD_TIMESTAMP),
    ({"unixReviewTime": True}, Reason.BAD_TIMESTAMP),
    ({"unixReviewTime": "20141399"}, Reason.BAD_TIMESTAMP),
    ({"unixReviewTime": "2014-02"}, Reason.BAD_TIMESTAMP),
]


@pytest.mark.parametrize(("changes", "reason"), BAD_FIELDS)
def test_a_bad_field_is_rejected_with_its_reason(changes: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(BadLine) as caught:
        review_of(AMAZON_2014 | changes)
    assert caught.value.reason is reason
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize("field", ["reviewerID", "asin", "overall", "reviewText"])
def test_a_missing_field_is_rejected_by_name(field: str) -> None:
    fields = {key: value for key, value in AMAZON_2014.items() if key != field}
    with pytest.raises(BadLine, match=field) as caught:
        review_of(fields)
    assert caught.value.reason is Reason.MISSING_FIELD


def test_an_id_of_256_bytes_and_an_empty_text_are_valid() -> None:
    review = review_of(AMAZON_2014 | {"asin": "ü" * 128, "reviewText": ""})
    assert (len(review.item.encode()), review.text) == (256, "")


@pytest.mark.parametrize(("written", "item"), [(7, "7"), (7.0, "7"), ("7.0", "7.0"), (" B1 ", "B1")])
def test_a_whole_number_is_read_as_an_id_of_its_digits(written: object, item: str) -> None:
    assert review_of(AMAZON_2014 | {"asin": written}).item == item


@pytest.mark.parametrize("written", [3.5, "3.5", "3,5", " 3,50 "])
def test_a_rating_may_have_a_decimal_comma(written: object) -> None:
    assert review_of(AMAZON_2014 | {"overall": written}).rating == 3.5


@pytest.mark.parametrize("name", [FormatName.AMAZON_2014, FormatName.AMAZON_2018])
def test_a_timestamp_is_optional(name: FormatName) -> None:
    fields = JSON_FORMATS[name]
    without_time = {key: value for key, value in fields.items() if key != "unixReviewTime"}
    assert review_of(without_time, name).timestamp == 0
    assert review_of(fields | {"unixReviewTime": " "}, name).timestamp == 0


def test_a_text_is_optional_in_amazon_2018() -> None:
    """Unlike in the other formats."""
    without_text = {key: value for key, value in AMAZON_2018.items() if key != "reviewText"}
    assert review_of(without_text, FormatName.AMAZON_2018).text == ""


@pytest.mark.parametrize(
    "value",
    [
        1393545600, 1393545600.9, "1393545600", 1393545600999, "1393545600000", 1393545600999.5,
        "2014-02-28", "2014-02-28T01:00:00+01:00", " 2014-02-28 00:00:00 UTC ", "20140228", 20140228,
        "20140228.0", 20140228.0,
        datetime(2014, 2, 28, tzinfo=UTC), date(2014, 2, 28),
    ],
)  # fmt: skip
def test_a_timestamp_is_read_from_seconds_milliseconds_and_dates(value: object) -> None:
    assert review_of(AMAZON_2014 | {"unixReviewTime": value}).timestamp == 1393545600


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (631_152_000_000, 631_152_000),  # the least number that is read as milliseconds
        ("19700101", 0),
        (21001231, 4_133_894_400),
        (19700100, 19700100),
        (2014, 2014),
        (201713, 201713),
        (201707, 201707),
        (20140228.5, 20140228),  # not whole, so not a date
        ("9999-12-31T23:59:59", 253_402_300_799),
        ("1970-01-01T00:00:01.9", 1),
    ],
)
def test_a_number_is_read_as_seconds_milliseconds_or_a_date_by_its_range(value: object, seconds: int) -> None:
    assert review_of(AMAZON_2014 | {"unixReviewTime": value}).timestamp == seconds


@pytest.mark.parametrize("missing", ["\\N", " NULL ", "nan", "NaT", "NA", "<NA>", float("nan"), None, ""])
def test_a_missing_value_that_a_database_or_pandas_spelled_out_is_no_time_and_no_text(missing: object) -> None:
    review = review_of(AMAZON_2014 | {"unixReviewTime": missing, "reviewText": missing, "summary": missing})
    assert (review.timestamp, review.text) == (0, "")


@pytest.mark.parametrize("name", JSON_FORMATS)
def test_html_is_read_as_text_in_amazons_formats_only(name: FormatName) -> None:
    written = 'It&#39;s &lt;br&gt; <3<br /><BR><a class="link" href="/dp/B1">loud</a>&nbsp;'
    (field,) = {"reviewText", "text"} & JSON_FORMATS[name].keys()
    text = review_of(JSON_FORMATS[name] | {field: written}, name).text
    assert text == (written if name is FormatName.YELP else "It's <br> <3   loud")


@pytest.mark.parametrize("value", ["1393545600", 1393545600.0, 1393545600.5, "1393545600000"])
def test_a_time_is_looked_up_among_the_numeric_dates_as_an_int(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range finds an int by arithmetic, but compares a float with each of its numbers: 0.1 s per review."""

    class IntsOnly:
        def __contains__(self, number: object) -> bool:
            assert type(number) is int
            return False

    monkeypatch.setattr(validation, "NUMERIC_DATES", IntsOnly())
    assert review_of(AMAZON_2014 | {"unixReviewTime": value}).timestamp == 1393545600


def test_the_title_precedes_the_body_as_a_sentence_of_its_own() -> None:
    assert review_of(AMAZON_2014, with_title=True).text == "Noisy. It hums."
    for title in ("Why?", "No!", "Noisy.", "And then…"):
        assert join_title(title, "It hums.") == f"{title} It hums."
    assert join_title("Noisy", "") == "Noisy"
    assert join_title("", "It hums.") == "It hums."


def test_line_numbers_count_blank_lines_and_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    good = json.dumps(AMAZON_2014)
    path = write_lines(tmp_path / "r.json", b"\xef\xbb\xbf" + good.encode(), "", "  ", good + "\r")
    read_records = list(JsonLinesReader().records(path, 0))
    assert [record.line for record in read_records] == [1, 4]
    assert all(record.fields == AMAZON_2014 for record in read_records)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', Reason.BROKEN_JSON),
        (b"[1]", Reason.BROKEN_JSON),
        (b"[" * 100_000, Reason.BROKEN_JSON),
        (b'{"a": ' + b"9" * 5000 + b"}", Reason.BROKEN_JSON),
        (b'{"a": "\xff"}', Reason.WRONG_ENCODING),
    ],
)
def test_a_line_that_is_not_a_json_object_is_rejected_with_its_reason(line: bytes, reason: Reason) -> None:
    bad_line = parse_object(line)
    assert isinstance(bad_line, BadLine)
    assert bad_line.reason is reason


def test_an_overlong_line_is_rejected_and_the_next_line_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 1000)
    for length in (999, 1000, 1001, 1002, 2500, 2001, 2002):  # around the limit, and around its multiples
        path = write_lines(tmp_path / "r.json", json.dumps("x" * (length - 2)), AMAZON_2014)
        first, second = JsonLinesReader().records(path, 0)
        assert isinstance(first.fields, BadLine)
        assert (first.fields.reason is Reason.TOO_LONG) == (length > 1000)
        assert len(first.raw) <= 1001
        assert (second.line, second.fields) == (2, AMAZON_2014)


@pytest.mark.parametrize("name", ["r.csv", "r.tsv"])
def test_an_overlong_row_is_rejected_and_the_next_row_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 1000)
    cells = ["user,item,rating,text", f"a,i,1,{'x' * 1000}", "b,i,2,fine"]
    path = write_lines(tmp_path / name, *(line if name == "r.csv" else line.replace(",", "\t") for line in cells))
    overlong, good = read(path)
    assert isinstance(overlong, BadLine)
    assert overlong.reason is Reason.TOO_LONG
    assert isinstance(good, Review)


def test_a_csv_cell_may_be_as_long_as_a_line(tmp_path: Path) -> None:
    """Python's csv module refuses cells above 128 KiB, even in columns that are not read."""
    text = "good sound " * 20_000
    path = write_lines(tmp_path / "r.csv", "user,item,rating,text,page", f"a,i,1,fine,{text}", f"b,i,2,{text},")
    assert [review.text for review in read(path) if isinstance(review, Review)] == ["fine", text.strip()]


@given(
    texts=st.lists(st.text("ab ü💡,;\"'\n\t", max_size=12), max_size=6),
    skip=st.integers(0, 7),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_cells_with_quotes_separators_and_line_ends_are_read_as_written(
    texts: list[str], skip: int, line_end: str
) -> None:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([["number", "text"], *enumerate(texts)])
    reader = DelimitedReader(separator=",", quoted=True)
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        file.write(written.getvalue().replace("\n", line_end).encode())
        file.flush()
        found = [record.fields for record in reader.records(Path(file.name), skip)]
    assert found == [{"number": str(number), "text": text} for number, text in enumerate(texts)][skip:]


@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "r.jsonl"])
def test_lines_of_white_space_are_skipped(name: str, tmp_path: Path) -> None:
    separator = "\t" if name == "r.tsv" else ","
    good = [dict(zip(TABULAR_HEADER, TABULAR_ROW, strict=True))] * 2
    rows = [separator.join(TABULAR_HEADER), *(separator.join(row.values()) for row in good)]
    first, *others = good if name == "r.jsonl" else rows
    assert read(write_lines(tmp_path / name, " ", first, "   ", *others, " \t", "")) == [EXPECTED] * 2


def test_an_unclosed_quote_rejects_only_its_own_line(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "r.csv", "user,item,rating,text", 'a,i,1,"never closed', 'b,i,2,"closed"', "c,i,3,plain"
    )
    broken, *good = DelimitedReader(separator=",", quoted=True).records(path, 0)
    assert isinstance(broken.fields, BadLine)
    assert (broken.line, broken.raw, broken.fields.reason) == (2, b'a,i,1,"never closed', Reason.BROKEN_ROW)
    assert [(record.line, record.fields) for record in good] == [
        (3, {"user": "b", "item": "i", "rating": "2", "text": "closed"}),
        (4, {"user": "c", "item": "i", "rating": "3", "text": "plain"}),
    ]


def test_rows_after_the_last_unclosed_quote_keep_their_order(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "r.csv", "user,item", 'a,"never closed', "b,2", "c,3", "d,4")
    found = DelimitedReader(separator=",", quoted=True).records(path, 0)
    assert [(record.line, record.raw[:1]) for record in found] == [(2, b"a"), (3, b"b"), (4, b"c"), (5, b"d")]


@pytest.mark.parametrize(("name", "separator"), [("r.csv", b","), ("r.tsv", b"\t")])
def test_rows_of_another_length_or_encoding_are_rejected(name: str, separator: bytes, tmp_path: Path) -> None:
    rows = [b"user|item|rating|text", b"a|i|1", b"a|i|1|fine|more", b"", b"a|i|1|\xff", b"a|i|1|fine"]
    path = write_lines(tmp_path / name, *(row.replace(b"|", separator) for row in rows))
    *bad, good = read(path)
    reasons = [bad_line.reason for bad_line in bad if isinstance(bad_line, BadLine)]
    assert reasons == [Reason.BROKEN_ROW, Reason.BROKEN_ROW, Reason.WRONG_ENCODING]
    assert isinstance(good, Review)


def test_a_tsv_has_no_quoting(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "r.tsv", "user\titem\trating\ttext", 'a\ti\t1\t"said he')
    (review,) = read(path)
    assert isinstance(review, Review)
    assert review.text == '"said he'


@pytest.mark.parametrize("name", ["r.json", "r.json.gz", "r.csv", "r.tsv", "r.parquet"])
def test_skipping_records_yields_the_rest_of_the_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "r.parquet":
        pq.write_table(pa.table({key: list("abcdefg") for key in ("user", "item", "rating", "text")}), path)
    elif "json" in name:
        write_lines(path, *(AMAZON_2014 | {"asin": str(number)} for number in range(7)))
    else:
        separator = "," if name == "r.csv" else "\t"
        write_lines(path, *(separator.join(cells) for cells in [("user", "item", "rating", "text"), *["abcd"] * 7]))
    reader = open_format(path, None, {}).reader
    whole = list(reader.records(path, 0))
    first = 2 if name in ("r.csv", "r.tsv") else 1  # after the header
    assert [record.line for record in whole] == list(range(first, first + 7))
    for skip in (1, 6, 7, 8):
        rest = list(reader.records(path, skip))
        assert [(record.line, record.raw) for record in rest] == [(r.line, r.raw) for r in whole[skip:]]


def test_a_truncated_or_corrupt_gzip_file_is_refused_by_name(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "r.json.gz", *(AMAZON_2014 | {"asin": str(number)} for number in range(1000)))
    whole = path.read_bytes()
    middle = len(whole) // 2
    truncated = whole[:middle]
    damaged_middle = whole[:middle] + b"\0" * 40 + whole[middle + 40 :]
    invalid_block = whole[:10] + b"\xff" + whole[11:]
    wrong_length = whole[:-1] + b"\1"
    for damaged in (truncated, damaged_middle, invalid_block, wrong_length, whole + b"more"):
        path.write_bytes(damaged)
        with pytest.raises(ReviewFileError, match=r"r\.json\.gz is a damaged gzip file .*: download it again"):
            list(JsonLinesReader().records(path, 0))


@pytest.mark.parametrize(("line", "separator"), [("sep=;", ";"), ("SEP=,", ","), ("\ufeffsep=;", ";")])
def test_excels_separator_line_before_the_header_is_skipped(line: str, separator: str, tmp_path: Path) -> None:
    rows = [separator.join(TABULAR_HEADER), separator.join(TABULAR_ROW)]
    path = write_lines(tmp_path / "r.csv", line, *rows)
    (review,) = read(path)
    assert isinstance(review, Review)
    assert (review.user, review.rating, review.text) == ("U1", 2.0, "It hums.")
    opened = open_format(path, None, {})
    assert [record.line for record in opened.reader.records(path, 0)] == [3]
    assert not list(opened.reader.records(path, 1))


@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "r"])
def test_lines_that_end_with_a_carriage_return_alone_are_refused_with_a_remedy(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    separator = "\t" if name == "r.tsv" else ","
    path.write_bytes("".join(separator.join(row) + "\r" for row in (TABULAR_HEADER, TABULAR_ROW)).encode())
    with pytest.raises(ReviewFileError, match=r"carriage returns alone: convert it, as with tr"):
        open_format(path, None, {})
