"""Import of review files into one review table: streamed, resumable, and complete or absent (law 8).

Lines are validated and staged in chunks, file by file. Once all are staged, DuckDB removes duplicates, keeps the k-core
and orders what is left. The finished files are renamed into place, the report last: a folder without a report holds no
finished import. A run that was killed continues after its last complete chunk and ends with the same bytes.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from ubert_model.errors import ConfigError, InputError
from ubert_model.running.atomic import publish, write_text
from ubert_model.running.folder_lock import try_lock
from ubert_training.errors import ReviewFileError
from ubert_training.reviews.consolidation import Consolidation, consolidate
from ubert_training.reviews.domains import Domains, file_domain, load_item_domains, load_yelp_categories
from ubert_training.reviews.file_staging import (
    ImportProgress,
    ProgressListener,
    ReviewInput,
    Stager,
    stage_locally,
)
from ubert_training.reviews.options import ImportOptions
from ubert_training.reviews.readers.formats import FormatName, open_format
from ubert_training.reviews.readers.records import REMEDIES
from ubert_training.reviews.report import FileReport, ImportReport
from ubert_training.reviews.staging import RECORDS_PER_CHUNK, Chunk, Staging, rejected_by_reason
from ubert_training.reviews.statistics import CorpusStatistics
from ubert_training.reviews.table import TableMetadata
from ubert_training.reviews.validation import Validator
from ubert_training.running.disk import require_outside

REVIEWS = "reviews.parquet"
REJECTS = "rejects.jsonl"
REPORT = "report.json"
STAGING = ".ubert-import-staging"

IMPORT_VERSION = 6
"""Increased whenever the same input is staged differently, so that chunks of an older version are discarded."""
EXAMPLES_SHOWN = 3
YEARS, MONTHS = range(1_970, 2_101), range(197_001, 210_013)
"""If all times are such numbers, they are years or months (201707): as Unix seconds all would be in January 1970."""


def import_reviews(
    files: Sequence[Path],
    out: Path,
    options: ImportOptions | None = None,
    progress: ProgressListener = lambda _: None,
    *,
    force: bool = False,
    records_per_chunk: int = RECORDS_PER_CHUNK,
    stage: Stager = stage_locally,
) -> ImportReport:
    """Import ``files`` into the folder ``out``: ``reviews.parquet``, ``rejects.jsonl`` and ``report.json``.

    A finished import of the same files and options is left as it is; one of other files or options is replaced only
    with ``force``. ``stage`` reads the files, here or on a cluster. Raises ``ReviewFileError`` for unreadable files or
    too many bad lines, ``ConfigError`` for options that do not fit the files or an ``out`` that would replace one of
    them, ``InputError`` if ``out`` is taken, no review is left or all times are years or months alone, and whatever
    ``stage`` raises.
    """
    options = options or ImportOptions()
    fingerprint, inputs = _fingerprint(files, options), _inputs(files, options)
    for name in (REVIEWS, REJECTS, REPORT):
        require_outside(out / name, (*files, *options.listings))
    out.mkdir(parents=True, exist_ok=True)
    with try_lock(out) as ours:
        if not ours:
            raise InputError(f"another import into {out} is running: wait for it, or give another directory")
        staging = Staging(folder=out / STAGING, fingerprint=fingerprint, records_per_chunk=records_per_chunk)
        finished = None if force else _finished(out, staging)
        if finished is not None:
            staging.discard()
            return finished.unchanged()
        staging.open()
        chunks: list[Chunk] = []
        for chunk in stage(inputs, staging, progress):
            chunks.append(chunk)
            if chunk.bad == chunk.records == records_per_chunk:
                # Not one good line in a whole chunk: the format is probably wrong, so fail before reading the rest.
                _check_bad(chunks, staging, options.max_bad)
        _check_bad(chunks, staging, options.max_bad)
        _check_any_good(files, chunks, staging)
        progress(ImportProgress(file=None))
        return _finish(out, staging, inputs, chunks, options)


def _fingerprint(files: Sequence[Path], options: ImportOptions) -> str:
    """Digest of the files (path, size, time of change) and the options, 32 hexadecimal characters."""
    if not files:
        raise ConfigError("no review file given")
    if len(set(files)) < len(files):
        raise ConfigError(f"a review file is given twice: {', '.join(map(str, files))}")
    determining: list[object] = [IMPORT_VERSION, options.to_json()]
    for path in (*files, *options.listings):
        if path.is_dir():
            raise ReviewFileError(f"{path} is a directory: give the files in it")
        if path.exists() and not path.is_file():
            raise ReviewFileError(f"{path} is a pipe or a device, which cannot be read twice: write it to a file first")
        if not path.is_file():
            raise ReviewFileError(f"no file at {path}")
        stat = path.stat()
        determining.append([str(path.resolve()), stat.st_size, stat.st_mtime_ns])
    return hashlib.blake2b(json.dumps(determining).encode(), digest_size=16).hexdigest()


def _finished(out: Path, staging: Staging) -> ImportReport | None:
    """The report of the finished import in ``out``, if it is this one. Raises ``InputError`` if it is another."""
    if (out / REPORT).exists():
        report = ImportReport.load(out / REPORT)
        if report.fingerprint == staging.fingerprint:
            return report
        raise InputError(
            f"{out} holds a finished import of other files or options, or by another version of this program: give "
            "another directory, or --force to replace it"
        )
    if (out / REVIEWS).exists() and not staging.folder.exists():
        raise InputError(f"{out / REVIEWS} exists and no import made it: give another directory, or use --force")
    return None


def _inputs(files: Sequence[Path], options: ImportOptions) -> list[ReviewInput]:
    if len(options.domains) not in (0, 1, len(files)):
        raise ConfigError(f"{len(options.domains)} domain names for {len(files)} files: give one for all, or one each")
    names = options.domains * len(files) if len(options.domains) == 1 else options.domains
    listing = load_item_domains(options.item_domains) if options.item_domains else None
    categories = load_yelp_categories(options.yelp_business) if options.yelp_business else None
    inputs = []
    for number, path in enumerate(files):
        review_format = open_format(path, options.format, options.columns)
        of_item = listing
        if categories is not None and review_format.name is FormatName.YELP:
            of_item = {**categories, **(listing or {})}
        validator = Validator(
            layout=review_format.layout,
            scale=options.scale,
            with_title=options.with_title,
            domains=Domains(of_item=of_item, of_file=names[number] if names else file_domain(path)),
        )
        inputs.append(ReviewInput(number=number, path=path, format=review_format, validator=validator))
    if categories is not None and all(source.format.name is not FormatName.YELP for source in inputs):
        raise ConfigError(f"{options.yelp_business} is given, but no review file is Yelp's")
    return inputs


def _check_bad(chunks: Sequence[Chunk], staging: Staging, max_bad: float) -> None:
    """Raise ``ReviewFileError`` if the share of bad lines is above ``max_bad``."""
    bad = sum(chunk.bad for chunk in chunks)
    records = sum(chunk.records for chunk in chunks)
    # Compared as a quotient: 0.29 × 100 is less than 29, so that 29 of 100 would be reported as more than 29.00%.
    if not records or bad / records <= max_bad:
        return
    raise ReviewFileError(
        f"{bad:,} of {records:,} lines ({bad / records:.2%}) are bad, more than the {max_bad:.2%} that --max-bad "
        f"allows: {_describe_bad_lines(chunks, staging)}"
    )


def _check_any_good(files: Sequence[Path], chunks: Sequence[Chunk], staging: Staging) -> None:
    """Raise ``InputError`` if no line holds a review."""
    bad = sum(chunk.bad for chunk in chunks)
    records = sum(chunk.records for chunk in chunks)
    if records == 0:
        raise InputError(f"no review in {', '.join(path.name for path in files)}: empty, or a header only")
    if bad == records:
        raise InputError(f"no review is left: every line is bad ({bad:,}): {_describe_bad_lines(chunks, staging)}")


def _describe_bad_lines(chunks: Sequence[Chunk], staging: Staging) -> str:
    """The bad lines by reason, some examples, the file that lists them all, and remedies."""
    rejects = staging.folder / REJECTS
    staging.write_rejects(chunks, rejects)
    rejected = rejected_by_reason(chunks)
    counts = ", ".join(f"{reason} {count:,}" for reason, count in rejected.items())
    helpful = dict.fromkeys(remedy for reason, remedy in REMEDIES.items() if reason in rejected)
    remedies = "".join(f"; {remedy}" for remedy in helpful)
    examples = "; ".join(
        f"{reject['file']} line {reject['line']} ({reject['reason']}: {reject['detail']})"
        for reject in staging.first_rejects(chunks, EXAMPLES_SHOWN)
    )
    return f"{counts}. First: {examples}. All of them are in {rejects}{remedies}"


def _finish(
    out: Path, staging: Staging, inputs: Sequence[ReviewInput], chunks: Sequence[Chunk], options: ImportOptions
) -> ImportReport:
    """Consolidate the staged chunks and rename the results into place, the report last."""
    scratch = staging.folder / "consolidation"
    if scratch.exists():
        shutil.rmtree(scratch)
    scratch.mkdir()
    parts = [staging.reviews_of(chunk) for chunk in chunks]
    metadata = TableMetadata(scale=options.scale, with_title=options.with_title)
    counts = consolidate(parts, scratch, scratch / REVIEWS, core=options.core, metadata=metadata)
    _check_not_empty(counts, options.core)
    _check_times(counts)
    report = ImportReport(
        fingerprint=staging.fingerprint,
        options=options.to_json(),
        files=tuple(_file_report(source, chunks) for source in inputs),
        rejected=rejected_by_reason(chunks),
        consolidation=counts,
        statistics=CorpusStatistics.of_file(scratch / REVIEWS),
    )
    staging.write_rejects(chunks, scratch / REJECTS)
    write_text(scratch / REPORT, report.as_json())
    # Without a report, the folder cannot be mistaken for the finished import that is being replaced.
    (out / REPORT).unlink(missing_ok=True)
    for name in (REVIEWS, REJECTS, REPORT):
        publish(scratch / name, out / name)
    staging.discard()
    return report


def _check_not_empty(counts: Consolidation, core: int) -> None:
    if counts.reviews == 0:
        raise InputError(
            f"no review is left: {counts.exact_duplicates:,} exact duplicates, {counts.repeated_texts:,} repeated "
            f"texts and {counts.below_core:,} outside the {core}-core were removed; a lower --core keeps more"
        )


def _check_times(counts: Consolidation) -> None:
    """Raise ``InputError`` if all known times are years or months alone."""
    if any(counts.earliest in times and counts.latest in times for times in (YEARS, MONTHS)):
        raise InputError(
            f"all times are years or months alone, {counts.earliest} to {counts.latest}: write them as Unix seconds or "
            "as ISO dates, such as 2017-07-01, or rename their column"
        )


def _file_report(source: ReviewInput, chunks: Sequence[Chunk]) -> FileReport:
    of_file = [chunk for chunk in chunks if chunk.file == source.number]
    return FileReport(
        file=source.path.name,
        format=source.format.name,
        domain=source.validator.domains.of_file,
        records=sum(chunk.records for chunk in of_file),
        rejected=rejected_by_reason(of_file),
        absent_columns=list(source.format.absent),
        unused_columns=list(source.format.unused),
    )
