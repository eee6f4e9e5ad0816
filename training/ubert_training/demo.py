"""`ubert demo`: the whole path on one machine, from a file of reviews to ratings over HTTP."""

import json
import re
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

from ubert_model.errors import UbertError
from ubert_model.running.atomic import write_text
from ubert_model.running.batches import batches
from ubert_model.states import StateCodec
from ubert_training.corpora.corpus import fetch_musical_instruments
from ubert_training.corpora.synth import SynthOptions, write_corpus
from ubert_training.reviews.table import ReviewTable

if TYPE_CHECKING:  # a wrong path or flag is said before torch is there
    from ubert_training.evaluation.stored_ratings import ReadPairs

LISTENING = re.compile(r"listening on (http://\S+)")
PAIRS_A_REQUEST = 100
MOST_CANDIDATES = 10_000
"""Of one request to ``/rank``."""
START_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class ReviewSource:
    """The review file that a demo works on, and what to say about it."""

    files: tuple[Path, ...]
    item_domains: Path | None
    description: str


def choose_reviews(given: Path | None, item_domains: Path | None, directory: Path, seed: int) -> ReviewSource:
    """The given file; else Musical Instruments, downloaded once; else (offline) a synthetic corpus, labelled so."""
    if given is not None:
        return ReviewSource(files=(given,), item_domains=item_domains, description=f"your reviews, {given}")
    downloaded = fetch_musical_instruments()
    if downloaded is not None:
        return ReviewSource(
            files=(downloaded,),
            item_domains=item_domains,
            description=f"Amazon Musical Instruments 5-core (J. McAuley), {downloaded}",
        )
    synthetic = write_corpus(directory / "synthetic", SynthOptions(seed=seed))
    return ReviewSource(
        files=(synthetic.reviews,),
        item_domains=synthetic.item_domains,
        description=f"SYNTHETIC reviews (offline: nothing could be downloaded), {synthetic.reviews}",
    )


@dataclass(frozen=True, kw_only=True)
class ServiceProcess:
    """`ubert-serve` as a child process, and where it answers."""

    process: "subprocess.Popen[str]"
    url: str


@contextmanager
def running_service(bundle: Path, store: str, codec: str, port: int, log: Path) -> Iterator[ServiceProcess]:
    """Start the service and wait until it listens; on leaving, end it gracefully. Its log goes to a file.

    Raises ``UbertError`` with the log's last line if it does not start.
    """
    command = [sys.executable, "-m", "ubert_service.commands.serve", "--bundle", str(bundle), "--store", store]
    command += ["--codec", codec, "--port", str(port), "--texts"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        output = _Output(process, log)
        try:
            yield ServiceProcess(process=process, url=output.address())
        finally:
            process.terminate()
            output.join()


class _Output:
    """Copies the service's output to a log file, and picks out the address that it listens on."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._found = threading.Event()
        self._url: str | None = None
        self._last_line = "no output"
        self._thread = threading.Thread(target=self._copy, args=(process, log), daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Until the service has ended and its last line is written."""
        self._thread.join()

    def address(self) -> str:
        """Where the service listens, as soon as it does."""
        self._found.wait(START_TIMEOUT_S)
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
                    self._found.set()
        self._found.set()


@dataclass(frozen=True, kw_only=True)
class ServedCheck:
    """Ratings over HTTP beside offline ratings from states of the same codec: how far apart they are, in stars."""

    codec: str
    pairs: int
    largest_difference: float
    mse: float

    def save(self, path: Path) -> None:
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")


def check_served_ratings(url: str, read: "ReadPairs", codec: StateCodec) -> ServedCheck:
    """Ask the service for pairs, and compare with what the model makes of states that went through the same codec.

    So the bound is that of exact arithmetic, whatever the codec loses; that is measured by ``ubert bench states``.
    """
    table = read.run.table
    asked = [{"user": table.user[row], "item": table.item[row]} for row in read.histories.pairs]
    answers = [_asked(f"{url}/predict", {"pairs": batch}) for batch in batches(asked, PAIRS_A_REQUEST)]
    ratings = np.array([prediction["rating"] for answer in answers for prediction in answer["predictions"]])
    return ServedCheck(
        codec=codec.name,
        pairs=len(asked),
        largest_difference=float(np.abs(ratings - read.stored_ratings(codec)).max()),
        mse=float(np.square(ratings - read.truth).mean()),
    )


def rankable_items(table: ReviewTable) -> list[str]:
    """The items of the table, as many as one request may name."""
    return sorted(set(table.item))[:MOST_CANDIDATES]


def best_items(url: str, user: str, candidates: Sequence[str], top_k: int) -> list[dict[str, Any]]:
    """The user's best candidates by the service's ``/rank``."""
    answer = _asked(f"{url}/rank", {"user": user, "candidates": list(candidates), "top_k": top_k})
    items: list[dict[str, Any]] = answer["items"]
    return items


def _asked(address: str, question: Mapping[str, object]) -> dict[str, Any]:
    """The service's answer. Raises ``UbertError`` where there is none."""
    try:
        response = httpx.post(address, json=question, timeout=60)
        response.raise_for_status()
    except httpx.HTTPError as error:
        why = str(error).partition("\n")[0]
        raise UbertError(f"the service gave no answer ({why}); see service.log, then start the demo again") from error
    answer: dict[str, Any] = response.json()
    return answer
