"""Which cells there are, in which order they are computed, and computing them."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ubert_model.errors import BaselineError
from ubert_training.accuracy.cells import Cell, CellStore, Contender
from ubert_training.accuracy.folds import Fold
from ubert_training.accuracy.variants import MeasuredVariant


def ordered_cells(folds: Sequence[Fold], seeds: Sequence[int], contenders: Sequence[Contender]) -> list[Cell]:
    """All cells, so ordered that a report is worth reading early: by round, seed, fold, and then model.

    What draws nothing has one cell a fold. Models of one fold and seed stand together: they share pre-training.
    """
    return [
        Cell(fold=fold, seed=seed, contender=contender)
        for round_ in sorted({contender.round for contender in contenders})
        for seed in seeds
        for fold in folds
        for contender in contenders
        if contender.round == round_ and (contender.seeded or seed == seeds[0])
    ]


def compute_cells(
    cells: Sequence[Cell],
    store: CellStore,
    *,
    until: float,
    began: Callable[[Cell], None],
    ended: Callable[[Cell], None],
) -> None:
    """Compute the cells that the store lacks, until the monotonic time ``until`` has passed.

    A cell is never cut off: what began before then is finished. Baselines that cannot be had are noted in the
    store and passed over; an error of U-BERT itself is raised.
    """
    missing = [cell for cell in cells if not store.has(cell)]
    states = [_states(cell) for cell in missing]
    for index, cell in enumerate(missing):
        if time.monotonic() >= until:
            return
        began(cell)
        started = time.monotonic()
        try:
            store.save(cell, cell.contender.rate(cell.fold, cell.seed), seconds=time.monotonic() - started)
        except BaselineError as error:
            store.note_failure(cell, error)
        place = states[index]
        if place is not None and place not in states[index + 1 :]:
            shutil.rmtree(place, ignore_errors=True)  # those of one encoder can take a gigabyte
        ended(cell)


def _states(cell: Cell) -> Path | None:
    """Where the cell's encoder states lie, if it has any."""
    contender = cell.contender
    if not isinstance(contender, MeasuredVariant):
        return None
    return contender.workplace.states(contender.job(cell.fold, cell.seed))
