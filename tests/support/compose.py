"""The compose files and Dockerfiles as their programs read them, so far as this repository's need it."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BASE = ROOT / "docker-compose.yml"
GPU = ROOT / "docker" / "gpu.yml"

_VARIABLE = re.compile(r"\$\{(?P<name>\w+):-(?P<default>[^}]*)\}")


def load_compose(*files: Path, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Later files laid over earlier ones, with variables filled in from ``environment`` alone."""
    merged: Any = {}
    for file in files:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        merged = _merge(merged, _fill_in(content, environment or {}))
    assert isinstance(merged, dict)
    return merged


def environment_of(service: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def volumes_of(service: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """What is mounted, by its path in the container: the volume or folder, and whether it may be written."""
    mounts = {}
    for volume in service.get("volumes", []):
        if isinstance(volume, str):
            source, target, *mode = volume.split(":")
            mounts[target] = (source, mode != ["ro"])
        else:
            mounts[volume["target"]] = (volume["source"], not volume.get("read_only", False))
    return mounts


@dataclass(frozen=True, kw_only=True)
class Dockerfile:
    """Instructions in order, as (name, argument) with continued lines joined."""

    instructions: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, path: Path) -> "Dockerfile":
        lines = (line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#"))
        joined = "\n".join(lines).replace("\\\n", " ")
        parts = (line.partition(" ") for line in joined.splitlines() if line.strip())
        return cls(instructions=tuple((name, argument.strip()) for name, _, argument in parts))

    def all(self, name: str) -> list[str]:
        return [argument for instruction, argument in self.instructions if instruction == name]

    @property
    def last_stage(self) -> "Dockerfile":
        start = max(place for place, (name, _) in enumerate(self.instructions) if name == "FROM")
        return Dockerfile(instructions=self.instructions[start:])

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for line in self.all("ENV") for pair in shlex.split(line))


def _fill_in(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill_in(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill_in(item, environment) for item in value]
    if isinstance(value, str):
        filled = _VARIABLE.sub(lambda found: environment.get(found["name"]) or found["default"], value)
        assert "$" not in filled, f"{value!r}: write a variable as ${{NAME:-default}}, so that none must be set"
        return filled
    return value


def _merge(below: Any, above: Any) -> Any:
    """Mappings merge key by key; a list without values, such as build arguments, is a mapping to nothing."""
    if isinstance(below, list) and isinstance(above, dict):
        below = dict.fromkeys(below)
    if isinstance(below, dict) and isinstance(above, dict):
        shared = {key: _merge(below[key], above[key]) for key in below.keys() & above.keys()}
        return {**below, **above, **shared}
    return above
