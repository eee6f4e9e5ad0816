"""What a folder holds."""

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of each file of a folder by its name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
