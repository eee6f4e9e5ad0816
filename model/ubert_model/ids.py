"""Identifiers of users, items and domains, and the rows of their embeddings."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ubert_model.errors import BundleError


class IdTable:
    """The identifiers seen in training, in a fixed order. Row 0 is reserved for all others."""

    def __init__(self, identifiers: Iterable[str]) -> None:
        self.identifiers = tuple(identifiers)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {identifier: row for row, identifier in enumerate(self.identifiers, start=1)}

    def row(self, identifier: str) -> int:
        """Embedding row of an identifier; 0 if training has not seen it."""
        return self._rows.get(identifier, 0)

    def rows(self, identifiers: Iterable[str]) -> NDArray[np.int64]:
        """Embedding rows of many identifiers, (N,)."""
        known = self._rows
        return np.fromiter((known.get(identifier, 0) for identifier in identifiers), dtype=np.int64)

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._rows

    def __len__(self) -> int:
        return len(self.identifiers)

    @classmethod
    def of(cls, identifiers: Iterable[str]) -> Self:
        """A table of the distinct identifiers, sorted, so that it does not depend on the order of reviews."""
        return cls(sorted(set(identifiers)))


class Identities:
    """All identifiers of a model, and the domain of each known item.

    An item that training has not seen is assumed to belong to ``default_domain``, the target domain.
    """

    def __init__(
        self, users: IdTable, items: IdTable, domains: IdTable, item_domains: Mapping[str, str], default_domain: str
    ) -> None:
        self.users = users
        self.items = items
        self.domains = domains
        self.item_domains = dict(item_domains)
        self.default_domain = default_domain

    def domain_row(self, item: str) -> int:
        """Embedding row of the item's domain."""
        return self.domains.row(self.item_domains.get(item, self.default_domain))

    def to_json(self) -> dict[str, Any]:
        """The identifiers as plain values, an item's domain as its row."""
        return {
            "users": list(self.users.identifiers),
            "items": list(self.items.identifiers),
            "domains": list(self.domains.identifiers),
            "item_domains": [self.domain_row(item) for item in self.items.identifiers],
            "default_domain": self.default_domain,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`. Raises ``BundleError`` on another shape."""
        try:
            users, items, domains = (IdTable(_strings(values[name])) for name in ("users", "items", "domains"))
            names = dict(enumerate(("", *domains.identifiers)))
            pairs = zip(items.identifiers, values["item_domains"], strict=True)
            return cls(users, items, domains, {item: names[row] for item, row in pairs}, values["default_domain"])
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"identifiers: {error!r}; export the bundle again") from error


def _strings(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"expected a list of identifiers, not {type(values).__name__}")
    return values
