"""Which version of this program's code computed a cell."""

import functools
import hashlib
from pathlib import Path

import ubert_model
import ubert_training

WITHOUT_EFFECT = ("accuracy", "commands", "planning", "reviews")
"""Packages that affect no prediction from a given review table."""


@functools.cache
def code_digest() -> str:
    """16 hexadecimal characters over the sources that a rating depends on."""
    digest = hashlib.sha256()
    for package in (ubert_model, ubert_training):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            place = path.relative_to(root)
            if place.parts[0] not in WITHOUT_EFFECT:
                digest.update(f"{root.name}/{place.as_posix()}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
