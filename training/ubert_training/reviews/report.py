"""The report of an import: ``report.json`` beside the review table."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from ubert_training.errors import ReviewFileError
from ubert_training.reviews.consolidation import Consolidation
from ubert_training.reviews.statistics import CorpusStatistics

FORMAT_VERSION = 4


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """One input file. ``records`` counts its non-blank lines or rows, ``rejected`` the bad ones by reason.

    ``absent_columns`` are those of the review table that it lacks, ``unused_columns`` its own that were not read.
    """

    file: str
    format: str
    domain: str
    records: int
    rejected: dict[str, int]
    absent_columns: list[str]
    unused_columns: list[str]


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """Everything that an import counted. It names no time and no machine, so equal inputs give equal bytes.

    ``already_imported`` is True if an earlier run had finished and nothing was done; it is not stored.
    """

    fingerprint: str
    options: dict[str, Any]
    files: tuple[FileReport, ...]
    rejected: dict[str, int]
    consolidation: Consolidation
    statistics: CorpusStatistics
    already_imported: bool = False

    @property
    def records(self) -> int:
        return sum(file.records for file in self.files)

    @property
    def bad(self) -> int:
        return sum(self.rejected.values())

    def as_json(self) -> str:
        described = {"format_version": FORMAT_VERSION} | asdict(self)
        del described["already_imported"]
        return json.dumps(described, indent=2, ensure_ascii=True) + "\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a stored report. Raises ``ReviewFileError``."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["format_version"] != FORMAT_VERSION:
                raise ReviewFileError(f"{path} is of version {stored['format_version']!r}: import again with --force")
            return cls(
                fingerprint=stored["fingerprint"],
                options=stored["options"],
                files=tuple(FileReport(**file) for file in stored["files"]),
                rejected=stored["rejected"],
                consolidation=Consolidation(**stored["consolidation"]),
                statistics=CorpusStatistics.of_json(stored["statistics"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReviewFileError(f"{path} is not an import report ({error}): import again with --force") from error

    def unchanged(self) -> Self:
        """The same report, marked as already imported."""
        return replace(self, already_imported=True)
