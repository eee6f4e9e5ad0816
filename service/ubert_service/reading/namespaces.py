"""Checks that a store holds a bundle's namespace. Without it, every user and item would pass for a cold start."""

from collections.abc import Sequence

from ubert_model.states import Namespace, StateStore
from ubert_service.errors import NotReadyError


def absence_of(namespace: Namespace, found: Sequence[Namespace]) -> str | None:
    """Why a store that holds the namespaces ``found`` cannot serve ``namespace``; None if it can."""
    if namespace in found:
        return None
    codecs = ", ".join(sorted(held.codec for held in found if held.encoder_digest == namespace.encoder_digest))
    others = f"; it has them under codec {codecs}: start with that --codec, or precompute" if codecs else ""
    return f"the store has no states of version {namespace.version} under codec {namespace.codec}{others}"


def require_namespace(store: StateStore, namespace: Namespace) -> None:
    """Raise ``NotReadyError`` if the store lacks the namespace. One round trip."""
    absence = absence_of(namespace, store.namespaces())
    if absence is not None:
        raise NotReadyError(f"{absence}; `ubert precompute` writes them")
