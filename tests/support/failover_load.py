"""A load of authors and readers on two real services over one store, which goes on through failures and records every
answer.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np

from support.app_settings import settings_for
from support.redis_cluster import ClusterServers
from support.tiny_bundle import TinyBundle
from ubert_model.states import StateStore, open_store
from ubert_service.reading.histories import Pair
from ubert_service.reviews.written_review import NewReview
from ubert_service.schemas import READ_VERSION
from ubert_service.serving.opened import OpenedBundle
from ubert_service.serving.served import ServedBundle
from ubert_training.reviews.table import ReviewTable
from ubert_training.states.precompute import precompute

CODEC = "fp32"
CACHED_EQUALS_FRESH = 1e-4
_PAUSE_S = 0.05
_SECONDS_TO_ANSWER = 60.0
_TEXTS = ("A big board.", "Cheap, and bad because it came black.", "again and again", "")
_RETRY_FOR_S = 45.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One HTTP answer: its path, when it came (monotonic seconds), and the type of the problem if it is one."""

    path: str
    at: float
    status: int
    problem: str | None
    detail: str | None
    ratings: tuple[float, ...] = ()
    read_version: str = ""
    missing_states: int = 0


@dataclass(frozen=True, kw_only=True)
class Read:
    """A rating of an author's pair, requested after ``acknowledged`` reviews and answered when ``begun`` had begun."""

    acknowledged: int
    begun: int
    rating: float


@dataclass(kw_only=True)
class Author:
    """Writes reviews one by one to one service, retrying each until it is acknowledged, and is read at another."""

    name: str
    begun: int = 0
    acknowledged: int = 0
    read_version: str = ""
    reads: list[Read] = field(default_factory=list)


class FailoverLoad:
    """While entered, each of ``authors`` writes to ``writing`` and is read at ``reading``, and a reader asks for pairs
    that nobody writes to. An error in any thread is raised on exit.
    """

    def __init__(
        self, *, writing: str, reading: str, authors: int, predicted_item: str, user: str, items: Sequence[str]
    ) -> None:
        self.authors = [Author(name=f"author-{number}") for number in range(authors)]
        self.answers: list[Answer] = []
        self._writing = writing
        self._reading = reading
        self.predicted_item = predicted_item
        self.user = user
        self.items = list(items)
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(2 * authors + 1)
        self._running: list[Future[None]] = []

    def __enter__(self) -> Self:
        for author in self.authors:
            self._running += [self._threads.submit(self._write, author), self._threads.submit(self._read, author)]
        self._running.append(self._threads.submit(self._read_unchanging_pairs))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._threads.shutdown()
        for thread in self._running:
            thread.result()

    def failed(self, path: str = "") -> list[Answer]:
        """Every answer that was a problem."""
        return [answer for answer in list(self.answers) if answer.status >= 400 and answer.path.startswith(path)]

    def last_failure_s(self, since: float, path: str = "") -> float:
        """Seconds from ``since`` to the last problem; 0 if there was none."""
        return max((answer.at - since for answer in self.failed(path)), default=0.0)

    def wait_until_quiet(self, *, for_s: float, within_s: float) -> None:
        """Return once nothing has failed for ``for_s`` and every author has had a review acknowledged meanwhile."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            began, acknowledged = time.monotonic(), [author.acknowledged for author in self.authors]
            time.sleep(for_s)
            while not self._all_wrote_since(acknowledged) and time.monotonic() < deadline:
                time.sleep(_PAUSE_S)
            if self._all_wrote_since(acknowledged) and not any(answer.at > began for answer in self.failed()):
                return
        raise AssertionError(f"errors had not stopped after {within_s} s: {self.failed()[-1:]}")

    def _all_wrote_since(self, acknowledged: Sequence[int]) -> bool:
        return all(author.acknowledged > before for author, before in zip(self.authors, acknowledged, strict=True))

    def _write(self, author: Author) -> None:
        with httpx.Client(base_url=self._writing, timeout=_SECONDS_TO_ANSWER, trust_env=False) as client:
            while not self._stop.is_set():
                number = author.begun
                author.begun += 1
                deadline = time.monotonic() + _RETRY_FOR_S
                while (answer := self._post(client, "/reviews", review_of(author.name, number))).status >= 400:
                    assert time.monotonic() < deadline, f"review {number} of {author.name} was never taken: {answer}"
                    time.sleep(_PAUSE_S)
                author.read_version = answer.read_version
                author.acknowledged += 1
                time.sleep(_PAUSE_S)

    def _read(self, author: Author) -> None:
        question = {"pairs": [{"user": author.name, "item": self.predicted_item}]}
        with httpx.Client(base_url=self._reading, timeout=_SECONDS_TO_ANSWER, trust_env=False) as client:
            while not self._stop.is_set():
                acknowledged, version = author.acknowledged, author.read_version
                answer = self._post(client, "/predict", question, **({READ_VERSION: version} if version else {}))
                if answer.status == 200:
                    read = Read(acknowledged=acknowledged, begun=author.begun, rating=answer.ratings[0])
                    author.reads.append(read)
                time.sleep(_PAUSE_S)

    def _read_unchanging_pairs(self) -> None:
        pairs = [{"user": self.user, "item": item} for item in self.items]
        with httpx.Client(base_url=self._reading, timeout=_SECONDS_TO_ANSWER, trust_env=False) as client:
            while not self._stop.is_set():
                self._post(client, "/predict", {"pairs": pairs})
                self._post(client, "/rank", {"user": self.user, "candidates": self.items})
                time.sleep(_PAUSE_S)

    def _post(self, client: httpx.Client, path: str, body: dict[str, Any], **headers: str) -> Answer:
        response = client.post(path, json=body, headers=headers)
        content = response.json()
        ranked = sorted(content.get("items", ()), key=lambda rated: self.items.index(rated["item"]))
        ratings = content.get("predictions") or ranked
        answer = Answer(
            path=path,
            at=time.monotonic(),
            status=response.status_code,
            problem=content.get("type"),
            detail=content.get("detail"),
            ratings=tuple(rated["rating"] for rated in ratings),
            read_version=response.headers.get(READ_VERSION, ""),
            missing_states=sum(rated.get("missing_states", 0) for rated in ratings),
        )
        self.answers.append(answer)
        return answer


def kill_primary(cluster: ClusterServers, key: bytes, load: FailoverLoad, *, within_s: float) -> float:
    """Kill -9 the owner of a key, restart it once its replica has taken over, as a supervisor would, and wait until
    errors have stopped. Returns when it was killed, in monotonic seconds.
    """
    primary = cluster.primary_of(key)
    primary.kill()
    killed_at = time.monotonic()
    cluster.wait_for_failover(primary, key)
    primary.start()  # it is empty: before the failover, it would have emptied its replica too
    load.wait_until_quiet(for_s=1.0, within_s=within_s)
    return killed_at


def lost_reviews(load: FailoverLoad, store: StateStore, version: str) -> list[str]:
    """Reviews that were acknowledged and are not listed."""
    lists = store.review_lists(version, users=[author.name for author in load.authors])[0]
    return [
        name
        for author, reviews in zip(load.authors, lists, strict=True)
        for name in (review_of(author.name, number)["review_id"] for number in range(author.acknowledged))
        if name not in {review.review_id for review in reviews}
    ]


def review_of(author: str, number: int) -> dict[str, Any]:
    """Review ``number`` of an author. Authors' reviews differ in the author alone."""
    return {
        "user": author,
        "item": f"novelty-{number}",
        "rating": 1 + 7 * number % 5,
        "text": _TEXTS[number % len(_TEXTS)],
        "timestamp": number + 1,
        "review_id": f"{author}-{number}",
    }


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """The expected ratings, from a store that holds the table and then one author's reviews, added one by one."""

    of_author: Sequence[float]
    """The rating of an author's pair by number of reviews."""
    unchanging: Sequence[float]
    """The ratings of the pairs that nobody writes to."""


