"""Which cells there are, in which order they are computed, and computing them."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ubert_model.errors import BaselineError
from ubert_training.accuracy.cells import Cell, CellStore, Contender
from ubert_training.accuracy.folds import Fold
from ubert_training.accuracy.variants import SLOW, MeasuredVariant

LOOK_AGAIN_SECONDS = 5.0
"""After so long a process that has nothing left asks again what has become of the cells of others."""


def ordered_cells(
    folds: Sequence[Fold],
    seeds: Sequence[int],
    contenders: Sequence[Contender],
    *,
    ablation_seeds: int | None = None,
) -> list[Cell]:
    """All cells, so ordered that a report is worth reading early: by round, seed, fold, and then model.

    What draws nothing has one cell a fold. Contenders of the rounds ``SLOW`` and ``REST`` get the first
    ``ablation_seeds`` of the seeds only (None: all). Models of one fold and seed stand together: they share
    pre-training.
    """
    few = seeds[:ablation_seeds]
    return [
        Cell(fold=fold, seed=seed, contender=contender)
        for round_ in sorted({contender.round for contender in contenders})
        for seed in (seeds if round_ < SLOW else few)
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

    Several processes share the work: what one is busy with the others pass over, and look at again at the end. A cell
    is never cut off: what began before ``until`` is finished. Baselines that cannot be had are noted in the store and
    passed over; an error of U-BERT itself is raised.
    """
    places = {cell.fingerprint: _places(cell) for cell in cells if not store.has(cell)}
    missing = [cell for cell in cells if cell.fingerprint in places]
    while missing:
        elsewhere: list[Cell] = []
        for cell in missing:
            if time.monotonic() >= until:
                return
            with store.claim(places[cell.fingerprint].claim) as ours:
                if not ours:
                    elsewhere.append(cell)
                elif not store.has(cell):
                    began(cell)
                    _compute(cell, store)
                    _forget_states(cell, cells, places, store)
                    ended(cell)
        if len(elsewhere) == len(missing):
            time.sleep(LOOK_AGAIN_SECONDS)
        missing = elsewhere


def _compute(cell: Cell, store: CellStore) -> None:
    started = time.monotonic()
    try:
        store.save(cell, cell.contender.rate(cell.fold, cell.seed), seconds=time.monotonic() - started)
    except BaselineError as error:
        store.note_failure(cell, error)


@dataclass(frozen=True, kw_only=True)
class _Places:
    """``states``: where the cell's encoder states lie, if it has any. ``claim``: the name of what it makes and others
    read: a pre-trained encoder, else those states, else nothing but the cell itself.
    """

    states: Path | None
    claim: str


def _places(cell: Cell) -> _Places:
    contender = cell.contender
    if not isinstance(contender, MeasuredVariant):
        return _Places(states=None, claim=cell.fingerprint)
    job = contender.job(cell.fold, cell.seed)
    states = contender.workplace.states(job)
    return _Places(states=states, claim=(contender.workplace.pretrained(job) or states).name)


def _forget_states(done: Cell, cells: Sequence[Cell], places: Mapping[str, _Places], store: CellStore) -> None:
    """Remove states that no cell waits for any more: those of one encoder can take a gigabyte."""
    states = places[done.fingerprint].states
    waiting = (places[cell.fingerprint].states for cell in cells if cell.fingerprint in places and not store.has(cell))
    if states is not None and states not in waiting:
        shutil.rmtree(states, ignore_errors=True)
