"""Whether a store holds what a bundle reads; without it every user and every item would pass for a stranger."""

from collections.abc import Sequence

from ubert_model.states import Namespace, StateStore
from ubert_service.errors import NotReadyError


def absence_of(namespace: Namespace, found: Sequence[Namespace]) -> str | None:
    """What is to be told if ``namespace`` is not among those that a store holds; else None."""
    if namespace in found:
        return None
    codecs = ", ".join(sorted(one.codec for one in found if one.encoder_digest == namespace.encoder_digest))
    others = f"; of its encoder it has them under {codecs}: start with --codec, or precompute" if codecs else ""
    return f"the store has no states of version {namespace.version} under codec {namespace.codec}{others}"


def require_namespace(store: StateStore, namespace: Namespace) -> None:
    """Ask the store once. Raises ``NotReadyError``."""
    absence = absence_of(namespace, store.namespaces())
    if absence is not None:
        raise NotReadyError(f"{absence}; `ubert precompute` writes them")
