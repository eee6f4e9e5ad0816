"""The service under load: what HTTP costs, what batching gains, and what callers see at twice the capacity.

    python tests/benchmarks/load.py --bundle DIR --store lmdb:DIR [--seconds 10] [--candidates 0]

A real ``ubert-serve`` on loopback, asked for real pairs of the bundle by Locust, which shares the machine with it.
Every number is set against another of the same run. ``--candidates 100`` ranks so many items instead of one pair;
whatever follows ``--`` goes to the service as it is (``-- --concurrency 4``).
"""

import argparse
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import httpx
from locust import FastHttpUser, constant_throughput, task
from locust.env import Environment

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.redis_server import free_port
from ubert_model.states import open_store
from ubert_service.scoring.histories import Pair
from ubert_service.serving.served import ServedBundle
from ubert_service.settings import Settings

UNLOADED, LOADED, OVERLOADED_CALLERS = 1, 32, 256
WARM_UP_SECONDS = 2.0
SECONDS_UNTIL_HUNG = 10.0


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked over HTTP, and the same of the engine."""

    path: str
    body: dict[str, Any]
    pairs: list[Pair]


@dataclass(kw_only=True)
class Seen:
    """What callers saw in ``seconds``: answers by status, and milliseconds of each that was accepted."""

    seconds: float
    statuses: Counter[int] = field(default_factory=Counter)
    accepted: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return len(self.accepted) / self.seconds

    def percentile(self, percent: int) -> float:
        """Of the accepted requests, in ms."""
        return statistics.quantiles(self.accepted, n=100, method="inclusive")[percent - 1]

    def __str__(self) -> str:
        return (
            f"{self.per_second:7.1f} accepted/s, p50 {self.percentile(50):.2f} ms, p99 {self.percentile(99):.2f} ms, "
            f"longest {max(self.accepted):.0f} ms; statuses {dict(sorted(self.statuses.items()))}"
        )


def questions_of(served: ServedBundle, candidates: int, count: int = 2_000) -> list[Question]:
    """Pairs that stand in the store, in random order; or as many candidates as asked for their users."""
    chance = random.Random(0)
    version = served.namespace.version
    users = chance.sample(served.identities.users.identifiers, k=min(count, len(served.identities.users.identifiers)))
    items = served.identities.items.identifiers
    reviewed = [review for reviews in served.store.user_reviews(version, users) for review in reviews]
    chance.shuffle(reviewed)
    found = []
    for review in reviewed[:count]:
        if candidates:
            names = chance.sample(items, k=min(candidates, len(items)))
            body: dict[str, Any] = {"user": review.user, "candidates": names}
            found.append(Question(path="/rank", body=body, pairs=[Pair(review.user, name) for name in names]))
        else:
            body = {"pairs": [{"user": review.user, "item": review.item}]}
            found.append(Question(path="/predict", body=body, pairs=[Pair(review.user, review.item)]))
    return found


def engine_milliseconds(served: ServedBundle, questions: list[Question], seconds: float) -> float:
    """The median time of the engine alone, in one thread of this process."""
    times = []
    until = time.perf_counter() + seconds
    for number in range(sys.maxsize):
        started = time.perf_counter()
        served.engine.score(questions[number % len(questions)].pairs)
        times.append((time.perf_counter() - started) * 1000)
        if time.perf_counter() > until:
            break
    return statistics.median(times[len(times) // 5 :])


def load(address: str, questions: list[Question], *, callers: int, seconds: float, rate: float | None = None) -> Seen:
    """``callers`` who ask one question after the other, or together ``rate`` a second however long answers take."""
    pace = constant_throughput(rate / callers) if rate else constant_throughput(1e9)
    chance = random.Random(0)

    class Caller(FastHttpUser):
        host = address
        wait_time = pace
        network_timeout = connection_timeout = SECONDS_UNTIL_HUNG

        @task
        def ask(self) -> None:
            question = chance.choice(questions)
            self.client.post(question.path, json=question.body)

    environment = Environment(user_classes=[Caller])
    seen = Seen(seconds=seconds)
    counting = False

    def count(response_time: float, response: Any, **_: Any) -> None:
        if counting:
            status = response.status_code if response is not None else 0
            seen.statuses[status] += 1
            if status == 200:
                seen.accepted.append(response_time)

    environment.events.request.add_listener(count)
    runner = environment.create_local_runner()
    runner.start(callers, spawn_rate=callers)
    gevent.sleep(WARM_UP_SECONDS)
    counting = True
    gevent.sleep(seconds)
    counting = False
    runner.quit()
    return seen


@contextmanager
def service(arguments: argparse.Namespace, *options: str) -> Iterator[str]:
    """The address of a service that is ready; what the command line leaves to the service comes last, so it wins."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "ubert_service.cli", "--port", str(port), "--device", "cpu"]
    command += ["--bundle", str(arguments.bundle), "--store", arguments.store, "--codec", arguments.codec]
    # To a file: a pipe would make the generator of the load read the log meanwhile.
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen([*command, *options, *arguments.service], stderr=log) as process,
    ):
        try:
            with httpx.Client(base_url=address, trust_env=False) as client:
                wait_until_ready(client, process)
            yield address
        finally:
            process.terminate()


