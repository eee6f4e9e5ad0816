"""The staging folder of an import: it survives a kill, and a restarted run continues from it.

Input is staged in chunks of records. A chunk is three files: its ``.json`` is renamed into place last and marks the
other two as complete. A chunk without its ``.json`` is incomplete, and is written again under the same name.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ubert_model.running.atomic import replacing, write_text
from ubert_training.reviews.table import SCHEMA
from ubert_training.running.disk import translated_write_errors
from ubert_training.running.stage import Stage

STAGED_SCHEMA = pa.schema(
    [
        *SCHEMA,
        # The review's position among all inputs, and whether its item is missing from the listing of domains.
        pa.field("place", pa.int64(), nullable=False),
        pa.field("domain_missing", pa.bool_(), nullable=False),
    ]
)

KIND = "import"
RECORDS_PER_CHUNK = 20_000


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The content of the ``.json`` of a staged chunk. ``records`` counts good and bad records."""

    file: int
    number: int
    records: int
    rejected: dict[str, int]
    is_last: bool

    @property
    def name(self) -> str:
        return f"part-{self.file:04d}-{self.number:06d}"

    @property
    def bad(self) -> int:
        return sum(self.rejected.values())


@dataclass(frozen=True, kw_only=True)
class Staging:
    """The staging folder of one import; ``fingerprint`` identifies its files and options."""

    folder: Path
    fingerprint: str
    records_per_chunk: int = RECORDS_PER_CHUNK

    def open(self) -> None:
        """Keep the chunks that an earlier run of the same fingerprint has staged; discard those of another import.

        Raises ``ConfigError`` if the folder was not made by an import.
        """
        Stage(self.folder, KIND, {"fingerprint": self.fingerprint}).open(force=True)

    def discard(self) -> None:
        """Remove the folder. Raises ``ConfigError`` if it was not made by an import."""
        if self.folder.exists():
            # First emptied under another fingerprint, so that a half-removed folder is never continued.
            Stage(self.folder, KIND, {"fingerprint": None}).open(force=True)
            shutil.rmtree(self.folder)

    def chunks(self, file: int) -> list[Chunk]:
        """The complete chunks of the ``file``-th input, from the first to the last before a gap."""
        found: list[Chunk] = []
        while (path := self.folder / f"part-{file:04d}-{len(found):06d}.json").is_file():
            found.append(Chunk(**json.loads(path.read_text())))
        return found

    def add(self, chunk: Chunk, reviews: Sequence[dict[str, object]], rejects: Sequence[str]) -> None:
        """Stage one chunk. Raises ``OSError`` if the disk is full."""
        table = pa.Table.from_pylist(list(reviews), schema=STAGED_SCHEMA)
        with translated_write_errors(self.folder / chunk.name, OSError):
            with replacing(self.reviews_of(chunk)) as partial:
                pq.write_table(table, partial, compression="zstd")
            write_text(self.rejects_of(chunk), "".join(rejects))
            write_text(self.folder / f"{chunk.name}.json", json.dumps(asdict(chunk)))

    def reviews_of(self, chunk: Chunk) -> Path:
        return self.folder / f"{chunk.name}.parquet"

    def rejects_of(self, chunk: Chunk) -> Path:
        return self.folder / f"{chunk.name}.rejects.jsonl"

    def write_rejects(self, chunks: Sequence[Chunk], path: Path) -> None:
        """Concatenate the rejected lines of all chunks into ``path``, in the order of the input."""
        with replacing(path) as partial, partial.open("wb") as output:
            for chunk in chunks:
                with self.rejects_of(chunk).open("rb") as rejects:
                    shutil.copyfileobj(rejects, output)

    def first_rejects(self, chunks: Sequence[Chunk], count: int) -> Iterator[dict[str, Any]]:
        """Yield the first ``count`` rejected lines."""
        for chunk in chunks:
            for line in self.rejects_of(chunk).read_text(encoding="utf-8").splitlines():
                if count == 0:
                    return
                count -= 1
                yield json.loads(line)


def rejected_by_reason(chunks: Sequence[Chunk]) -> dict[str, int]:
    """Count rejected lines by reason, the most frequent first."""
    total: Counter[str] = Counter()
    for chunk in chunks:
        total.update(chunk.rejected)
    return dict(sorted(total.items(), key=lambda counted: (-counted[1], counted[0])))
