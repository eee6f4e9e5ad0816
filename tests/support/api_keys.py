"""Keys of the service's callers."""

from collections.abc import Iterable
from pathlib import Path

from ubert_service.access.keys import new_key


def write_keys(path: Path, **scopes: Iterable[str]) -> dict[str, str]:
    """Write the file that lists a new key for each name, with its scopes. Returns the keys."""
    made = {name: new_key(name, allowed) for name, allowed in scopes.items()}
    path.write_text("".join(table for _, table in made.values()), encoding="utf-8")
    return {name: key for name, (key, _) in made.items()}
