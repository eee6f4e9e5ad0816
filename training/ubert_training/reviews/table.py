"""The review table: the format in which reviews are stored, split, trained on and scored.

A table is a Parquet file whose rows are ordered by (timestamp, review_id), so every reader sees the same rows at the
same positions. Its metadata holds the format version and the rating scale.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ubert_model.config import RatingScale
from ubert_model.errors import InputError
from ubert_model.review import ReviewEntry, review_id
from ubert_model.running.atomic import replacing
from ubert_training.errors import ReviewFileError
from ubert_training.running.digests import digest_of

Rows = NDArray[np.int64]
"""Row numbers of a review table."""

FORMAT_VERSION = 1
METADATA_KEY = b"ubert.review_table"
ROWS_PER_GROUP = 8192
WITHOUT_TEXT = 0
SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in {
            "review_id": pa.string(),
            "user": pa.string(),
            "item": pa.string(),
            "rating": pa.float32(),
            "text": pa.string(),
            "domain": pa.string(),
            "timestamp": pa.int64(),
        }.items()
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One review. ``timestamp`` is in Unix seconds, 0 if unknown."""

    user: str
    item: str
    rating: float
    text: str
    domain: str
    timestamp: int = 0

    @property
    def review_id(self) -> str:
        return review_id(user=self.user, item=self.item, timestamp=self.timestamp, rating=self.rating, text=self.text)


@dataclass(frozen=True, kw_only=True)
class TableMetadata:
    """What a table records beside its rows. ``with_title``: whether texts begin with their titles; None if unknown."""

    scale: RatingScale = field(default_factory=RatingScale)
    with_title: bool | None = None

    def to_parquet(self) -> dict[bytes, bytes]:
        described = {
            "format_version": FORMAT_VERSION,
            "rating_scale": [self.scale.lowest, self.scale.highest],
            "with_title": self.with_title,
        }
        return {METADATA_KEY: json.dumps(described, sort_keys=True).encode()}

    @classmethod
    def of_parquet(cls, path: Path, stored: dict[bytes, bytes] | None) -> Self:
        """Parse the metadata of ``path``. Raises ``ReviewFileError`` if the file is not a review table."""
        described = (stored or {}).get(METADATA_KEY)
        if described is None:
            raise ReviewFileError(f"{path} is a Parquet file but not a review table: make one with `ubert import`")
        try:
            fields = json.loads(described)
            version = fields["format_version"]
            if version != FORMAT_VERSION:
                raise ReviewFileError(
                    f"{path} has review-table format {version!r}, this version reads {FORMAT_VERSION}: import again"
                )
            lowest, highest = fields["rating_scale"]
            return cls(scale=RatingScale(lowest=lowest, highest=highest), with_title=fields["with_title"])
        except (ValueError, KeyError, TypeError) as error:
            raise ReviewFileError(f"{path} has unreadable review-table metadata {described!r}: import again") from error


