"""Repairs of a namespace that do not need the reviews' texts."""

from collections.abc import Sequence
from dataclasses import dataclass

from ubert_model.review import Side
from ubert_model.running.batches import batches
from ubert_model.states.checking import STATES_A_BATCH, DamagedList, NamespaceCheck, check_namespace
from ubert_model.states.records import is_intact
from ubert_model.states.store import MaintenanceStore, Namespace


@dataclass(frozen=True, kw_only=True)
class NamespaceRepair:
    """How many reviews were repaired, and what is left to whoever has the texts.

    ``missing``: listed reviews without a state. ``lost_texts``: reviews whose damaged text was removed.
    ``lost_lines``: the owner of each line that was removed for good, because no other list holds the review.
    ``unreadable``: lists with an intact line of an unknown format.
    """

    repaired: int
    missing: Sequence[str]
    lost_texts: Sequence[str]
    lost_lines: Sequence[str]
    unreadable: Sequence[DamagedList]

    @property
    def problems(self) -> int:
        return sum(map(len, (self.missing, self.lost_texts, self.lost_lines, self.unreadable)))


def repair_namespace(store: MaintenanceStore, namespace: Namespace, check: NamespaceCheck) -> NamespaceRepair:
    """Repair a namespace without losing any rating that can still be read. Run it while nobody writes; it can be killed
    and run again.

    Damaged lines are removed; they may have hidden other problems, so everything is then checked again. A review that
    one list lacks is written to both. A state that is damaged, or that no list names, is removed: `ubert precompute`,
    which has the texts, then finds it missing and writes it. A damaged text is removed, too.
    """
    removed = _remove_damaged_lines(store, namespace.version, check.damaged_lists)
    if removed:
        check = check_namespace(store, namespace)
    # Lists before states: once its state is gone, a review is no longer found to be one-sided.
    for entries in batches(check.one_sided, STATES_A_BATCH):
        store.put_lines(namespace.version, entries)
    damaged = [review_id for review_id, _ in check.damaged]
    for review_ids in batches([*damaged, *check.unlisted], STATES_A_BATCH):
        store.delete_states(namespace.version, review_ids)
    for review_ids in batches(check.damaged_texts, STATES_A_BATCH):
        store.delete_texts(namespace.version, review_ids)
    return NamespaceRepair(
        repaired=len({*damaged, *check.unlisted, *(entry.review_id for entry in check.one_sided)}),
        missing=[*check.missing, *damaged],
        lost_texts=check.damaged_texts,
        lost_lines=_lost_lines(store, namespace.version, removed),
        unreadable=check.damaged_lists,
    )


RemovedLines = Sequence[tuple[Side, str, Sequence[bytes]]]
"""The lists that lost lines, each with the names of those lines."""


def _remove_damaged_lines(store: MaintenanceStore, version: str, damaged_lists: Sequence[DamagedList]) -> RemovedLines:
    removed = []
    for side, entity, _ in damaged_lists:
        names = [name for name, line in store.lines(version, side, entity).items() if not is_intact(line)]
        if names:
            store.remove_lines(version, side, entity, names)
            removed.append((side, entity, names))
    return removed


def _lost_lines(store: MaintenanceStore, version: str, removed: RemovedLines) -> list[str]:
    lost = []
    for side, entity, names in removed:
        lines = store.lines(version, side, entity)
        lost += [f"{side} {entity!r}" for name in names if name not in lines]
    return lost
