"""A small reader of compose files and Dockerfiles, with the features that this repository's files use."""

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
    """The files merged, later ones over earlier ones, with variables interpolated from ``environment`` alone."""
    merged: Any = {}
    for file in files:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        merged = _merge(merged, _interpolated(content, environment or {}))
    assert isinstance(merged, dict)
    return merged


def commands_in(file: Path) -> str:
    """The comments of a file, without their marks, such as the commands at the head of the compose file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return "\n".join(line.removeprefix("#") for line in lines if line.startswith("#"))


def environment_of(service: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def volumes_of(service: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """Mounts by their path in the container: the volume or folder, and whether it is writable."""
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
    """The instructions in order, as (name, argument), with continuation lines joined."""

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
        start = max(index for index, (name, _) in enumerate(self.instructions) if name == "FROM")
        return Dockerfile(instructions=self.instructions[start:])

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for line in self.all("ENV") for pair in shlex.split(line))


def _interpolated(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _interpolated(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [_interpolated(item, environment) for item in value]
    if isinstance(value, str):
        text = _VARIABLE.sub(lambda found: environment.get(found["name"]) or found["default"], value)
        assert "$" not in text, f"{value!r}: write a variable as ${{NAME:-default}}, so that none has to be set"
        return text
    return value


def _merge(base: Any, override: Any) -> Any:
    """Mappings merge key by key; a list merged with a mapping, such as build arguments, is one without values."""
    if isinstance(base, list) and isinstance(override, dict):
        base = dict.fromkeys(base)
    if isinstance(base, dict) and isinstance(override, dict):
        shared = {key: _merge(base[key], override[key]) for key in base.keys() & override.keys()}
        return {**base, **override, **shared}
    return override
