"""Named sets of items, stored once for `/rank`. They are independent of bundles."""

from collections.abc import Sequence

from ubert_model.errors import InputError
from ubert_model.states import StateStore
from ubert_service.errors import UnknownCandidateSetError

MAX_SETS = 100


class CandidateSets:
    """Candidate sets in the state store. Thread-safe and stateless."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    def names(self) -> list[str]:
        """The names of all sets, in order. Raises ``StoreError``."""
        return self._store.candidate_sets()

    def write(self, name: str, items: Sequence[str]) -> list[str]:
        """Store a set under a name, replacing any earlier one; returns its distinct items, in order.

        Raises ``InputError`` if there are ``MAX_SETS`` already (concurrent writes may exceed that by their number), and
        ``StoreError``.
        """
        names = self._store.candidate_sets()
        if name not in names and len(names) >= MAX_SETS:
            raise InputError(f"there are {len(names)} candidate sets already (limit {MAX_SETS}); delete one first")
        distinct = list(dict.fromkeys(items))
        self._store.put_candidates(name, distinct)
        return distinct

    def read(self, name: str) -> list[str]:
        """Raises ``UnknownCandidateSetError`` and ``StoreError``."""
        items = self._store.candidates(name)
        if items is None:
            raise UnknownCandidateSetError(f"there is no candidate set {name!r}; PUT /candidate-sets/{name} makes one")
        return items

    def remove(self, name: str) -> None:
        """Raises ``UnknownCandidateSetError`` and ``StoreError``."""
        if not self._store.delete_candidates(name):
            raise UnknownCandidateSetError(f"there is no candidate set {name!r}")