@dataclass(frozen=True, kw_only=True, eq=False)
class ReviewTable:
    """N reviews by column, ordered by (timestamp, review_id), without duplicates.

    Shape:
        every column has N entries; rating: (N,) float32; timestamp: (N,) int64, Unix seconds, 0 if unknown. Both
        arrays are read-only; the other columns are sequences of str.
    """

    review_id: Sequence[str]
    user: Sequence[str]
    item: Sequence[str]
    rating: NDArray[np.float32]
    text: Sequence[str]
    domain: Sequence[str]
    timestamp: NDArray[np.int64]
    metadata: TableMetadata = field(default_factory=TableMetadata)

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in SCHEMA.names}
        if len(set(lengths.values())) > 1:
            raise InputError(f"the columns of a review table differ in length: {lengths}")
        self.rating.flags.writeable = False
        self.timestamp.flags.writeable = False
        self._check_order()
        self._check_ratings()

    def __len__(self) -> int:
        return len(self.review_id)

    @property
    def scale(self) -> RatingScale:
        return self.metadata.scale

    def require_scale(self, scale: RatingScale, model: str) -> None:
        """Raise ``InputError`` unless the ratings are on the ``scale`` of the ``model`` (how to call it)."""
        if self.scale != scale:
            raise InputError(
                f"the reviews have the rating scale {self.scale}, {model} has {scale}: give reviews that were imported "
                f"with --scale {scale}, or a model trained on these"
            )

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of the set of reviews, 32 hexadecimal characters; independent of the file and of the domains."""
        digest = hashlib.blake2b(digest_size=16)
        for identifier in self.review_id:
            digest.update(identifier.encode())
        return digest.hexdigest()

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """Digests of the reviews and of their domains, which review ids leave out: they identify this table."""
        return {"table": self.fingerprint, "domains": digest_of(self.domain)}

    @functools.cached_property
    def text_digests(self) -> NDArray[np.uint64]:
        """Digests of user and text, (N,): equal where a user repeats a text. :data:`WITHOUT_TEXT` without text.

        Case and spacing do not count, as for the encoder.
        """
        return np.fromiter(map(_digest_of_writing, self.user, self.text), dtype=np.uint64, count=len(self))

    @functools.cached_property
    def domains(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.domain)))

    def rows_of_domains(self, *domains: str) -> NDArray[np.int64]:
        """Rows of the given domains, ascending. Raises ``InputError`` for a domain that is not in the table."""
        unknown = sorted(set(domains) - set(self.domains))
        if unknown:
            raise InputError(f"no review is of domain {', '.join(unknown)}: the table has {', '.join(self.domains)}")
        chosen = set(domains)
        return np.array([row for row, domain in enumerate(self.domain) if domain in chosen], dtype=np.int64)

    def texts_at(self, rows: NDArray[np.int64]) -> list[str]:
        """All texts, (N,), but empty strings outside ``rows``."""
        kept = np.zeros(len(self), dtype=bool)
        kept[rows] = True
        return [text if keep else "" for text, keep in zip(self.text, kept.tolist(), strict=True)]

    def entry(self, row: int, state_rows: int, surplus: float = 0.0) -> ReviewEntry:
        """The entry of a row in the review lists; ``state_rows`` is the number of rows of its states, ``surplus`` what
        its text says beyond its rating, in stars.
        """
        return ReviewEntry(
            review_id=self.review_id[row],
            user=self.user[row],
            item=self.item[row],
            rating=float(self.rating[row]),
            timestamp=int(self.timestamp[row]),
            rows=state_rows,
            surplus=surplus,
        )

    def ascending(self, rows: Sequence[int] | Rows) -> Rows:
        """These rows, ascending. Raises ``InputError`` for a row that occurs twice or lies outside the table."""
        ordered = np.sort(np.asarray(rows, dtype=np.int64))
        if len(ordered) and (ordered[0] < 0 or ordered[-1] >= len(self)):
            raise InputError(f"rows {ordered[0]} to {ordered[-1]} do not fit a table of {len(self)} rows")
        if (np.diff(ordered) == 0).any():
            raise InputError("one row is named twice")
        return ordered

    def subset(self, rows: Sequence[int] | Rows) -> "ReviewTable":
        """The table of some of its rows, in table order. Raises ``InputError`` as :meth:`ascending` does."""
        rows = self.ascending(rows)
        numbers = rows.tolist()
        return ReviewTable(
            review_id=[self.review_id[row] for row in numbers],
            user=[self.user[row] for row in numbers],
            item=[self.item[row] for row in numbers],
            rating=self.rating[rows],
            text=[self.text[row] for row in numbers],
            domain=[self.domain[row] for row in numbers],
            timestamp=self.timestamp[rows],
            metadata=self.metadata,
        )

    @classmethod
    def of(cls, reviews: Iterable[Review], metadata: TableMetadata | None = None) -> "ReviewTable":
        """Build a table from reviews in any order. Raises ``InputError`` if one occurs twice."""
        rows = sorted(((review.timestamp, review.review_id, review) for review in reviews), key=lambda row: row[:2])
        return cls(
            review_id=[identifier for _, identifier, _ in rows],
            user=[review.user for _, _, review in rows],
            item=[review.item for _, _, review in rows],
            rating=np.array([review.rating for _, _, review in rows], dtype=np.float32),
            text=[review.text for _, _, review in rows],
            domain=[review.domain for _, _, review in rows],
            timestamp=np.array([timestamp for timestamp, _, _ in rows], dtype=np.int64),
            metadata=metadata or TableMetadata(),
        )

    @classmethod
    def load(cls, path: str | Path) -> "ReviewTable":
        """Read and check a table. Raises ``ReviewFileError`` if the file is missing, damaged or not a review table."""
        path = Path(path)
        stored, metadata = _read(path)
        return cls._of_columns(path, stored, metadata)

    @classmethod
    def load_rows(cls, path: Path, rows: NDArray[np.int64]) -> "ReviewTable":
        """The table of ``rows``, which are ascending. Reads only the row groups that hold them.

        Raises as :meth:`load` does, and ``ReviewFileError`` for rows outside the table.
        """
        stored, metadata = _read(path, rows)
        return cls._of_columns(path, stored, metadata)

    @classmethod
    def _of_columns(cls, path: Path, stored: pa.Table, metadata: TableMetadata) -> "ReviewTable":
        try:
            return cls(
                review_id=stored["review_id"].to_pylist(),
                user=_shared_strings(stored["user"]),
                item=_shared_strings(stored["item"]),
                rating=stored["rating"].to_numpy(),
                text=stored["text"].to_pylist(),
                domain=_shared_strings(stored["domain"]),
                timestamp=stored["timestamp"].to_numpy(),
                metadata=metadata,
            )
        except InputError as error:
            raise ReviewFileError(f"{path} is a damaged review table: {error}. Import again") from error

    def save(self, path: str | Path) -> None:
        """Write the table; the file appears whole or not at all."""
        columns = pa.table({name: getattr(self, name) for name in SCHEMA.names}, schema=SCHEMA)
        with replacing(Path(path)) as partial, TableWriter(partial, self.metadata) as writer:
            writer.write(columns)

    def _check_order(self) -> None:
        later = np.diff(self.timestamp)
        for row in np.flatnonzero(later <= 0).tolist():
            if later[row] < 0 or self.review_id[row] >= self.review_id[row + 1]:
                raise InputError(
                    f"row {row + 1} (review {self.review_id[row + 1]}) repeats or precedes the row before it; "
                    "rows are ordered by (timestamp, review_id)"
                )

    def _check_ratings(self) -> None:
        # A NaN fails both comparisons, so it counts as outside.
        inside = (self.rating >= self.scale.lowest) & (self.rating <= self.scale.highest)
        if not inside.all():
            row = int(np.argmin(inside))
            raise InputError(
                f"review {self.review_id[row]} has rating {self.rating[row]}, outside the scale {self.scale}"
            )


class TableWriter:
    """Context manager that writes a review table piece by piece; the rows must come in table order.

    The bytes of the file do not depend on how the rows are divided into pieces.
    """

    def __init__(self, path: Path, metadata: TableMetadata) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA.with_metadata(metadata.to_parquet()), compression="zstd")
        self._buffer = SCHEMA.empty_table()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write_group(len(self._buffer))
        self._writer.close()

    def write(self, rows: pa.Table) -> None:
        self._buffer = pa.concat_tables([self._buffer, rows.select(SCHEMA.names).cast(SCHEMA)])
        while len(self._buffer) >= ROWS_PER_GROUP:
            self._write_group(ROWS_PER_GROUP)

    def _write_group(self, count: int) -> None:
        if count:
            self._writer.write_table(self._buffer.slice(0, count).combine_chunks())
            self._buffer = self._buffer.slice(count)


def _digest_of_writing(user: str, text: str) -> int:
    words = text.casefold().split()
    written = "\n".join([user, *words]).encode()
    return int.from_bytes(hashlib.blake2b(written, digest_size=8).digest()) if words else WITHOUT_TEXT


def _read(path: Path, rows: NDArray[np.int64] | None = None) -> tuple[pa.Table, TableMetadata]:
    if not path.is_file():
        raise ReviewFileError(f"no review table at {path}: make one with `ubert import`")
    try:
        with pq.ParquetFile(path) as file:
            metadata = TableMetadata.of_parquet(path, file.schema_arrow.metadata)
            if not file.schema_arrow.remove_metadata().equals(SCHEMA):
                raise ReviewFileError(f"{path} has columns {file.schema_arrow.names} of other types: import again")
            stored = file.read() if rows is None else _read_rows(path, file, rows)
    except (pa.ArrowException, OSError) as error:
        raise ReviewFileError(
            f"{path} cannot be read as Parquet ({error}): give what `ubert import` wrote, or import again"
        ) from error
    if not pc.all(pc.match_substring_regex(stored["review_id"], "^[0-9a-f]{16}$"), min_count=0).as_py():
        raise ReviewFileError(f"{path} holds review ids that are not 16 hexadecimal characters: import again")
    return stored, metadata


def _read_rows(path: Path, file: pq.ParquetFile, rows: NDArray[np.int64]) -> pa.Table:
    if len(rows) and not 0 <= rows[0] <= rows[-1] < file.metadata.num_rows:
        raise ReviewFileError(f"{path} has {file.metadata.num_rows} rows and no row {rows[-1]}: it was replaced")
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    group_of = np.searchsorted(starts, rows, side="right") - 1
    parts = [
        file.read_row_group(group).take(rows[group_of == group] - starts[group])
        for group in np.unique(group_of).tolist()
    ]
    return pa.concat_tables([SCHEMA.empty_table(), *(part.replace_schema_metadata() for part in parts)])


def _shared_strings(column: pa.ChunkedArray) -> list[str]:
    """The strings of a column, equal ones as one shared object: a large table repeats each name many times."""
    strings: list[str] = []
    for chunk in column.dictionary_encode().chunks:
        words = chunk.dictionary.to_pylist()
        strings.extend(words[code] for code in chunk.indices.to_numpy())
    return strings
