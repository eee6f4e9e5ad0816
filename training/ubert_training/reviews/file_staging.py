"""Staging of one review file: it is read, validated and written to the staging folder chunk by chunk."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ubert_training.reviews.readers.formats import ReviewFormat
from ubert_training.reviews.readers.records import BadLine, Record
from ubert_training.reviews.rejects import reject_line
from ubert_training.reviews.staging import Chunk, Staging
from ubert_training.reviews.table import Review
from ubert_training.reviews.validation import Validator

PLACES_PER_FILE = 1 << 40


@dataclass(frozen=True, kw_only=True)
class ImportProgress:
    """Progress of an import: bytes read of the current file; ``file`` is None once all files are staged."""

    file: Path | None
    bytes_read: int = 0
    bytes_total: int = 0


ProgressListener = Callable[[ImportProgress], None]


@dataclass(frozen=True, kw_only=True)
class ReviewInput:
    """One input file and everything needed to stage it."""

    number: int
    path: Path
    format: ReviewFormat
    validator: Validator


Stager = Callable[[Sequence[ReviewInput], Staging, ProgressListener], Iterator[Chunk]]
"""Stages files in chunks, and yields these in the order of the files."""


def stage_locally(inputs: Sequence[ReviewInput], staging: Staging, progress: ProgressListener) -> Iterator[Chunk]:
    """Stage one file after the other, in this process."""
    for source in inputs:
        yield from stage_file(source, staging, progress)


def stage_file(source: ReviewInput, staging: Staging, progress: ProgressListener) -> Iterator[Chunk]:
    """Yield the chunks of one file: first those that an earlier run has staged, then new ones."""
    staged = staging.chunks(source.number)
    yield from staged
    if staged and staged[-1].is_last:
        return
    done = sum(chunk.records for chunk in staged)
    number = len(staged)
    size = source.path.stat().st_size
    records = source.format.reader.records(source.path, done)
    while True:
        batch = list(islice(records, staging.records_per_chunk))
        reviews, rejects, rejected = _validate(source, batch, done)
        done += len(batch)
        chunk = Chunk(
            file=source.number,
            number=number,
            records=len(batch),
            rejected=rejected,
            is_last=len(batch) < staging.records_per_chunk,
        )
        staging.add(chunk, reviews, rejects)
        yield chunk
        read = size if chunk.is_last else batch[-1].position
        progress(ImportProgress(file=source.path, bytes_read=read, bytes_total=size))
        if chunk.is_last:
            return
        number += 1


def _validate(
    source: ReviewInput, batch: Sequence[Record], done: int
) -> tuple[list[dict[str, object]], list[str], dict[str, int]]:
    """Divide records into rows to stage and lines to reject; the third result counts the rejected ones by reason."""
    rows: list[dict[str, object]] = []
    rejects: list[str] = []
    rejected: Counter[str] = Counter()
    for place, record in enumerate(batch, start=source.number * PLACES_PER_FILE + done):
        try:
            if isinstance(record.fields, BadLine):
                raise record.fields
            review = source.validator.review(record.fields)
        except BadLine as bad_line:
            rejects.append(reject_line(source.path, record, bad_line))
            rejected[bad_line.reason] += 1
        else:
            rows.append(_staged_row(review, place, domain_missing=not source.validator.domains.lists(review.item)))
    return rows, rejects, dict(sorted(rejected.items()))


def _staged_row(review: Review, place: int, *, domain_missing: bool) -> dict[str, object]:
    return {
        "review_id": review.review_id,
        "user": review.user,
        "item": review.item,
        "rating": review.rating,
        "text": review.text,
        "domain": review.domain,
        "timestamp": review.timestamp,
        "place": place,
        "domain_missing": domain_missing,
    }
