"""The parts of `ubert demo` around the pipeline: which reviews to use, the service, and the ratings it serves."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from ubert_model.errors import ConfigError, UbertError
from ubert_model.running.atomic import write_text
from ubert_model.running.batches import batches
from ubert_model.states import StateCodec
from ubert_training.corpora.corpus import fetch_musical_instruments
from ubert_training.corpora.synth import SynthOptions, write_corpus
from ubert_training.reviews.options import ImportOptions
from ubert_training.reviews.table import ReviewTable

if TYPE_CHECKING:  # so that a wrong path or flag is reported before torch is imported
    from ubert_training.evaluation.read_pairs import ReadPairs

LISTENING = re.compile(r"listening on (http://\S+)")
PAIRS_A_REQUEST = 100
MOST_CANDIDATES = 10_000
"""Limit of one request to ``/rank``."""
START_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class ReviewSource:
    """The review files that a demo works on, how to import them, and the line it prints about them."""

    files: tuple[Path, ...]
    options: ImportOptions
    description: str


def choose_reviews(
    given: Path | None, options: ImportOptions, directory: Path, seed: int, *, force: bool = False
) -> ReviewSource:
    """The given file; else Musical Instruments, downloaded once; else (offline) a synthetic corpus, labelled as such.

    ``options`` are those for the given file. ``force`` replaces a synthetic corpus of another seed, which
    otherwise raises ``ConfigError``.
    """
    if given is not None:
        return ReviewSource(files=(given,), options=options, description=f"your reviews, {given}")
    downloaded = fetch_musical_instruments()
    if downloaded is not None:
        return ReviewSource(
            files=(downloaded,),
            options=ImportOptions(),
            description=f"Amazon Musical Instruments 5-core (J. McAuley), {downloaded}",
        )
    synthetic = write_corpus(directory / "synthetic", SynthOptions(seed=seed), force=force)
    return ReviewSource(
        files=(synthetic.reviews,),
        options=ImportOptions(item_domains=synthetic.item_domains),
        description=f"SYNTHETIC reviews (offline: nothing could be downloaded), {synthetic.reviews}",
    )


def require_free_port(port: int) -> None:
    """Raise ``ConfigError`` if the service could not listen on ``port``; 0 stands for any free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the service does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(f"port = {port}: {error.strerror}; give another --port, or 0 for any free one") from error


@dataclass(frozen=True, kw_only=True)
class ServiceProcess:
    """`ubert-serve` as a child process, and the URL it listens on."""

    process: "subprocess.Popen[str]"
    url: str


@contextmanager
def running_service(bundle: Path, store: str, codec: str, port: int, log: Path) -> Iterator[ServiceProcess]:
    """Start the service, wait until it listens, and stop it gracefully on exit. Its output goes to the file ``log``.

    Meanwhile SIGTERM is ``KeyboardInterrupt``, so that it ends the service, too. For the main thread alone.

    Raises ``UbertError`` with the last line of output if the service does not start.
    """
    command = [sys.executable, "-m", "ubert_service", "--bundle", str(bundle), "--store", store]
    command += ["--codec", codec, "--port", str(port), "--texts"]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            output = _Output(process, log)
            try:
                yield ServiceProcess(process=process, url=output.wait_for_url())
            finally:
                process.terminate()
                output.join()
    finally:
        signal.signal(signal.SIGTERM, before)


class _Output:
    """Copies the service's output to a log file, and extracts the URL that it listens on."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._listening_or_ended = threading.Event()
        self._url: str | None = None
        self._last_line = "no output"
        self._thread = threading.Thread(target=self._copy, args=(process, log), daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the service has ended and its last line is written."""
        self._thread.join()

    def wait_for_url(self) -> str:
        """The URL of the service, once it listens. Raises ``UbertError`` if it does not start."""
        self._listening_or_ended.wait(START_TIMEOUT_S)
        if self._url is None:
            raise UbertError(f"the service did not start: {self._last_line}")
        return self._url

    def _copy(self, process: "subprocess.Popen[str]", log: Path) -> None:
        assert process.stdout is not None
        with log.open("w", encoding="utf-8") as file:
            for line in process.stdout:
                file.write(line)
                file.flush()
                self._last_line = line.strip() or self._last_line
                if match := LISTENING.search(line):
                    self._url = match.group(1)
                    self._listening_or_ended.set()
        self._listening_or_ended.set()


@dataclass(frozen=True, kw_only=True)
class ServedCheck:
    """Ratings over HTTP, compared with offline ratings from states of the same codec, in stars."""

    codec: str
    pairs: int
    largest_difference: float
    mse: float

    def save(self, path: Path) -> None:
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")


def check_served_ratings(url: str, read: "ReadPairs", codec: StateCodec) -> ServedCheck:
    """Compare the service's ratings with those of the model on states that went through the same codec.

    The difference is therefore rounding alone, whatever the codec loses; ``ubert bench states`` measures that loss.
    """
    table = read.run.table
    pairs = [{"user": table.user[row], "item": table.item[row]} for row in read.histories.pairs]
    answers = [_post(f"{url}/predict", {"pairs": batch}) for batch in batches(pairs, PAIRS_A_REQUEST)]
    ratings = np.array([prediction["rating"] for answer in answers for prediction in answer["predictions"]])
    return ServedCheck(
        codec=codec.name,
        pairs=len(pairs),
        largest_difference=float(np.abs(ratings - read.stored_ratings(codec)).max()),
        mse=float(np.square(ratings - read.truth).mean()),
    )


def rankable_items(table: ReviewTable) -> list[str]:
    """The items of the table, at most as many as one request may name."""
    return sorted(set(table.item))[:MOST_CANDIDATES]


def best_items(url: str, user: str, candidates: Sequence[str], top_k: int) -> list[dict[str, Any]]:
    """The user's best candidates, ranked by the service's ``/rank``."""
    answer = _post(f"{url}/rank", {"user": user, "candidates": list(candidates), "top_k": top_k})
    items: list[dict[str, Any]] = answer["items"]
    return items


def _post(url: str, body: Mapping[str, object]) -> dict[str, Any]:
    """The service's answer. Raises ``UbertError`` for a failed request or an error status."""
    try:
        response = httpx.post(url, json=body, timeout=60, trust_env=False)  # through no proxy: it runs on this machine
        response.raise_for_status()
    except httpx.HTTPError as error:
        reason = str(error).partition("\n")[0]
        raise UbertError(f"the service gave no answer ({reason}); see service.log, then run the demo again") from error
    answer: dict[str, Any] = response.json()
    return answer
