"""Cells: one model on one fold by one seed, computed once and stored under the digest of all its inputs."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ubert_model.errors import UbertError
from ubert_model.running.atomic import replacing, write_text
from ubert_model.running.folder_lock import try_lock
from ubert_training.accuracy.folds import Fold
from ubert_training.accuracy.provenance import code_digest
from ubert_training.running.digests import fingerprint_of, plain

RATINGS = "ratings.npz"
CELL = "cell.json"
FAILURE = "failure.txt"
CLAIMS = "claims"
KIND = "accuracy cell"


@dataclass(frozen=True, kw_only=True, eq=False)
class CellRatings:
    """Squared errors of a fold's test pairs, (P,) in stars², and the ratings ``predicted`` for them, in stars.

    The report needs the errors only; the ratings let others try blends and calibrations without training anew. For
    models that have them: ``covered``, whether each pair's interval holds its rating;
    ``bias_squared_errors``, of the model's bias part alone. ``settings``: what tuning chose. ``code``: digest of the
    program that computed them.
    """

    squared_errors: NDArray[np.float64]
    predicted: NDArray[np.float64]
    covered: NDArray[np.bool_] | None = None
    bias_squared_errors: NDArray[np.float64] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    code: str = field(default_factory=code_digest)


class Contender(Protocol):
    """A model that can be measured on a fold."""

    @property
    def name(self) -> str:
        """In words, for the report; unique."""

    @property
    def round(self) -> int:
        """Cells of a lower round are computed first."""

    @property
    def seeded(self) -> bool:
        """Does another seed give other ratings?"""

    def inputs(self, fold: Fold, seed: int) -> Mapping[str, Any]:
        """All that determines its ratings of a fold, besides the fold itself."""

    def rate(self, fold: Fold, seed: int) -> CellRatings:
        """Train and rate the test pairs. Raises ``UbertError`` if that fails."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """A contender on a fold by a seed: for one that is not seeded, the first seed."""

    fold: Fold
    seed: int
    contender: Contender

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal characters."""
        return fingerprint_of(KIND, self.inputs)

    @property
    def inputs(self) -> dict[str, Any]:
        inputs = {
            **self.fold.table.digests,
            "split": self.fold.digests,
            "seed": self.seed if self.contender.seeded else None,
            **self.contender.inputs(self.fold, self.seed),
        }
        return dict(plain(inputs))


class CellStore:
    """Finished cells, a directory each. The JSON file is written last: a cell with one is complete."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Claim a name among the processes that share the store; yields False if another one holds it."""
        folder = self.directory / CLAIMS / name
        folder.mkdir(parents=True, exist_ok=True)
        with try_lock(folder) as ours:
            yield ours

    def has(self, cell: Cell) -> bool:
        """Has it been measured?"""
        return (self.directory / cell.fingerprint / CELL).is_file()

    def load(self, cell: Cell) -> CellRatings | None:
        """What was measured, or None if nothing was."""
        if not self.has(cell):
            return None
        path = self.directory / cell.fingerprint
        described = json.loads((path / CELL).read_text(encoding="utf-8"))
        with np.load(path / RATINGS) as stored:
            return CellRatings(**stored, settings=described["settings"], code=described["code"])

    def save(self, cell: Cell, ratings: CellRatings, *, seconds: float) -> None:
        """Store a finished cell."""
        path = self.directory / cell.fingerprint
        columns: dict[str, Any] = {
            name: column
            for name in ("squared_errors", "predicted", "covered", "bias_squared_errors")
            if (column := getattr(ratings, name)) is not None
        }
        with replacing(path / RATINGS) as partial, partial.open("wb") as file:
            np.savez(file, **columns)
        described = {
            "model": cell.contender.name,
            "fold": cell.fold.number,
            "seconds": round(seconds, 1),
            "settings": ratings.settings,
            "code": ratings.code,
            "inputs": cell.inputs,
        }
        (path / FAILURE).unlink(missing_ok=True)
        write_text(path / CELL, json.dumps(plain(described), indent=2, ensure_ascii=False) + "\n")

    def note_failure(self, cell: Cell, error: UbertError) -> None:
        """Record why a cell failed; the next run tries it again."""
        write_text(self.directory / cell.fingerprint / FAILURE, f"{error}\n")

    def failure(self, cell: Cell) -> str | None:
        """Why the last attempt at a cell failed."""
        path = self.directory / cell.fingerprint / FAILURE
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None
