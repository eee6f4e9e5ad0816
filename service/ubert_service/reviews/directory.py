"""Prefix search among the identifiers of users or items."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ubert_model.ids import Identities, IdTable
from ubert_service.reading.histories import ReviewList
from ubert_service.resident.residents import Residents
from ubert_service.reviews.rating_counts import RatingCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryEntry:
    """One user or item, and the counts over all of its reviews in the store."""

    identifier: str
    known: bool
    counts: RatingCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryPage:
    """A page of what a search has found; the next one comes after ``next_after``, None on the last page."""

    found: Sequence[DirectoryEntry]
    next_after: str | None


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

    def users(self, prefix: str, *, limit: int, after: str | None = None) -> DirectoryPage:
        """Users whose identifier begins with ``prefix``, ignoring case, in order. Raises ``StoreError``."""
        matches = _matches(prefix, self._ordered_users, limit, after)
        lists = self._residents.review_lists(matches, [], latest=True)
        return _page(matches, lists, self._identities.users, limit)

    def items(self, prefix: str, *, limit: int, after: str | None = None) -> DirectoryPage:
        """Items whose identifier begins with ``prefix``, ignoring case, in order. Raises ``StoreError``."""
        matches = _matches(prefix, self._ordered_items, limit, after)
        lists = self._residents.review_lists([], matches, latest=True)
        return _page(matches, lists, self._identities.items, limit)

    @cached_property
    def _ordered_users(self) -> list[str]:
        return _ordered(self._identities.users)

    @cached_property
    def _ordered_items(self) -> list[str]:
        return _ordered(self._identities.items)


def _matches(prefix: str, ordered: Sequence[str], limit: int, after: str | None) -> list[str]:
    """``prefix`` itself, which may name an entity that came after training, then those that begin with it: of what
    comes ``after``, more than ``limit`` if there are.
    """
    folded = prefix.casefold()
    if after in {None, prefix}:
        start = bisect_left(ordered, folded, key=str.casefold)
    else:
        start = bisect_right(ordered, _place(after), key=_place)
    rest = ordered[start : start + limit + 2]  # one of them may be the prefix
    known = [name for name in rest if name != prefix and name.casefold().startswith(folded)]
    return [prefix, *known] if prefix and after is None else known


def _page(matches: Sequence[str], lists: Sequence[ReviewList], table: IdTable, limit: int) -> DirectoryPage:
    entries = [
        DirectoryEntry(identifier=identifier, known=identifier in table, counts=RatingCounts.of(reviews))
        for identifier, reviews in zip(matches, lists, strict=True)
    ]
    found = [entry for entry in entries if entry.known or entry.counts.count]
    return DirectoryPage(found=found[:limit], next_after=found[limit - 1].identifier if len(found) > limit else None)


def _place(identifier: str) -> tuple[str, str]:
    return identifier.casefold(), identifier


def _ordered(table: IdTable) -> list[str]:
    # Two sorts, since one by a pair of keys would take more than twice as long: a table is mostly in order already.
    return sorted(sorted(table.identifiers), key=str.casefold)
