"""A step of the offline pipeline that owns one directory, and can be killed and started again."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ubert_model.errors import ConfigError, InputError
from ubert_model.running.atomic import write_text
from ubert_model.running.claims import claimed

if TYPE_CHECKING:  # `ubert split`, too, takes digests from here, and needs no torch
    from accelerate import Accelerator

STAGE_FILE = "stage.json"
DISCARDED = "discarded"
"""The fingerprint of a directory that is being emptied: nobody's."""
NO_PART_OF_THE_RESULT = frozenset({"device", "checkpoint_seconds"})
"""Options that say how a run is done and not what comes out: a run may be continued under others."""


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

    @contextlib.contextmanager
    def held(self, accelerator: "Accelerator", *, force: bool = False) -> Iterator[bool]:
        """Open the directory and keep other runs out of it until this one ends: on its main process, which opens first.

        Yields and raises as :meth:`open` does. Raises ``InputError``, too, where another run is at work in it. All
        processes leave together.
        """
        with contextlib.ExitStack() as claim:
            with accelerator.main_process_first():
                # What is finished is only read, by as many as like.
                if accelerator.is_main_process and not self.is_finished():
                    claim.enter_context(self.claimed())
                finished = self.open(force=force)
            yield finished
            accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other runs out of the directory. Raises ``InputError`` where one is at work in it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with claimed(self.directory) as ours:
            if not ours:
                raise InputError(f"another run is at work in {self.directory}: wait for it, or give a new directory")
            yield

    def open(self, *, force: bool = False) -> bool:
        """Take the directory over. True if the stage is already finished; ``force`` discards what others left.

        Raises ``ConfigError`` if the directory belongs to another configuration or holds something else.
        """
        found = self._found()
        if found is not None and found["fingerprint"] == self.fingerprint:
            return bool(found["finished"])
        if self._holds_something():
            if not (force and found is not None):
                raise ConfigError(self._refusal(found))
            self._discard(found)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write(finished=False, summary={})
        return False

    def is_finished(self) -> bool:
        """Does the directory hold the very result that is asked for?"""
        found = self._found()
        return found is not None and found["fingerprint"] == self.fingerprint and bool(found["finished"])

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Mark the stage as finished and record what came out."""
        self._write(finished=True, summary=plain(summary))

    def _found(self) -> dict[str, Any] | None:
        return read_stage(self.directory) if (self.directory / STAGE_FILE).is_file() else None

    def _holds_something(self) -> bool:
        """Anything but what a kill leaves of the very first write."""
        unborn = f".{STAGE_FILE}.*.partial"
        return self.directory.exists() and not all(path.match(unborn) for path in self.directory.iterdir())

    def _discard(self, found: Mapping[str, Any]) -> None:
        """Empty the directory but for its ``stage.json``, marked before: killed in between, it is taken for nobody's
        result, and yet for one that ``force`` may discard. The folder itself stays, since it is what is claimed.
        """
        self._write_content({**found, "fingerprint": DISCARDED, "finished": False, "summary": {}})
        for path in self.directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != STAGE_FILE:
                path.unlink()

    def _write(self, *, finished: bool, summary: Mapping[str, Any]) -> None:
        content = {
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "finished": finished,
            "inputs": self.inputs,
            "summary": summary,
        }
        self._write_content(content)

    def _write_content(self, content: Mapping[str, Any]) -> None:
        write_text(self.directory / STAGE_FILE, json.dumps(content, indent=2) + "\n")

    def _refusal(self, found: Mapping[str, Any] | None) -> str:
        if found is None:
            return f"{self.directory} is not empty and no output of `ubert {self.kind}`; give a new directory"
        if found["fingerprint"] == DISCARDED:
            return f"{self.directory} was being discarded when its run ended; give a new directory, or --force to go on"
        asked, there = _determining(self.inputs), _determining(found["inputs"])
        differing = sorted(name for name in {*asked, *there} if asked.get(name) != there.get(name))
        other = "kind" if found["kind"] != self.kind else "the version of this program"
        return (
            f"{self.directory} holds the {found['kind']} of another configuration (it differs in "
            f"{', '.join(differing) or other}); give a new directory, or --force to discard it"
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
    """Digest of all that determines a result, 16 hexadecimal characters; ``NO_PART_OF_THE_RESULT`` is left out."""
    determining = _determining(plain(inputs))
    return hashlib.sha256(json.dumps([kind, determining], sort_keys=True).encode()).hexdigest()[:16]


def _determining(value: Any) -> Any:
    """Plain values without those that are no part of the result, however deep they stand."""
    if isinstance(value, dict):
        return {name: _determining(item) for name, item in value.items() if name not in NO_PART_OF_THE_RESULT}
    return [_determining(item) for item in value] if isinstance(value, list) else value


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
