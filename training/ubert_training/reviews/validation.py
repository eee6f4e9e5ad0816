"""Validation: turns the fields of a record into a review, or says what is wrong with them."""

import html
import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from uuid import UUID

from ubert_model.config import RatingScale
from ubert_model.identifiers import MAX_IDENTIFIER_BYTES
from ubert_training.reviews.domains import Domains
from ubert_training.reviews.readers.formats import Column, Layout
from ubert_training.reviews.readers.records import BadLine, Fields, Reason, decode
from ubert_training.reviews.table import Review

MAX_SHOWN = 80
LAST_SECOND = 253_402_300_799  # the end of the year 9999
FIRST_MILLISECOND = 631_152_000_000  # 1990; in seconds it would be long after the year 9999
NUMERIC_DATES = range(19_700_101, 21_001_232)
"""Whole numbers read as dates, such as 20170714; as Unix seconds all of them would be in two weeks of August 1970."""
NULLS = frozenset({"", "\\N", "NULL", "null", "None", "NaN", "nan", "NaT", "NA", "<NA>"})
"""A missing value as databases, pandas and R write it. As an id, it would make one user of all unknown ones."""
HTML_TAG = re.compile(r"</?(?:a|b|br|div|em|i|img|li|ol|p|span|strong|u|ul|video)(?:\s[^<>]*)?/?>", re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"\d+,\d{1,2}")
SENTENCE_ENDS = (".", "!", "?", "…")


@dataclass(frozen=True, kw_only=True)
class Validator:
    """Turns the fields of a record into a review."""

    layout: Layout
    scale: RatingScale
    with_title: bool
    domains: Domains

    def review(self, fields: Fields) -> Review:
        """The review in a record. Raises ``BadLine`` for a record that cannot be used."""
        item = _identifier(self._field(fields, "item"), "item")
        text = self._prose(fields, "text")
        if self.with_title:
            text = join_title(self._prose(fields, "title"), text)
        of_record = _text(self._field(fields, "domain"), "domain") or None
        return Review(
            user=_identifier(self._field(fields, "user"), "user"),
            item=item,
            rating=_rating(self._field(fields, "rating"), self.scale),
            text=text,
            domain=self.domains.domain_of(item, of_record),
            timestamp=_timestamp(self._field(fields, "timestamp")),
        )

    def _prose(self, fields: Fields, column: Column) -> str:
        text = _text(self._field(fields, column), column)
        return html.unescape(HTML_TAG.sub(" ", text)).strip() if self.layout.html else text

    def _field(self, fields: Fields, column: Column) -> object:
        names = self.layout.names.get(column, ())
        for name in names:
            if name in fields:
                return fields[name]
        if column not in self.layout.optional:
            raise BadLine(Reason.MISSING_FIELD, " or ".join(names))
        return None


def join_title(title: str, body: str) -> str:
    """Put a review's title, which often states the opinion, before its body as a sentence of its own."""
    if not (title and body):
        return title or body
    return f"{title} {body}" if title.endswith(SENTENCE_ENDS) else f"{title}. {body}"


def _identifier(value: object, column: str) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas turns an integer column with a missing value into floats
    if isinstance(value, int | UUID) and not isinstance(value, bool):
        value = str(value)
    identifier = _text(value, column)
    if not identifier:
        raise BadLine(Reason.EMPTY_ID, f"{column} is {value!r}")
    length = len(identifier.encode())
    if length > MAX_IDENTIFIER_BYTES:
        raise BadLine(Reason.LONG_ID, f"{column} has {length} bytes, at most {MAX_IDENTIFIER_BYTES} are allowed")
    return identifier


def _text(value: object, column: str) -> str:
    if isinstance(value, bytes):  # a Parquet column of strings that are not marked as such
        value = decode(value)
    if _is_null(value):
        return ""
    if not isinstance(value, str):
        raise BadLine(Reason(f"{column} is no string"), _shown(value))
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # JSON can escape half of a surrogate pair, which is no character and cannot be stored.
        raise BadLine(Reason.WRONG_ENCODING, f"{column} holds the lone surrogate {value[error.start]!a}") from error
    return value.strip()


def _rating(value: object, scale: RatingScale) -> float:
    try:
        if isinstance(value, bool) or value is None:
            raise ValueError
        if isinstance(value, str) and DECIMAL_COMMA.fullmatch(value.strip()):
            value = value.replace(",", ".")
        rating = float(value)  # type: ignore[arg-type]  # whatever float() refuses is caught
    except (ValueError, TypeError, OverflowError) as error:
        raise BadLine(Reason.NO_NUMBER, _shown(value)) from error
    if not math.isfinite(rating):
        raise BadLine(Reason.NO_NUMBER, _shown(value))
    if not scale.lowest <= rating <= scale.highest:
        raise BadLine(Reason.OUTSIDE_SCALE, f"{rating:g} is outside {scale}")
    return rating


def _timestamp(value: object) -> int:
    """Parse Unix seconds, Unix milliseconds or an ISO date, in UTC unless it has a time zone; 0 for an absent one."""
    if _is_null(value):
        return 0
    try:
        seconds = _seconds(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadLine(Reason.BAD_TIMESTAMP, _shown(value)) from error
    if not 0 <= seconds <= LAST_SECOND:
        raise BadLine(Reason.BAD_TIMESTAMP, f"{_shown(value)} is outside the years 1970 to 9999")
    return seconds


def _seconds(value: object) -> int:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return _seconds(datetime.fromisoformat(str(value).strip().removesuffix(" UTC")))
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        return math.floor((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    whole = math.floor(value)
    # Looked up as an int: for a float, `in` searches the whole range, which takes a tenth of a second per review.
    if whole == value and whole in NUMERIC_DATES:
        return _seconds(date(whole // 10_000, whole // 100 % 100, whole % 100))
    return whole // (1000 if whole >= FIRST_MILLISECOND else 1)


def _is_null(value: object) -> bool:
    if isinstance(value, str):
        return value.strip() in NULLS
    return value is None or (isinstance(value, float) and math.isnan(value))


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"
