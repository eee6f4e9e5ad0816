"""Train, validation and test rows of a review table (law 5: splits come before anything is learned).

All reviews that a user wrote on one item form one *pair* and go to the same part: the target rating of one part must
never be an input in another. Pairs are shuffled by a keyed digest of their names, so a split depends on the seed and
the reviews alone, not on a library's random generator.
"""

import hashlib
import itertools
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ubert_model.errors import ConfigError, InputError
from ubert_model.running.atomic import replacing
from ubert_training.reviews.table import ReviewTable, Rows
from ubert_training.running.digests import digest_of

SplitKind = Literal["random", "fold", "time"]

PARTS = ("train", "validation", "test")
PAPER_FRACTIONS = (0.8, 0.1, 0.1)
FOLD_VALIDATION_SHARE = 1 / 8  # of the reviews outside the test fold: 10% of all reviews with five folds
FORMAT_VERSION = 1
METADATA_KEY = b"ubert.split"
SCHEMA = pa.schema([pa.field("review_id", pa.string(), nullable=False), pa.field("part", pa.string(), nullable=False)])


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Row indices into one review table: int64, ascending, disjoint; no part is empty.

    ``seed`` is None where nothing was drawn (a split by time); ``fold`` and ``folds`` are set for folds only.
    """

    train: Rows
    validation: Rows
    test: Rows
    kind: SplitKind
    seed: int | None = None
    fold: int | None = None
    folds: int | None = None

    def __post_init__(self) -> None:
        for part in PARTS:
            rows: Rows = getattr(self, part)
            if not len(rows):
                raise InputError(f"the {part} part is empty: give the split more reviews")
            rows.flags.writeable = False
        if (np.diff(self.rows) == 0).any():
            raise InputError("a split names the same row twice: its parts must be disjoint")

    @property
    def rows(self) -> Rows:
        """All rows of the three parts, ascending."""
        return np.sort(np.concatenate([self.train, self.validation, self.test]))

    def digests(self, table: ReviewTable) -> dict[str, str]:
        """Digests of the reviews of each part, for the inputs of a stage.

        The kind is left out: it only decides what pre-training may read elsewhere, and that has a digest of its own.
        """
        return {part: digest_of(table.review_id[row] for row in getattr(self, part)) for part in PARTS}

    def save(self, path: str | Path, table: ReviewTable) -> None:
        """Write the split, keyed by review id, so that it can be checked against the table that it is used with."""
        part_of = np.full(len(table), -1, dtype=np.int8)
        for number, part in enumerate(PARTS):
            part_of[getattr(self, part)] = number
        rows = self.rows.tolist()
        described = {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "seed": self.seed,
            "fold": self.fold,
            "folds": self.folds,
            "table": table.fingerprint,
        }
        schema = SCHEMA.with_metadata({METADATA_KEY: json.dumps(described, sort_keys=True).encode()})
        columns = pa.table(
            {
                "review_id": [table.review_id[row] for row in rows],
                "part": [PARTS[part_of[row]] for row in rows],
            },
            schema=schema,
        )
        with replacing(Path(path)) as partial:
            pq.write_table(columns, partial)

    @classmethod
    def load(cls, path: str | Path, table: ReviewTable, *, remedy: str = "Split this table again") -> "Split":
        """Read a split made from ``table``.

        Raises ``InputError`` if the file is not a split or is damaged, or, with the ``remedy``, if ``table`` lacks one
        of its reviews or holds other reviews than the table that the split was made from.
        """
        path = Path(path)
        columns, described = _read(path)
        row_of = {identifier: row for row, identifier in enumerate(table.review_id)}
        identifiers = columns["review_id"].to_pylist()
        missing = [identifier for identifier in identifiers if identifier not in row_of]
        if missing:
            raise InputError(
                f"{path} was made from another table: {len(missing)} of its {len(identifiers)} reviews are "
                f"missing here, the first is {missing[0]}. {remedy}"
            )
        if described["table"] != table.fingerprint:
            raise InputError(
                f"{path} was made from another table (fingerprint {described['table']}): this one "
                f"({table.fingerprint}) holds extra reviews. {remedy}"
            )
        rows = np.array([row_of[identifier] for identifier in identifiers], dtype=np.int64)
        parts = np.array(columns["part"].to_pylist())
        if len(unknown := parts[~np.isin(parts, PARTS)]):
            raise InputError(f"{path} names a part {str(unknown[0])!r}, none of {', '.join(PARTS)}: split again")
        return cls(
            train=np.sort(rows[parts == "train"]),
            validation=np.sort(rows[parts == "validation"]),
            test=np.sort(rows[parts == "test"]),
            kind=described["kind"],
            seed=described["seed"],
            fold=described["fold"],
            folds=described["folds"],
        )


def random_split(table: ReviewTable, rows: Sequence[int] | Rows, seed: int) -> Split:
    """Divide ``rows`` at random, in the shares of the paper. Raises ``InputError`` for fewer than three pairs."""
    pairs = _shuffled(table, _pairs(table, rows), f"random {seed}")
    train, validation, test = _cut(pairs, PAPER_FRACTIONS)
    return Split(train=train, validation=validation, test=test, kind="random", seed=seed)


def k_fold_splits(table: ReviewTable, rows: Sequence[int] | Rows, k: int, seed: int) -> list[Split]:
    """Make ``k`` splits whose test parts are disjoint and together hold all ``rows``.

    The validation part of a fold is an eighth of the reviews outside its test part, drawn with the same seed. Raises
    ``ConfigError`` for k < 2, ``InputError`` for too few pairs to fill k folds of three parts.
    """
    if k < 2:
        raise ConfigError(f"{k} folds leave nothing to train on: ask for at least 2")
    pairs = _shuffled(table, _pairs(table, rows), f"folds {seed}")
    too_few = InputError(
        f"{len(pairs)} (user, item) pairs cannot be divided into {k} folds, each of three parts: give more reviews, or "
        "another number of folds"
    )
    if len(pairs) < max(k, len(PARTS)):
        raise too_few
    fold_of = _fold_numbers(pairs, k)
    if len(pairs) - np.bincount(fold_of).max() < 2:  # one of two folds has all pairs but one
        raise too_few
    splits = []
    for fold in range(k):
        rest = [pair for pair, number in zip(pairs, fold_of, strict=True) if number != fold]
        validation, train = _cut(
            _shuffled(table, rest, f"folds {seed} validation {fold}"),
            (FOLD_VALIDATION_SHARE, 1 - FOLD_VALIDATION_SHARE),
        )
        test = np.sort(np.concatenate([p for p, number in zip(pairs, fold_of, strict=True) if number == fold]))
        splits.append(Split(train=train, validation=validation, test=test, kind="fold", seed=seed, fold=fold, folds=k))
    return splits


def time_split(table: ReviewTable, rows: Sequence[int] | Rows) -> Split:
    """Divide ``rows`` by time: train on the oldest, validate on the reviews that follow, test on the newest.

    A pair reviewed more than once counts at its last review. Pairs of the same time (often a day) stay together, so
    every part begins after the one before it ends; its share of the reviews is then as near as possible. Raises
    ``InputError`` for a row of unknown time or for fewer than three distinct times.
    """
    pairs = _pairs(table, rows)
    unknown = sum(int((table.timestamp[pair] == 0).sum()) for pair in pairs)
    if unknown:
        raise InputError(f"{unknown} reviews have no timestamp: split them at random instead of by time")
    pairs_at: dict[int, list[Rows]] = {}
    for pair in pairs:  # rows are ordered by time, so the last row of a pair is its last review
        pairs_at.setdefault(int(table.timestamp[pair[-1]]), []).append(pair)
    if len(pairs_at) < len(PARTS):
        raise InputError(
            f"the reviews are of {len(pairs_at)} different times, and a split by time needs {len(PARTS)}: "
            "split them at random, or give more reviews"
        )
    train, validation, test = _cut([np.concatenate(pairs_at[time]) for time in sorted(pairs_at)], PAPER_FRACTIONS)
    return Split(train=train, validation=validation, test=test, kind="time")


def _pairs(table: ReviewTable, rows: Sequence[int] | Rows) -> list[Rows]:
    """Group ``rows`` by (user, item), each group ascending."""
    grouped: dict[tuple[str, str], list[int]] = {}
    for row in table.ascending(rows).tolist():
        grouped.setdefault((table.user[row], table.item[row]), []).append(row)
    return [np.array(pair, dtype=np.int64) for pair in grouped.values()]


def _shuffled(table: ReviewTable, pairs: list[Rows], salt: str) -> list[Rows]:
    def digest_of_names(pair: Rows) -> bytes:
        user = table.user[pair[0]].encode()
        item = table.item[pair[0]].encode()
        digest = hashlib.blake2b(salt.encode(), digest_size=16)
        digest.update(struct.pack("<q", len(user)) + user + item)
        return digest.digest()

    return sorted(pairs, key=digest_of_names)


def _cut(pairs: list[Rows], fractions: Sequence[float]) -> list[Rows]:
    """Cut the sequence of pairs where each part's share of the reviews is nearest its fraction; no part is empty."""
    if len(pairs) < len(fractions):
        raise InputError(f"{len(pairs)} (user, item) pairs cannot fill {len(fractions)} parts: give more reviews")
    reviews_before = np.concatenate([[0], np.cumsum([len(pair) for pair in pairs])])
    cuts = [0]
    for number in range(1, len(fractions)):
        target = sum(fractions[:number]) * reviews_before[-1]
        nearest = int(np.argmin(np.abs(reviews_before - target)))
        cuts.append(min(max(nearest, cuts[-1] + 1), len(pairs) - (len(fractions) - number)))
    cuts.append(len(pairs))
    return [np.sort(np.concatenate(pairs[start:stop])) for start, stop in itertools.pairwise(cuts)]


