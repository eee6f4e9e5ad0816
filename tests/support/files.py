"""What a folder holds, and scripts in place of programs."""

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of each file of a folder by its name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def shell_script(path: Path, text: str) -> Path:
    """Write an executable script in an existing or new folder."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path
