"""Staging of review files on a Ray cluster, one file per worker at a time.

A file is read from its beginning (gzip allows nothing else), so a cluster speeds up many files, not a single large one.
The steps after staging look at all reviews at once and stay in one process: duplicates, k-core, order of the table.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ubert_model.running.ray_engine import RayEngine
from ubert_training.reviews.file_staging import ImportProgress, ProgressListener, ReviewInput, stage_file
from ubert_training.reviews.staging import Chunk, Staging


@dataclass(frozen=True, kw_only=True)
class StagingJob:
    """Stages files of an import by number. Every node must see the files and the staging folder."""

    inputs: Sequence[ReviewInput]
    staging: Staging

    def open(self) -> Callable[[int], list[Chunk]]:
        """A function that stages one file; it raises as :func:`stage_file` does."""

        def stage(number: int) -> list[Chunk]:
            return list(stage_file(self.inputs[number], self.staging, lambda _: None))

        return stage


def stage_by_ray(
    engine: RayEngine, inputs: Sequence[ReviewInput], staging: Staging, progress: ProgressListener
) -> Iterator[Chunk]:
    """Stage files as :func:`stage_locally` does, the largest first. Raises as :meth:`RayEngine.results` does."""
    job = StagingJob(
        inputs=[replace(source, path=source.path.absolute()) for source in inputs],
        staging=replace(staging, folder=staging.folder.absolute()),
    )
    sizes = [source.path.stat().st_size for source in inputs]
    numbers = sorted(range(len(inputs)), key=lambda number: -sizes[number])
    staged: dict[int, list[Chunk]] = {}
    for place, chunks in engine.results(job, numbers):
        number = numbers[place]
        staged[number] = chunks
        progress(ImportProgress(file=inputs[number].path, bytes_read=sizes[number], bytes_total=sizes[number]))
    for number in range(len(inputs)):
        yield from staged[number]
