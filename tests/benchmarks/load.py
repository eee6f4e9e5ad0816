"""The service under load: what HTTP costs, what batching gains, and what callers see at twice the capacity.

    python tests/benchmarks/load.py --bundle DIR --store lmdb:DIR [--seconds 10] [--candidates 0]

Locust sends requests for real pairs of the bundle to a real ``ubert-serve`` on loopback. If there are two cores, the
service, with one scoring thread, is pinned to the first and Locust to the second; otherwise the scheduler is measured,
too. Every number is compared with another of the same run. ``--candidates 100`` ranks 100 items instead of rating one
pair; options after ``--`` are passed to the service (``-- --concurrency 2``).

A service whose engine costs nothing shows the most that batching could gain.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import httpx
import psutil
from locust import FastHttpUser, task
from locust.env import Environment

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.redis_server import free_port
from ubert_model.states import open_store
from ubert_service.reading.histories import Pair
from ubert_service.serving.opened import OpenedBundle
from ubert_service.serving.served import ServedBundle
from ubert_service.settings import Settings

CLI = "ubert_service"
UNLOADED, LOADED, OVERLOADED_CALLERS = 1, 32, 256
WARM_UP_SECONDS = 2.0
REQUEST_TIMEOUT_S = 10.0
BATCHED_REQUESTS = 16
PAUSE_SECONDS = 0.0015
"""About how long the engine of a single caller idles between two requests."""
CORES = sorted(os.sched_getaffinity(0))[:2]
"""The core of the service, then that of Locust."""
INSTANT_ENGINE = """
from ubert_service.entry import serve
from ubert_service.scoring.engine import EVERY_REVIEW, ScoringEngine

real, answers = ScoringEngine.score, {}

def score(engine, pairs, reading=EVERY_REVIEW, *rest):
    if "first" not in answers:
        answers["first"] = real(engine, pairs[:1], reading)[0]
    return [answers["first"]] * len(pairs)

ScoringEngine.score = score
serve()
"""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request over HTTP, and the same pairs for the engine."""

    path: str
    body: str
    pairs: list[Pair]


@dataclass(kw_only=True)
class LoadResult:
    """What callers saw in ``seconds``: answers by status, and the latency in ms of each accepted request.

    ``busy`` is the share of its core that Locust used: near 1, Locust has measured itself.
    """

    seconds: float
    busy: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    accepted: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return len(self.accepted) / self.seconds

    def percentile(self, percent: int) -> float:
        """Latency percentile of the accepted requests, in ms."""
        return statistics.quantiles(self.accepted, n=100, method="inclusive")[percent - 1]

    def __str__(self) -> str:
        return (
            f"{self.per_second:7.1f} accepted/s, p50 {self.percentile(50):.2f} ms, p99 {self.percentile(99):.2f} ms, "
            f"longest {max(self.accepted):.0f} ms; statuses {dict(sorted(self.statuses.items()))}; "
            f"Locust {self.busy:.0%} busy"
        )


def questions_of(served: ServedBundle, candidates: int, count: int = 2_000) -> list[Question]:
    """Pairs with a review in the store, in random order; or their users, each with ``candidates`` random items."""
    rng = random.Random(0)
    version = served.namespace.version
    known = served.bundle.identities.users.identifiers
    users = rng.sample(known, k=min(count, len(known)))
    items = served.bundle.identities.items.identifiers
    reviewed = [review for reviews in served.store.review_lists(version, users=users)[0] for review in reviews]
    rng.shuffle(reviewed)
    questions = []
    for review in reviewed[:count]:
        if candidates:
            names = rng.sample(items, k=min(candidates, len(items)))
            body: dict[str, Any] = {"user": review.user, "candidates": names}
            pairs = [Pair(review.user, name) for name in names]
            questions.append(Question(path="/rank", body=json.dumps(body), pairs=pairs))
        else:
            body = {"pairs": [{"user": review.user, "item": review.item}]}
            pairs = [Pair(review.user, review.item)]
            questions.append(Question(path="/predict", body=json.dumps(body), pairs=pairs))
    return questions


