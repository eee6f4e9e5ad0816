"""From staged chunks to one table: de-duplication, k-core and ordering, out of core in DuckDB.

The texts are left out until the final ordering joins them back, so memory does not grow with the length of the reviews.
Every choice between rows follows a total order, so the result is the same on any number of threads and after any
interruption.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import dataset

from ubert_training.reviews.staging import STAGED_SCHEMA
from ubert_training.reviews.table import ROWS_PER_GROUP, TableMetadata, TableWriter
from ubert_training.running.disk import translated_write_errors

STAGED = """
CREATE TABLE staged AS
SELECT review_id, "user", item, domain, "timestamp", place, domain_missing,
       CASE WHEN text <> '' THEN md5(text) END AS text_digest
FROM staged_rows
"""
# The same review may appear in two files with different domains: the smaller name wins, whatever the order of files.
UNIQUE = """
CREATE TABLE unique_review AS
SELECT * FROM staged
QUALIFY row_number() OVER (PARTITION BY review_id ORDER BY domain, place) = 1
"""
# Of a user's reviews of one text the first is kept. A time of 0 is unknown and no first one: where two files hold the
# same review and one lacks its time, the other's is kept.
KEPT = """
CREATE TABLE kept AS
SELECT * FROM unique_review
QUALIFY text_digest IS NULL
     OR row_number() OVER (
            PARTITION BY "user", text_digest ORDER BY "timestamp" = 0, "timestamp", item, review_id
        ) = 1
"""
RARE = """
DELETE FROM kept
WHERE "{column}" IN (SELECT "{column}" FROM kept GROUP BY "{column}" HAVING count(*) < {core})
"""
ORDERED = """
COPY (
    SELECT kept.review_id, kept."user", kept.item, staged_rows.rating, staged_rows.text, kept.domain,
    kept."timestamp" FROM staged_rows JOIN kept ON staged_rows.place = kept.place ORDER BY kept."timestamp",
    kept.review_id
) TO {path} (FORMAT parquet, COMPRESSION zstd)
"""
DISK_ERRORS = (duckdb.IOException, duckdb.TransactionException, duckdb.OutOfMemoryException)
"""What DuckDB raises when it can no longer write, or spill, to the disk."""
COUNTS = r"""
SELECT count(*) AS reviews,
       count(*) FILTER (text_digest IS NULL) AS empty_texts,
       count(*) FILTER ("timestamp" = 0) AS unknown_timestamps,
       min("timestamp") FILTER ("timestamp" <> 0) AS earliest,
       max("timestamp") FILTER ("timestamp" <> 0) AS latest,
       count(*) FILTER (domain_missing) AS domain_missing_reviews,
       count(DISTINCT item) FILTER (domain_missing) AS domain_missing_items,
       CASE WHEN avg(float_user::INT) >= 0.5 THEN min("user") FILTER (float_user) END AS float_user,
       CASE WHEN avg(float_item::INT) >= 0.5 THEN min(item) FILTER (float_item) END AS float_item
FROM (
    SELECT *, regexp_full_match("user", '\d+\.0') AS float_user, regexp_full_match(item, '\d+\.0') AS float_item
    FROM kept
)
"""


@dataclass(frozen=True, kw_only=True)
class Consolidation:
    """How many reviews each step removed, and counts over the reviews that remain.

    ``earliest`` and ``latest`` are in Unix seconds, None if no time is known.
    ``float_user`` and ``float_item`` are an id of the form "1.0", if at least half of the reviews have one: pandas
    writes a column of integers so if a value is missing.
    """

    exact_duplicates: int
    repeated_texts: int
    below_core: int
    core_rounds: int
    reviews: int
    empty_texts: int
    unknown_timestamps: int
    earliest: int | None
    latest: int | None
    domain_missing_reviews: int
    domain_missing_items: int
    float_user: str | None
    float_item: str | None


def consolidate(
    parts: Sequence[Path], workspace: Path, out: Path, *, core: int, metadata: TableMetadata
) -> Consolidation:
    """Write the review table ``out`` from the staged Parquet files ``parts``; ``workspace`` is an empty scratch folder.

    ``core`` is the least number of reviews that every user and every item has in the result; 0 keeps all. Raises
    ``OSError`` if the disk is full.
    """
    ordered = workspace / "ordered.parquet"
    with translated_write_errors(workspace, *DISK_ERRORS), duckdb.connect(workspace / "reviews.duckdb") as database:
        database.execute(f"SET temp_directory = {_quoted(workspace / 'spill')}")
        database.register("staged_rows", dataset.dataset([str(part) for part in parts], schema=STAGED_SCHEMA))
        staged = _changed(database, STAGED)
        unique = _changed(database, UNIQUE)
        database.execute("DROP TABLE staged")
        kept = _changed(database, KEPT)
        database.execute("DROP TABLE unique_review")
        rounds = _keep_core(database, core)
        counts = _counts(database)
        database.execute(ORDERED.format(path=_quoted(ordered)))
    with pq.ParquetFile(ordered) as file, TableWriter(out, metadata) as writer:
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
            writer.write(pa.Table.from_batches([batch]))
    return Consolidation(
        exact_duplicates=staged - unique,
        repeated_texts=unique - kept,
        below_core=kept - counts["reviews"],
        core_rounds=rounds,
        **counts,
    )


def _keep_core(database: duckdb.DuckDBPyConnection, core: int) -> int:
    """Remove users and items with fewer than ``core`` reviews until there are none; returns the number of rounds."""
    rounds = 0
    while True:
        removed = sum(_changed(database, RARE.format(column=column, core=core)) for column in ("user", "item"))
        if not removed:
            return rounds
        rounds += 1


def _changed(database: duckdb.DuckDBPyConnection, statement: str) -> int:
    """Run a statement; returns the number of rows that it wrote or deleted."""
    answer = database.execute(statement).fetchone()
    if answer is None:
        raise RuntimeError(f"DuckDB reported no row count for {statement}")
    return int(answer[0])


def _counts(database: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    answer = database.execute(COUNTS)
    names = [column[0] for column in answer.description]
    return dict(zip(names, answer.fetchall()[0], strict=True))


def _quoted(path: Path) -> str:
    escaped = str(path).replace("'", "''")
    return f"'{escaped}'"