def _fold_numbers(pairs: list[Rows], k: int) -> NDArray[np.int64]:
    """Assign the pairs, largest first, each to the fold with the fewest reviews: folds are equal in reviews."""
    sizes = np.zeros(k, dtype=np.int64)
    numbers = np.zeros(len(pairs), dtype=np.int64)
    for pair in sorted(range(len(pairs)), key=lambda pair: -len(pairs[pair])):
        numbers[pair] = np.argmin(sizes)
        sizes[numbers[pair]] += len(pairs[pair])
    return numbers


def _read(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"no split at {path}: give the file that `ubert split` wrote")
    try:
        columns = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} cannot be read as Parquet ({error}): give the file that `ubert split` wrote, or split again"
        ) from error
    stored = (columns.schema.metadata or {}).get(METADATA_KEY)
    if stored is None or columns.schema.remove_metadata() != SCHEMA:
        raise InputError(f"{path} is a Parquet file but not a split: give the file that `ubert split` wrote")
    try:
        described = json.loads(stored)
        version = described["format_version"]
        if version != FORMAT_VERSION:
            raise InputError(f"{path} has split format {version!r}, this version reads {FORMAT_VERSION}: split again")
        return columns, {name: described[name] for name in ("table", "kind", "seed", "fold", "folds")}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} has unreadable split metadata {stored!r}: split again") from error
