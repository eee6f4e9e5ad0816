"""A step of the offline pipeline that owns one directory, and can be killed and started again."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, cast

from ubert_model.atomic import write_text
from ubert_model.errors import ConfigError, InputError

STAGE_FILE = "stage.json"


class Stage:
    """A directory, what was asked of it, and whether it is finished.

    ``inputs`` is everything that determines the result (tables, splits, options, seeds) as plain values. Started
    again with the same inputs, a finished stage is left as it is and an unfinished one continues; with others it
    is refused, so that a directory never mixes two configurations.
    """

    def __init__(self, directory: Path, kind: str, inputs: Mapping[str, Any]) -> None:
        self.directory = directory
        self.kind = kind
        self.inputs = plain(inputs)

    @property
    def fingerprint(self) -> str:
        """Digest of what was asked, 16 hexadecimal characters."""
        return fingerprint_of(self.kind, self.inputs)

    def open(self, *, force: bool = False) -> bool:
        """Claim the directory. True if the stage is already finished; ``force`` discards what others left.

        Raises ``ConfigError`` if the directory belongs to another configuration or holds something else.
        """
        path = self.directory / STAGE_FILE
        found = read_stage(self.directory) if path.is_file() else None
        if found is not None and found["fingerprint"] == self.fingerprint:
            return bool(found["finished"])
        if self.directory.exists() and any(self.directory.iterdir()):
            if not (force and found is not None):
                raise ConfigError(self._refusal(found))
            shutil.rmtree(self.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write(finished=False, summary={})
        return False

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Mark the stage as finished and record what came out."""
        self._write(finished=True, summary=plain(summary))

    def _write(self, *, finished: bool, summary: Mapping[str, Any]) -> None:
        content = {
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "finished": finished,
            "inputs": self.inputs,
            "summary": summary,
        }
        write_text(self.directory / STAGE_FILE, json.dumps(content, indent=2) + "\n")

    def _refusal(self, found: Mapping[str, Any] | None) -> str:
        if found is None:
            return f"{self.directory} is not empty and no output of `ubert {self.kind}`; give a new directory"
        differing = sorted(
            name for name in {*self.inputs, *found["inputs"]} if self.inputs.get(name) != found["inputs"].get(name)
        )
        return (
            f"{self.directory} holds the {found['kind']} of another configuration (it differs in "
            f"{', '.join(differing) or 'kind'}); give a new directory, or --force to discard it"
        )


def read_stage(directory: Path) -> dict[str, Any]:
    """What a stage wrote of itself. Raises ``InputError`` if the directory is none."""
    path = directory / STAGE_FILE
    try:
        return cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"{directory} holds no {STAGE_FILE}; give the output directory of a training step") from error
    except ValueError as error:
        raise InputError(f"{path} cannot be read ({error}); run its step again into a new directory") from error


def finished_stage(directory: Path, kind: str) -> dict[str, Any]:
    """The same for a stage that a later one builds on: it must be of that kind, and finished."""
    found = read_stage(directory)
    if found["kind"] != kind or not found["finished"]:
        state = "unfinished" if found["kind"] == kind else f"a {found['kind']}"
        raise InputError(f"{directory} is {state}; run `ubert {kind}` to its end first")
    return found


def fingerprint_of(kind: str, inputs: Mapping[str, Any]) -> str:
    """Digest of all that determines a result, 16 hexadecimal characters."""
    return hashlib.sha256(json.dumps([kind, plain(inputs)], sort_keys=True).encode()).hexdigest()[:16]


def digest_of(names: Iterable[str]) -> str:
    """Stands for a long list of identifiers among a stage's inputs."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """Dataclasses, paths, tuples and mappings as what JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
