"""Prefix search among the identifiers of users or items."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ubert_model.history import RatingCounts
from ubert_model.ids import Identities, IdTable
from ubert_model.states import Namespace, ReviewEntry, StateStore
from ubert_service.reading.namespaces import require_namespace

_ReviewLists = Callable[[str, Sequence[str]], list[list[ReviewEntry]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryEntry:
    """One user or item, and the counts over all of its reviews in the store."""

    identifier: str
    known: bool
    counts: RatingCounts


class EntityDirectory:
    """Finds users and items. Thread-safe. Raises ``NotReadyError`` for a store without the namespace.

    It searches the identifiers seen in training, which the bundle holds in memory; to search the store's would scan all
    of it. Entities that came later are found by their full identifier.
    """

    def __init__(self, *, identities: Identities, namespace: Namespace, store: StateStore) -> None:
        self._identities = identities
        self._namespace = namespace
        self._store = store

    def sort_identifiers(self) -> None:
        """Sort now, not in the first search: a million identifiers take a second in which no other thread runs."""
        _ = self._ordered_users, self._ordered_items

    def users(self, prefix: str, *, limit: int) -> list[DirectoryEntry]:
        """Users whose identifier begins with ``prefix``, ignoring case, in order. Raises ``StoreError``."""
        return self._found(prefix, limit, self._ordered_users, self._identities.users, self._store.user_reviews)

    def items(self, prefix: str, *, limit: int) -> list[DirectoryEntry]:
        """Items whose identifier begins with ``prefix``, ignoring case, in order. Raises ``StoreError``."""
        return self._found(prefix, limit, self._ordered_items, self._identities.items, self._store.item_reviews)

    @cached_property
    def _ordered_users(self) -> list[str]:
        return _ordered(self._identities.users)

    @cached_property
    def _ordered_items(self) -> list[str]:
        return _ordered(self._identities.items)

    def _found(
        self, prefix: str, limit: int, ordered: Sequence[str], table: IdTable, reviews: _ReviewLists
    ) -> list[DirectoryEntry]:
        exact = [prefix] if prefix else []
        matches = list(dict.fromkeys([*exact, *_beginning_with(prefix, ordered, limit)]))
        lists = reviews(self._namespace.version, matches)
        if matches and not any(lists):
            require_namespace(self._store, self._namespace)
        found = [
            DirectoryEntry(identifier=identifier, known=identifier in table, counts=RatingCounts.of(entries))
            for identifier, entries in zip(matches, lists, strict=True)
            if entries or identifier in table
        ]
        return found[:limit]


def _ordered(table: IdTable) -> list[str]:
    # Two sorts, since one by a pair of keys would take more than twice as long: a table is mostly in order already.
    return sorted(sorted(table.identifiers), key=str.casefold)


def _beginning_with(prefix: str, ordered: Sequence[str], limit: int) -> list[str]:
    folded = prefix.casefold()
    start = bisect_left(ordered, folded, key=str.casefold)
    return [name for name in ordered[start : start + limit] if name.casefold().startswith(folded)]
