"""Digests of what determines a result, and its values in the form that JSON can hold."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

NOT_FINGERPRINTED = frozenset({"device", "checkpoint_seconds"})
"""Options that do not change the result: a run may continue with other values."""


def fingerprint_of(kind: str, inputs: Mapping[str, Any]) -> str:
    """Digest of everything that determines a result, 16 hexadecimal characters; ``NOT_FINGERPRINTED`` is left out."""
    content = json.dumps([kind, fingerprinted(plain(inputs))], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def fingerprinted(value: Any) -> Any:
    """Plain values without the options in ``NOT_FINGERPRINTED``, at any depth."""
    if isinstance(value, dict):
        return {name: fingerprinted(item) for name, item in value.items() if name not in NOT_FINGERPRINTED}
    return [fingerprinted(item) for item in value] if isinstance(value, list) else value


def digest_of(names: Iterable[str]) -> str:
    """Digest of a long list of identifiers, to stand for it in a stage's inputs; 16 hexadecimal characters."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """Convert dataclasses, paths, tuples and mappings to values that JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
