"""Checks that a store holds a bundle's namespace. Without it, every user and item would pass for a cold start."""

from collections.abc import Sequence
from dataclasses import dataclass

from ubert_model.states import Namespace, StateStore
from ubert_service.errors import NotReadyError

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Absence:
    """A store lacks a namespace: what was found instead, and what to do unless the states are to be made."""

    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found}: {self.remedy}, or `ubert precompute` the reviews"


def absence_of(namespace: Namespace, found: Sequence[Namespace]) -> Absence | None:
    """Why a store that holds the namespaces ``found`` cannot serve ``namespace``; None if it can."""
    if namespace in found:
        return None
    lacks = f"the store has no states of version {namespace.version} under codec {namespace.codec}"
    codecs = sorted(held.codec for held in found if held.encoder_digest == namespace.encoder_digest)
    if codecs:
        return Absence(f"{lacks}; it has them under {', '.join(codecs)}", f"use --codec {' or '.join(codecs)}")
    others = ", ".join(f"{held.version} ({held.codec})" for held in found[:_NAMED])
    return Absence(f"{lacks}; it holds {others or 'none at all'}", "correct --bundle or --store")


def require_namespace(store: StateStore, namespace: Namespace) -> None:
    """Raise ``NotReadyError`` if the store lacks the namespace. One round trip."""
    absence = absence_of(namespace, store.namespaces())
    if absence is not None:
        raise NotReadyError(str(absence))