def wait_until_ready(client: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    """Until ``/readyz`` says so, which comes after what stays resident has been read."""
    while process.poll() is None:
        with suppress(httpx.TransportError):
            if client.get("/readyz").is_success:
                return
        time.sleep(0.1)
    raise SystemExit(f"the service ended with status {process.returncode}: {shlex.join(map(str, process.args))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--codec", default="fp32")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--candidates", type=int, default=0, help="0: one pair a request")
    parser.add_argument("--queues", type=int, nargs="+", default=[4, 64], help="lengths of the queue under overload")
    parser.add_argument("service", nargs="*", help="options of ubert-serve")
    arguments = parser.parse_args()

    settings = Settings.of(bundle=arguments.bundle, store=arguments.store, codec=arguments.codec, device="cpu")
    with closing(open_store(settings.store)) as store:
        served = ServedBundle.load(settings, store)
        questions = questions_of(served, arguments.candidates)
        with served.keeper:
            engine = engine_milliseconds(served, questions, arguments.seconds)
    print(f"engine alone: median {engine:.2f} ms a request")

    def measured(title: str, address: str, **how: Any) -> Seen:
        seen = load(address, questions, seconds=arguments.seconds, **how)
        print(f"{title}: {seen}", flush=True)
        return seen

    room = ("--queue-requests", str(LOADED))  # so that no caller of a closed loop is refused
    with service(arguments, *room) as address:
        alone = measured("1 caller", address, callers=UNLOADED)
        batched = measured(f"{LOADED} callers", address, callers=LOADED)
    with service(arguments, *room, "--batch-tokens", "1") as address:
        unbatched = measured(f"{LOADED} callers, batching off", address, callers=LOADED)
    print(f"HTTP costs a lone caller {alone.percentile(50) - engine:.2f} ms at the median (target: at most 2)")
    print(f"batching serves {LOADED} callers {batched.per_second / unbatched.per_second:.2f}× as many (target: 5)")

    offered = 2 * batched.per_second
    for queue in arguments.queues:
        with service(arguments, "--queue-requests", str(queue)) as address:
            title = f"{offered:.0f}/s offered to a queue of {queue}"
            crowd = measured(title, address, callers=OVERLOADED_CALLERS, rate=offered)
        slower = crowd.percentile(99) / alone.percentile(99)
        strange = {status: number for status, number in crowd.statuses.items() if status not in {200, 429}}
        print(f"  p99 of what was accepted: {slower:.1f}× a lone caller's (target: 3); neither 200 nor 429: {strange}")


if __name__ == "__main__":
    main()
