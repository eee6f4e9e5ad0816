"""Prefix search among the identifiers of users or items."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ubert_model.history import RatingCounts
from ubert_model.ids import Identities, IdTable
from ubert_service.reading.histories import ReviewList
from ubert_service.resident.residents import Residents


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

    def __init__(self, *, identities: Identities, residents: Residents) -> None:
        self._identities = identities
        self._residents = residents

    def sort_identifiers(self) -> None:
        """Sort now, not in the first search: a million identifiers take a second in which no other thread runs."""
        _ = self._ordered_users, self._ordered_items

    def users(self, prefix: str, *, limit: int) -> list[DirectoryEntry]:
        """Users whose identifier begins with ``prefix``, ignoring case, in order. Raises ``StoreError``."""
        matches = _matches(prefix, self._ordered_users, limit)
        lists = self._residents.review_lists(matches, [], latest=True)
        return _found(matches, lists, self._identities.users)[:limit]

    def items(self, prefix: str, *, limit: int) -> list[DirectoryEntry]:
        """Items whose identifier begins with ``prefix``, ignoring case, in order. Raises ``StoreError``."""
        matches = _matches(prefix, self._ordered_items, limit)
        lists = self._residents.review_lists([], matches, latest=True)
        return _found(matches, lists, self._identities.items)[:limit]

    @cached_property
    def _ordered_users(self) -> list[str]:
        return _ordered(self._identities.users)

    @cached_property
    def _ordered_items(self) -> list[str]:
        return _ordered(self._identities.items)


def _matches(prefix: str, ordered: Sequence[str], limit: int) -> list[str]:
    """``prefix`` itself, which may name an entity that came after training, then those that begin with it."""
    folded = prefix.casefold()
    start = bisect_left(ordered, folded, key=str.casefold)
    known = [name for name in ordered[start : start + limit] if name.casefold().startswith(folded)]
    return list(dict.fromkeys([prefix, *known] if prefix else known))


def _found(matches: Sequence[str], lists: Sequence[ReviewList], table: IdTable) -> list[DirectoryEntry]:
    found = [
        DirectoryEntry(identifier=identifier, known=identifier in table, counts=RatingCounts.of(reviews))
        for identifier, reviews in zip(matches, lists, strict=True)
    ]
    return [entry for entry in found if entry.known or entry.counts.count]


def _ordered(table: IdTable) -> list[str]:
    # Two sorts, since one by a pair of keys would take more than twice as long: a table is mostly in order already.
    return sorted(sorted(table.identifiers), key=str.casefold)