def rebuild(tiny: TinyBundle, table: ReviewTable, directory: Path, load: FailoverLoad) -> Rebuilt:
    """Compute the expected ratings over LMDB, in this process, without a cache."""
    settings = settings_for(tiny.bundle, resident_bytes=0)
    store = open_store(f"lmdb:{directory}")
    precompute(table, np.arange(len(table)), tiny.bundle, store, codec=CODEC)
    served = ServedBundle(OpenedBundle.open(settings), store)
    pair = [Pair(load.authors[0].name, load.predicted_item)]
    after = [served.engine.score(pair)[0].rating]
    for number in range(max(author.begun for author in load.authors)):
        served.reviews.add(NewReview(**review_of(load.authors[0].name, number)))
        after.append(served.engine.score(pair)[0].rating)
    unchanging = [rated.rating for rated in served.engine.score([Pair(load.user, item) for item in load.items])]
    store.close()
    return Rebuilt(of_author=after, unchanging=unchanging)


def wrong_answers(load: FailoverLoad, rebuilt: Rebuilt) -> list[str]:
    """Answers with status 200 whose rating is not the expected one for any number of reviews they may have seen."""
    wrong = [
        f"{author.name}: {read}, not one of {possible}"
        for author in load.authors
        for read in author.reads
        if (possible := rebuilt.of_author[read.acknowledged : read.begun + 1])
        if min(abs(read.rating - expected) for expected in possible) > CACHED_EQUALS_FRESH
    ]
    for answer in load.answers:
        if answer.status == 200 and answer.missing_states:
            wrong.append(f"states were missing: {answer}")
        if answer.status == 200 and len(answer.ratings) == len(load.items) > 1:
            difference = np.abs(np.subtract(answer.ratings, rebuilt.unchanging)).max()
            if difference > CACHED_EQUALS_FRESH:
                wrong.append(f"{difference} off: {answer}")
    return wrong
