"""Review files staged on a Ray cluster, one worker a file.

A file is read from its beginning (gzip allows nothing else), so many files are what goes faster, not a large one. What
follows looks at all reviews at once and stays in one process: duplicates, the k-core, the order of the table.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ubert_model.running.ray_engine import RayEngine
from ubert_training.reviews.file_staging import ImportProgress, ProgressListener, ReviewInput, stage_file
from ubert_training.reviews.staging import Chunk, Staging


@dataclass(frozen=True, kw_only=True)
class StagingJob:
    """Stages files of an import by their number. The files and the folder must be there on every node."""

    inputs: Sequence[ReviewInput]
    staging: Staging
    records_per_chunk: int

    def open(self) -> Callable[[int], list[Chunk]]:
        """What it does raises as :func:`stage_file` does."""

        def stage(number: int) -> list[Chunk]:
            return list(stage_file(self.inputs[number], self.staging, lambda _: None, self.records_per_chunk))

        return stage


def stage_by_ray(
    engine: RayEngine,
    inputs: Sequence[ReviewInput],
    staging: Staging,
    progress: ProgressListener,
    records_per_chunk: int,
) -> Iterator[Chunk]:
    """What :func:`stage_here` does, the largest files first. Raises as :meth:`RayEngine.results` does."""
    job = StagingJob(
        inputs=[replace(source, path=source.path.absolute()) for source in inputs],
        staging=replace(staging, folder=staging.folder.absolute()),
        records_per_chunk=records_per_chunk,
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