def engine_milliseconds(
    served: ServedBundle, questions: list[Question], seconds: float, *, together: int = 1, pause: float = 0.0
) -> float:
    """Median ms per request of the engine alone, in one thread, if it scores ``together`` requests in each call.

    ``pause``: seconds of idling before each call, as the engine of a single caller idles while HTTP is handled: the
    caches then hold less, and the processor's clock may fall.
    """
    times = []
    rng = random.Random(0)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pairs = [pair for question in rng.sample(questions, together) for pair in question.pairs]
        time.sleep(pause)
        started = time.perf_counter()
        served.engine.score(pairs)
        times.append((time.perf_counter() - started) * 1000 / together)
    return statistics.median(times[len(times) // 5 :])


def load(
    address: str, questions: list[Question], *, callers: int, seconds: float, rate: float | None = None
) -> LoadResult:
    """Without ``rate`` a closed loop: each caller sends its next request after its last answer. With ``rate`` an open
    loop: all callers together send so many requests a second, however long answers take.

    Intervals are then exponential: with fixed ones, callers that were once delayed together would stay synchronized.
    """
    rng = random.Random(0)

    class Caller(FastHttpUser):
        host = address
        network_timeout = connection_timeout = REQUEST_TIMEOUT_S

        def on_start(self) -> None:
            self.next_at = time.perf_counter()
            gevent.sleep(self.wait_time())

        def wait_time(self) -> float:
            if not rate:
                return 0.0
            self.next_at += rng.expovariate(rate / callers)
            return max(0.0, self.next_at - time.perf_counter())

        @task
        def send(self) -> None:
            question = rng.choice(questions)
            self.client.post(question.path, data=question.body, headers={"Content-Type": "application/json"})

    environment = Environment(user_classes=[Caller])
    result = LoadResult(seconds=seconds)
    counting = False

    def count(response_time: float, response: Any, **_: Any) -> None:
        if counting:
            status = response.status_code if response is not None else 0
            result.statuses[status] += 1
            if status == 200:
                result.accepted.append(response_time)

    environment.events.request.add_listener(count)
    runner = environment.create_local_runner()
    runner.start(callers, spawn_rate=callers)
    gevent.sleep(WARM_UP_SECONDS)
    counting, used = True, time.process_time()
    gevent.sleep(seconds)
    counting, result.busy = False, (time.process_time() - used) / seconds
    runner.quit()
    return result


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """Pin this thread, and what it starts, to one of the two cores."""
    os.sched_setaffinity(0, {CORES[number]} if len(CORES) == 2 else CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)


@dataclass(frozen=True, kw_only=True)
class RunningService:
    """A service that is ready."""

    address: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def service(
    arguments: argparse.Namespace, *options: str, program: Sequence[str] = ("-m", CLI)
) -> Iterator[RunningService]:
    """A running service. The command line's own options for it come last, so they win."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, *program, "--port", str(port), "--device", "cpu", "--threads", "1", "--concurrency", "1"]
    command += ["--bundle", str(arguments.bundle), "--store", arguments.store, "--codec", arguments.codec]
    # To a file: a pipe would have to be read by this process, which generates the load.
    with tempfile.TemporaryFile() as log:
        with on_core(0):
            process = subprocess.Popen([*command, *options, *arguments.service], stderr=log)
        with process:
            try:
                with httpx.Client(base_url=address, trust_env=False) as client:
                    wait_until_ready(client, process)
                yield RunningService(address=address, process=psutil.Process(process.pid))
            finally:
                process.terminate()


def wait_until_ready(client: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    """Wait until ``/readyz`` succeeds, which includes warming."""
    while process.poll() is None:
        with suppress(httpx.TransportError):
            if client.get("/readyz").is_success:
                return
        time.sleep(0.1)
    raise SystemExit(f"the service ended with status {process.returncode}: {process.args!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--codec", default="fp32")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--candidates", type=int, default=0, help="0: one pair a request")
    parser.add_argument(
        "--overload-waits-ms", nargs="+", default=["1", "200"], help="values of --overload-wait-ms (default: 1 200)"
    )
    parser.add_argument("service", nargs="*", help="options of ubert-serve")
    arguments = parser.parse_args()

    settings = Settings.of(
        bundle=arguments.bundle, store=arguments.store, codec=arguments.codec, device="cpu", threads=1
    )
    with on_core(0), closing(open_store(settings.store)) as store:
        served = ServedBundle(OpenedBundle.open(settings), store)
        questions = questions_of(served, arguments.candidates)
        with served.keeper:
            while served.keeper.warming is not None:
                time.sleep(0.1)
            engine = engine_milliseconds(served, questions, arguments.seconds)
            paused = engine_milliseconds(served, questions, arguments.seconds, pause=PAUSE_SECONDS)
            together = engine_milliseconds(served, questions, arguments.seconds, together=BATCHED_REQUESTS)
    print(
        f"engine alone: median {engine:.2f} ms a request, {paused:.2f} ms after {PAUSE_SECONDS * 1000} ms idle, "
        f"{together:.2f} ms if {BATCHED_REQUESTS} are scored together"
    )

    def measured(title: str, running: RunningService, **how: Any) -> LoadResult:
        with on_core(1):
            before = running.cpu_seconds()
            result = load(running.address, questions, seconds=arguments.seconds, **how)
            used = running.cpu_seconds() - before
        share = arguments.seconds / (arguments.seconds + WARM_UP_SECONDS)
        print(f"{title}: {result}, the service {used * share / result.seconds:.0%}", flush=True)
        return result

    unbounded = ("--queue-requests", str(LOADED), "--queue-wait-ms", "0")  # refuses no caller of a closed loop
    with service(arguments, *unbounded) as running:
        alone = measured("1 caller", running, callers=UNLOADED)
        batched = measured(f"{LOADED} callers", running, callers=LOADED)
    with service(arguments, *unbounded, "--batch-tokens", "1") as running:
        unbatched = measured(f"{LOADED} callers, batching off", running, callers=LOADED)
    with service(arguments, *unbounded, program=("-c", INSTANT_ENGINE)) as running:
        free = measured(f"{LOADED} callers, an engine that costs nothing", running, callers=LOADED)
    http, over_idling = (alone.percentile(50) - own for own in (engine, paused))
    print(
        f"HTTP adds {http:.2f} ms to a single caller's median (target: at most 2), {over_idling:.2f} ms against an "
        "engine that idles between calls"
    )
    print(
        f"batching serves {LOADED} callers {batched.per_second / unbatched.per_second:.2f}× as many (target: 5); "
        f"an engine that costs nothing would serve {free.per_second / unbatched.per_second:.2f}×"
    )

    offered = 2 * batched.per_second
    for wait in arguments.overload_waits_ms:
        with service(arguments, "--overload-wait-ms", wait) as running:
            title = f"{offered:.0f}/s offered, at most {wait} ms in the queue"
            overloaded = measured(title, running, callers=OVERLOADED_CALLERS, rate=offered)
        slower = overloaded.percentile(99) / alone.percentile(99)
        others = {status: number for status, number in overloaded.statuses.items() if status not in {200, 429}}
        print(f"  p99 of accepted requests: {slower:.1f}× a lone caller's (target: 3); neither 200 nor 429: {others}")


if __name__ == "__main__":
    main()
