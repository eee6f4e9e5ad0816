"""Checks that a namespace holds what its review lists promise."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ubert_model.errors import CorruptStateError, StateError
from ubert_model.review import ReviewEntry, Side
from ubert_model.running.batches import batches
from ubert_model.states.codec import state_shape
from ubert_model.states.store import MaintenanceStore, Namespace

ENTITIES_A_BATCH = 100
STATES_A_BATCH = 256
STATES_A_SCAN = 10_000

Advance = Callable[[int], None]


class DamagedList(NamedTuple):
    """A review list that cannot be read: whose it is, and why."""

    side: Side
    entity: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class NamespaceCheck:
    """What is wrong with a namespace, and how many ``reviews`` its users' lists name.

    ``missing``: listed reviews without a state. ``damaged``: reviews whose state cannot be used, and why.
    ``damaged_texts``: reviews whose stored text cannot be read.
    ``one_sided``: reviews with a state that only one of their two lists names. ``unlisted``: states that no list
    names; not determined while there are ``damaged_lists``.
    """

    reviews: int
    missing: Sequence[str]
    damaged: Sequence[tuple[str, str]]
    damaged_texts: Sequence[str]
    one_sided: Sequence[ReviewEntry]
    unlisted: Sequence[str]
    damaged_lists: Sequence[DamagedList]

    @property
    def problems(self) -> int:
        found = (self.missing, self.damaged, self.damaged_texts, self.one_sided, self.unlisted, self.damaged_lists)
        return sum(map(len, found))


def check_namespace(store: MaintenanceStore, namespace: Namespace, advance: Advance = lambda _: None) -> NamespaceCheck:
    """Read every list, state and text once. ``advance`` is called with the number of further reviews checked.

    Keeps 8 bytes a review in memory. A review that is written meanwhile may be reported as incomplete. Raises what the
    store raises.
    """
    reader = _Reader(store, namespace)
    listed = array("Q")
    for entries in reader.listed(Side.USER):
        listed.extend(_digests(entry.review_id for entry in entries))
        reader.check(entries)
        advance(len(entries))
    known = np.sort(np.array(listed, dtype=np.uint64))
    for entries in reader.listed(Side.ITEM):
        found = are_known(known, [entry.review_id for entry in entries])
        reader.check([entry for entry, is_known in zip(entries, found, strict=True) if not is_known])
    return NamespaceCheck(
        reviews=len(known),
        missing=reader.missing,
        damaged=reader.damaged,
        damaged_texts=reader.damaged_texts,
        one_sided=reader.one_sided,
        unlisted=[] if reader.damaged_lists else _unlisted(store, namespace, known),
        damaged_lists=reader.damaged_lists,
    )


class _Reader:
    """Reads lists, states and texts, and collects what is wrong with them."""

    def __init__(self, store: MaintenanceStore, namespace: Namespace) -> None:
        self.missing: list[str] = []
        self.damaged: list[tuple[str, str]] = []
        self.damaged_texts: list[str] = []
        self.one_sided: list[ReviewEntry] = []
        self.damaged_lists: list[DamagedList] = []
        self._store = store
        self._namespace = namespace
        self._version = namespace.version

    def listed(self, side: Side) -> Iterator[Sequence[ReviewEntry]]:
        """All lines of all lists of a side, in batches; a list that cannot be read is passed over."""
        for batch in batches(self._store.entities(self._version, side), ENTITIES_A_BATCH):
            try:
                entries = listed_reviews(self._store, self._version, side, batch)
            except CorruptStateError:
                entries = [entry for entity in batch for entry in self._readable_lines(side, entity)]
            yield from batches(entries, STATES_A_BATCH)

    def check(self, entries: Sequence[ReviewEntry]) -> None:
        """Check the states and texts of listed reviews, and that both lists have them."""
        review_ids = [entry.review_id for entry in entries]
        self._check_texts(review_ids)
        states = self._store.states(self._version, review_ids)
        incomplete = self._store.missing(self._version, entries)
        for entry, state, lacks_a_part in zip(entries, states, incomplete, strict=True):
            if state is None:
                self.missing.append(entry.review_id)
                continue
            if lacks_a_part:
                self.one_sided.append(entry)
            try:
                _check_state(entry, state, self._namespace)
            except StateError as error:
                self.damaged.append((entry.review_id, str(error)))

    def _check_texts(self, review_ids: Sequence[str]) -> None:
        if self._texts_are_intact(review_ids):
            return
        self.damaged_texts += [review_id for review_id in review_ids if not self._texts_are_intact([review_id])]

    def _texts_are_intact(self, review_ids: Sequence[str]) -> bool:
        try:
            self._store.texts(self._version, review_ids)
        except CorruptStateError:
            return False
        return True

    def _readable_lines(self, side: Side, entity: str) -> list[ReviewEntry]:
        try:
            return listed_reviews(self._store, self._version, side, [entity])
        except CorruptStateError as error:
            self.damaged_lists.append(DamagedList(side, entity, str(error)))
            return []


def listed_reviews(store: MaintenanceStore, version: str, side: Side, entities: Sequence[str]) -> list[ReviewEntry]:
    """The reviews that the lists of some users, or of some items, name. Raises ``CorruptStateError`` for a bad line."""
    users, items = (entities, ()) if side is Side.USER else ((), entities)
    user_lists, item_lists = store.review_lists(version, users=users, items=items)
    return [entry for entries in (*user_lists, *item_lists) for entry in entries]


def _check_state(entry: ReviewEntry, state: bytes, namespace: Namespace) -> None:
    """Raise ``StateError`` unless this is an intact state of this version, in the shape that its list line promises."""
    shape = state_shape(state, version=namespace.version)
    if shape != (entry.rows, namespace.state_dim):
        raise StateError(f"state has shape {shape}, its review list says {(entry.rows, namespace.state_dim)}")


def _unlisted(store: MaintenanceStore, namespace: Namespace, known: NDArray[np.uint64]) -> list[str]:
    """States that no list named before they were scanned, and none names afterwards: the lists are read again."""
    review_ids = (review_id for review_id, _ in store.state_sizes(namespace.version))
    unknown: set[str] = set()
    while batch := list(islice(review_ids, STATES_A_SCAN)):
        unknown.update(name for name, is_known in zip(batch, are_known(known, batch), strict=True) if not is_known)
    if unknown:
        for side in Side:
            for entries in _Reader(store, namespace).listed(side):
                unknown.difference_update(entry.review_id for entry in entries)
    return sorted(unknown)


def are_known(known: NDArray[np.uint64], review_ids: Sequence[str]) -> list[bool]:
    """For each review: is its digest in ``known``, which is sorted?"""
    digests = np.array(_digests(review_ids), dtype=np.uint64)
    # By binary search: np.isin would sort ``known`` again on every call.
    found: list[bool] = (np.searchsorted(known, digests, "left") < np.searchsorted(known, digests, "right")).tolist()
    return found


def _digests(review_ids: Iterable[str]) -> list[int]:
    return [int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") for name in review_ids]
