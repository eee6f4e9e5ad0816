"""What can be mended in a namespace without the reviews' texts."""

from collections.abc import Sequence
from dataclasses import dataclass

from ubert_model.running.batches import batches
from ubert_model.states.checking import STATES_A_BATCH, DamagedList, NamespaceCheck, check_namespace
from ubert_model.states.keys import Side
from ubert_model.states.records import is_whole
from ubert_model.states.store import MendableStore, Namespace


@dataclass(frozen=True, kw_only=True)
class NamespaceRepair:
    """How many reviews were mended, and what is left to those who have the texts.

    ``missing``: listed reviews without a state. ``lost_lines``: whose lists are a line shorter each, because no other
    list holds the review. ``unreadable``: lists with a line that is whole and of an unknown format.
    """

    mended: int
    missing: Sequence[str]
    lost_lines: Sequence[str]
    unreadable: Sequence[DamagedList]

    @property
    def problems(self) -> int:
        return len(self.missing) + len(self.lost_lines) + len(self.unreadable)


def repair_namespace(store: MendableStore, namespace: Namespace, check: NamespaceCheck) -> NamespaceRepair:
    """Mend what loses no rating that can still be read. Run it while nobody writes; killed, run it again.

    A damaged line is removed, and everything is checked again for what it hid. Then a review that one list lacks is
    written to both, and a state that is damaged or that no list names is removed. What is missing then counts as
    missing for precompute too, which has the texts and fills it.
    """
    removed = _remove_damaged_lines(store, namespace.version, check.damaged_lists)
    if removed:
        check = check_namespace(store, namespace)
    # Lists first: of a review without a state nothing tells that one of them lacks it.
    for entries in batches(check.one_sided, STATES_A_BATCH):
        store.put_lines(namespace.version, entries)
    damaged = [review_id for review_id, _ in check.damaged]
    for review_ids in batches([*damaged, *check.unlisted], STATES_A_BATCH):
        store.delete_states(namespace.version, review_ids)
    return NamespaceRepair(
        mended=len({*damaged, *check.unlisted, *(entry.review_id for entry in check.one_sided)}),
        missing=[*check.missing, *damaged],
        lost_lines=_still_gone(store, namespace.version, removed),
        unreadable=check.damaged_lists,
    )


Removed = Sequence[tuple[Side, str, Sequence[bytes]]]


def _remove_damaged_lines(store: MendableStore, version: str, damaged_lists: Sequence[DamagedList]) -> Removed:
    """The names of the lines that were removed of each list."""
    removed = []
    for side, entity, _ in damaged_lists:
        names = [name for name, line in store.lines(version, side, entity).items() if not is_whole(line)]
        if names:
            store.remove_lines(version, side, entity, names)
            removed.append((side, entity, names))
    return removed


def _still_gone(store: MendableStore, version: str, removed: Removed) -> list[str]:
    gone = []
    for side, entity, names in removed:
        there = store.lines(version, side, entity)
        gone += [f"{side} {entity!r}" for name in names if name not in there]
    return gone
