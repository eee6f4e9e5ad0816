"""Listing the cells of a comparison, in the order to compute them, and computing them."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ubert_training.accuracy.cells import Cell, CellStore, Contender
from ubert_training.accuracy.folds import Fold
from ubert_training.accuracy.variants import SLOW, MeasuredVariant
from ubert_training.errors import BaselineError, DivergedError

POLL_SECONDS = 5.0
"""How long a process that has nothing left to compute waits before it looks at the cells of others again."""


def ordered_cells(
    folds: Sequence[Fold],
    seeds: Sequence[int],
    contenders: Sequence[Contender],
    *,
    ablation_seeds: int | None = None,
) -> list[Cell]:
    """All cells, ordered so that a report is worth reading early: by round, seed, fold, and then model.

    A contender that is not seeded has one cell per fold. Contenders of the rounds ``SLOW`` and ``REST`` get only the
    first ``ablation_seeds`` of the seeds (None: all). Models of one fold and seed are adjacent: they share
    pre-training.
    """
    return [
        Cell(fold=fold, seed=seed, contender=contender)
        for round_ in sorted({contender.round for contender in contenders})
        for seed in (seeds if round_ < SLOW else seeds[:ablation_seeds])
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

    Several processes share the work: each skips what another is busy with, and looks at it again at the end. A cell
    begun before ``until`` is never cut off. The store records cells that fail: baselines, and models whose training
    diverges. A model that cannot be trained raises its error before any cell is computed.
    """
    places = {cell.fingerprint: _places(cell) for cell in cells if not store.has(cell)}
    missing = [cell for cell in cells if cell.fingerprint in places]
    for cell in {cell.contender.name: cell for cell in missing}.values():
        if isinstance(cell.contender, MeasuredVariant):
            cell.contender.workspace.require_trainable(cell.contender.job(cell.fold, cell.seed))
    while missing:
        busy: list[Cell] = []
        for cell in missing:
            if time.monotonic() >= until:
                return
            with store.claim(places[cell.fingerprint].claim) as ours:
                if not ours:
                    busy.append(cell)
                elif not store.has(cell):
                    began(cell)
                    _compute(cell, store)
                    _discard_states(cell, cells, places, store)
                    ended(cell)
        if len(busy) == len(missing):
            time.sleep(POLL_SECONDS)
        missing = busy


def at_intervals(seconds: float, do: Callable[[Cell], None]) -> Callable[[Cell], None]:
    """``do``, left out where its last call, or the start, is less than ``seconds`` ago."""
    last = time.monotonic()

    def perhaps(cell: Cell) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            do(cell)
            last = time.monotonic()

    return perhaps


def _compute(cell: Cell, store: CellStore) -> None:
    started = time.monotonic()
    try:
        store.save(cell, cell.contender.rate(cell.fold, cell.seed), seconds=time.monotonic() - started)
    except (BaselineError, DivergedError) as error:
        store.note_failure(cell, error)


@dataclass(frozen=True, kw_only=True)
class _Places:
    """``states``: the directory of the cell's encoder states, if it has any. ``claim``: the name of what it computes
    and other cells read: a pre-trained encoder, else those states, else only the cell itself.
    """

    states: Path | None
    claim: str


def _places(cell: Cell) -> _Places:
    contender = cell.contender
    if not isinstance(contender, MeasuredVariant):
        return _Places(states=None, claim=cell.fingerprint)
    pretrained, states = contender.workspace.places(contender.job(cell.fold, cell.seed))
    return _Places(states=states, claim=(pretrained or states).name)


def _discard_states(done: Cell, cells: Sequence[Cell], places: Mapping[str, _Places], store: CellStore) -> None:
    """Delete the states of a finished cell once no other needs them: those of one encoder can take a gigabyte."""
    states = places[done.fingerprint].states
    waiting = (places[cell.fingerprint].states for cell in cells if cell.fingerprint in places and not store.has(cell))
    if states is not None and states not in waiting:
        shutil.rmtree(states, ignore_errors=True)
