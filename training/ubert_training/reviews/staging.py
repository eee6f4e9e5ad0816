"""The staging folder of an import: what survives a kill, and where a restarted run goes on.

Input is staged in chunks of records. A chunk is three files; its ``.json`` is renamed into place last and
says that the other two are whole. A chunk without it never happened, and is written again under the same
name.
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

from ubert_model.errors import InputError
from ubert_model.running.atomic import replacing, write_text
from ubert_training.reviews.table import SCHEMA

STAGED_SCHEMA = pa.schema(
    [
        *SCHEMA,
        # Where the review stood among all inputs, and whether the listing of domains lacks its item.
        pa.field("place", pa.int64(), nullable=False),
        pa.field("domain_missing", pa.bool_(), nullable=False),
    ]
)

LABEL = "fingerprint"
DISCARDED = "discarded"
"""What the label of a folder says that is being removed: nobody's fingerprint."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What the ``.json`` of a staged chunk says. ``records`` counts good and bad ones alike."""

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
    """The folder, for one fingerprint of inputs and options."""

    folder: Path
    fingerprint: str

    @property
    def _label(self) -> Path:
        return self.folder / LABEL

    def open(self) -> None:
        """Keep what an earlier run of the same fingerprint staged; discard what another import did.

        Raises ``InputError`` where the folder is no import's.
        """
        if self._label.is_file() and self._label.read_text() == self.fingerprint:
            return
        self.discard()
        self.folder.mkdir(parents=True)
        write_text(self._label, self.fingerprint)

    def discard(self) -> None:
        """Remove the folder, its label last; marked before, a half-removed folder is never taken for a whole one.

        Raises ``InputError`` where it is no import's.
        """
        if not self.folder.exists():
            return
        if not (self._label.is_file() or self._is_new()):
            raise InputError(f"{self.folder} is not what an import left: move it away, or give another directory")
        write_text(self._label, DISCARDED)
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != self._label:
                path.unlink()
        self._label.unlink()
        self.folder.rmdir()

    def _is_new(self) -> bool:
        """Nothing is in it but what a kill leaves of writing the label."""
        return all(path.match(f".{LABEL}.*.partial") for path in self.folder.iterdir())

    def chunks(self, file: int) -> list[Chunk]:
        """The whole chunks of the ``file``-th input, from the first to the last before a gap."""
        found: list[Chunk] = []
        while (path := self.folder / f"part-{file:04d}-{len(found):06d}.json").is_file():
            found.append(Chunk(**json.loads(path.read_text())))
        return found

    def add(self, chunk: Chunk, reviews: Sequence[dict[str, object]], rejects: Sequence[str]) -> None:
        """Stage one chunk."""
        with replacing(self.reviews_of(chunk)) as partial:
            pq.write_table(pa.Table.from_pylist(list(reviews), schema=STAGED_SCHEMA), partial, compression="zstd")
        write_text(self.rejects_of(chunk), "".join(rejects))
        write_text(self.folder / f"{chunk.name}.json", json.dumps(asdict(chunk)))

    def reviews_of(self, chunk: Chunk) -> Path:
        return self.folder / f"{chunk.name}.parquet"

    def rejects_of(self, chunk: Chunk) -> Path:
        return self.folder / f"{chunk.name}.rejects.jsonl"

    def write_rejects(self, chunks: Sequence[Chunk], path: Path) -> None:
        """Write the rejected lines of all chunks, in the order of the input."""
        with replacing(path) as partial, partial.open("wb") as together:
            for chunk in chunks:
                with self.rejects_of(chunk).open("rb") as rejects:
                    shutil.copyfileobj(rejects, together)

    def first_rejects(self, chunks: Sequence[Chunk], count: int) -> Iterator[dict[str, Any]]:
        """Yield the first ``count`` rejected lines."""
        for chunk in chunks:
            for line in self.rejects_of(chunk).read_text(encoding="utf-8").splitlines():
                if count == 0:
                    return
                count -= 1
                yield json.loads(line)


def rejected_by_reason(chunks: Sequence[Chunk]) -> dict[str, int]:
    """Count rejected lines by reason, the commonest first."""
    total: Counter[str] = Counter()
    for chunk in chunks:
        total.update(chunk.rejected)
    return dict(sorted(total.items(), key=lambda counted: (-counted[1], counted[0])))
