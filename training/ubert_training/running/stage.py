"""A stage of the offline pipeline: it owns one directory, and continues there when it is killed and started again."""

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubert_model.errors import BundleError, ConfigError, InputError
from ubert_model.running.atomic import write_text
from ubert_model.running.folder_lock import try_lock
from ubert_training.running.digests import fingerprint_of, fingerprinted, plain

if TYPE_CHECKING:  # `ubert import` opens a stage, and needs no torch
    from accelerate import Accelerator

STAGE_FILE = "stage.json"
DISCARDED = "discarded"
"""The fingerprint of a directory that is being emptied; it matches no stage."""
DIGEST = re.compile(r"[0-9a-f]{16}|[0-9a-f]{32}")
"""The digests of this package; two of them say no more than that something differs."""
MOST_SHOWN = 4
"""Differences that a refusal names; another preset differs in a dozen."""


class Stage:
    """A directory, the inputs of its result, and whether it is finished.

    ``inputs`` is everything that determines the result (tables, splits, options, seeds). Started again with the same
    inputs, a finished stage is left as it is and an unfinished one continues. Other inputs are refused, so that a
    directory never mixes two configurations.
    """

    def __init__(self, directory: Path, kind: str, inputs: Mapping[str, Any]) -> None:
        self.directory = directory
        self.kind = kind
        self.inputs = plain(inputs)

    @property
    def fingerprint(self) -> str:
        """Digest of the kind and the inputs, 16 hexadecimal characters."""
        return fingerprint_of(self.kind, self.inputs)

    @contextlib.contextmanager
    def held(self, accelerator: "Accelerator", *, force: bool = False) -> Iterator[bool]:
        """Open the directory, the main process first, and keep other runs out of it until this one ends.

        Yields and raises as :meth:`open` does; also raises ``InputError`` if another run is at work in the directory.
        All processes leave together.
        """
        with contextlib.ExitStack() as lock:
            with accelerator.main_process_first():
                # A finished stage is only read, so any number of runs may share it.
                if accelerator.is_main_process and not self.is_finished():
                    lock.enter_context(self.locked())
                finished = self.open(force=force)
            yield finished
            accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the directory. Raises ``InputError`` if one is at work in it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with try_lock(self.directory) as ours:
            if not ours:
                raise InputError(f"another run is at work in {self.directory}: wait for it, or give a new directory")
            yield

    def open(self, *, force: bool = False) -> bool:
        """Open the directory. True if the stage is already finished.

        Raises ``ConfigError`` if the directory belongs to another configuration, which ``force`` discards, or if it
        holds anything but a stage, which is never discarded.
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
        """Whether the directory holds the finished result of these very inputs."""
        found = self._found()
        return found is not None and found["fingerprint"] == self.fingerprint and bool(found["finished"])

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Mark the stage as finished, with a summary of the result."""
        self._write(finished=True, summary=plain(summary))

    def _found(self) -> dict[str, Any] | None:
        return read_stage(self.directory) if (self.directory / STAGE_FILE).is_file() else None

    def _holds_something(self) -> bool:
        """Whether there is more than the temporary file that a kill leaves during the very first write."""
        partial = f".{STAGE_FILE}.*.partial"
        return self.directory.exists() and not all(path.match(partial) for path in self.directory.iterdir())

    def _discard(self, found: Mapping[str, Any]) -> None:
        """Empty the directory except for ``stage.json``, which is marked first.

        If that is killed halfway, the directory is no stage's result, but ``force`` may still discard it. The folder
        itself stays, because the lock is on it.
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
            return f"{self.directory} is half discarded by a killed run; give a new directory, or --force to continue"
        differing = list(_differences(fingerprinted(found["inputs"]), fingerprinted(self.inputs)))
        shown = differing[:MOST_SHOWN] or ["kind" if found["kind"] != self.kind else "the version of this program"]
        if len(differing) > MOST_SHOWN:
            shown.append(f"and {len(differing) - MOST_SHOWN} more")
        return (
            f"{self.directory} holds the {found['kind']} of another configuration (it differs in {'; '.join(shown)}); "
            "give a new directory, or --force to discard it"
        )


def read_stage(directory: Path) -> dict[str, Any]:
    """Read a stage's ``stage.json``. Raises ``InputError`` if there is none, or if it is damaged."""
    path = directory / STAGE_FILE
    try:
        with refusing_damage(path):
            content = json.loads(path.read_text(encoding="utf-8"))
            return {name: content[name] for name in ("kind", "fingerprint", "finished", "inputs", "summary")}
    except FileNotFoundError as error:
        raise InputError(f"{directory} holds no {STAGE_FILE}; give the output directory of a training step") from error


@contextlib.contextmanager
def refusing_damage(path: Path, remedy: str = "run its step again with a new directory") -> Iterator[None]:
    """While the JSON of a file in a stage's directory is read: raises ``InputError`` if it is damaged."""
    try:
        yield
    except (BundleError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        cause = error.__cause__ or error  # a bundle's error has the remedy for bundles
        reason = f"{type(cause).__name__}: {cause}"
        raise InputError(f"{path} cannot be read ({reason}); {remedy}") from error


def finished_stage(directory: Path, kind: str) -> dict[str, Any]:
    """Read the ``stage.json`` of a stage. Raises ``InputError`` unless it is of this kind, and finished."""
    found = read_stage(directory)
    if found["kind"] != kind or not found["finished"]:
        state = "unfinished" if found["kind"] == kind else f"a {found['kind']}"
        raise InputError(f"{directory} is {state}; run `ubert {kind}` to its end first")
    return found


def _differences(stored: Mapping[str, Any], asked: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """The inputs that differ: options with both values, digests by name alone."""
    for name in sorted({*stored, *asked}):
        before, now = stored.get(name), asked.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _differences(before, now, f"{within}{name}.")
        elif before != now:
            digests = any(isinstance(value, str) and DIGEST.fullmatch(value) for value in (before, now))
            yield f"{within}{name}" if digests else f"{within}{name}: {before!r}, now {now!r}"
