"""Test data of the store suites: a namespace, reviews, and bytes in place of their states."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ubert_model.review import ReviewEntry, Side
from ubert_model.states import MaintenanceStore, Namespace, StateStore

VERSION = "00112233445566aa"
OTHER_VERSION = "ffffffffffffffff"
SURPLUS = float(np.float32(-0.4))


def namespace_of(version: str = VERSION, encoder_digest: str = "encoder") -> Namespace:
    return Namespace(version=version, encoder_digest=encoder_digest, codec="int8", state_dim=8, max_length=128)


def review_of(
    review_id: str,
    user: str = "u",
    item: str = "i",
    *,
    timestamp: int = 0,
    rating: float = 4.0,
    surplus: float = SURPLUS,
) -> ReviewEntry:
    return ReviewEntry(
        review_id=review_id,
        user=user,
        item=item,
        rating=rating,
        timestamp=timestamp,
        rows=len(review_id),
        surplus=surplus,
    )


def state_of(review_id: str, size: int = 32) -> bytes:
    return (review_id.encode() + b"|").ljust(size, b"\xff")[:size]


def numbered_reviews(count: int, *, size: int = 32, reviews_a_user: int = 50) -> list[tuple[ReviewEntry, bytes]]:
    entries = [
        review_of(f"r{number}", f"u{number // reviews_a_user}", f"i{number % 97}", timestamp=number)
        for number in range(count)
    ]
    return [(entry, state_of(entry.review_id, size)) for entry in entries]


def user_reviews(store: StateStore, version: str, users: Sequence[str]) -> list[list[ReviewEntry]]:
    """Each user's review list."""
    return store.review_lists(version, users=users)[0]


def item_reviews(store: StateStore, version: str, items: Sequence[str]) -> list[list[ReviewEntry]]:
    """Each item's review list."""
    return store.review_lists(version, items=items)[1]


def contents(store: MaintenanceStore, version: str) -> dict[str, Any]:
    """Everything that a namespace holds, to the byte, except claims, leases and changes; comparable between stores."""
    users, items = (store.entities(version, side) for side in Side)
    user_lists, item_lists = store.review_lists(version, users=users, items=items)
    names = sorted(name for name, _ in store.state_sizes(version))
    return {
        "users": dict(zip(users, user_lists, strict=True)),
        "items": dict(zip(items, item_lists, strict=True)),
        "states": dict(zip(names, store.states(version, names), strict=True)),
        "texts": dict(zip(names, store.texts(version, names), strict=True)),
        "shards": store.finished_shards(version),
    }
