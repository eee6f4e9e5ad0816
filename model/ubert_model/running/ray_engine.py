"""Work that is cut into portions, on the workers of a Ray cluster, by Ray Data.

Ray Data keeps few portions under way at a time, tries one that failed again, and replaces a worker that died. What a
portion does is the caller's: it leaves its work in a store or a folder, gives back what was done, and may be run twice.
"""

import logging
import os
import pickle
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, Literal, Protocol, TypeVar, cast

from ubert_model.config import require
from ubert_model.errors import ClusterError, ConfigError, UbertError

P_contra = TypeVar("P_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
P = TypeVar("P")
R = TypeVar("R")

EngineName = Literal["local", "ray"]
ATTEMPTS = 4
"""How often a portion that raises is tried before its error ends the run; each time after a longer while."""
PORTIONS_UNDER_WAY = 2
"""Given to a worker at a time: one that it works on, and one so that it need not wait for the next."""
SECONDS_TO_CONNECT = 5.0
SECONDS_TO_END = 3.0
LOCAL_OBJECT_BYTES = 256 * 1024 * 1024
"""Shared memory of a local cluster: portions and what they give back are small."""


class Job(Protocol[P_contra, R_co]):
    """What a worker opens once and then works with. It travels to the workers, so it holds addresses, nothing open."""

    def open(self) -> Callable[[P_contra], R_co]:
        """What does one portion. Whatever it raises, here or there, is raised where the results are read."""


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Where to work: the cluster at ``address`` (None: one of this machine and this process), and with what.

    ``workers`` 0: as many as the cluster has processors for. ``cpus`` and ``gpus``: of one worker.
    """

    address: str | None = None
    workers: int = 0
    cpus: int = 1
    gpus: int = 0

    def __post_init__(self) -> None:
        require(self.workers >= 0, "workers", self.workers, "give a number of workers, or 0 for all processors")
        require(self.cpus >= 1, "worker cpus", self.cpus, "a worker needs a processor")

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Stay with the cluster for several pieces of work; a process that is with one already stays with that.

        Raises ``ConfigError`` where ray is not installed, ``ClusterError`` where no cluster can be reached or started.
        """
        ray = _imported()
        if ray.is_initialized():
            yield
            return
        with _scratch() as scratch:
            if self.address is None:
                self._start_here(ray, scratch)
            else:
                _join(ray, self.address)
            try:
                yield
            finally:
                ray.shutdown()

    def results(self, job: Job[P, R], portions: Sequence[P], *, one_node: bool = False) -> Generator[tuple[int, R]]:
        """What each portion gives back, with its place in ``portions``, in the order in which they end.

        ``one_node``: the work goes to this machine's disk, so that a cluster of several would part it. Closing the
        generator ends the workers. Raises as :meth:`connected` does, ``ConfigError`` for a cluster that does not fit,
        ``ClusterError`` where it fails itself, and what ``job`` raises.
        """
        if not portions:
            return
        ray = _imported()
        with self.connected(), _explained(ray):
            nodes = sum(node["Alive"] for node in ray.nodes())
            remedy = "the work goes to one machine's disk: keep states in redis://…, or leave the address out"
            require(not one_node or nodes == 1, "nodes of the cluster", nodes, remedy)
            workers = min(self._workers(ray), len(portions))
            for row in self._dataset(ray, job, portions, workers).iter_rows():
                yield row["place"], pickle.loads(row["result"])

    def _dataset(self, ray: ModuleType, job: Job[P, R], portions: Sequence[P], workers: int) -> Any:
        items = [{"place": place, "portion": pickle.dumps(portion)} for place, portion in enumerate(portions)]
        dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Worker,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=PORTIONS_UNDER_WAY),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=self.cpus,
            num_gpus=self.gpus,
        )
        dataset.context.enable_progress_bars = False
        dataset.context.retried_map_errors = True
        dataset.context.max_map_retries = ATTEMPTS - 1
        dataset.context.raise_original_map_exception = True
        return dataset

    def _workers(self, ray: ModuleType) -> int:
        """How many there will be. Raises ``ConfigError`` for more than the cluster has room for."""
        there = ray.cluster_resources()
        needed = {name: count for name, count in (("CPU", self.cpus), ("GPU", self.gpus)) if count}
        room = min(int(there.get(name, 0)) // count for name, count in needed.items())
        has, takes = (" and ".join(f"{int(found.get(name, 0))} {name}" for name in needed) for found in (there, needed))
        remedy = f"the cluster has {has}, and each takes {takes}: ask for fewer, or add nodes"
        require(room >= max(1, self.workers), "workers", self.workers, remedy)
        return self.workers or room

    def _start_here(self, ray: ModuleType, scratch: str) -> None:
        """A cluster that ends with this process. To talk to it takes a token that only its processes know."""
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        try:
            ray.init(
                address="local",
                num_cpus=self.workers * self.cpus or None,
                object_store_memory=LOCAL_OBJECT_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=scratch,
            )
        except (OSError, RuntimeError, ray.exceptions.RayError) as error:
            raise ClusterError(f"Ray does not start on this machine ({error}): use --engine local") from error


def chosen_engine(
    engine: EngineName, *, address: str | None, workers: int, cpus: int = 1, gpus: int = 0
) -> RayEngine | None:
    """None: this process does the work. Raises ``ConfigError`` for a cluster that nothing is to be sent to."""
    if engine == "ray":
        return RayEngine(address=address, workers=workers, cpus=cpus, gpus=gpus)
    require(address is None, "ray address", address, "a cluster is asked with --engine ray")
    return None


@contextmanager
def _scratch() -> Iterator[str]:
    """A folder for the logs and sockets of a cluster, whose last processes go on writing for a moment."""
    folder = tempfile.mkdtemp(prefix="ubert-ray-")
    try:
        yield folder
    finally:
        deadline = time.monotonic() + SECONDS_TO_END
        while os.path.isdir(folder) and time.monotonic() < deadline:
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.05)


def _join(ray: ModuleType, address: str) -> None:
    """Raises ``ConfigError`` for an address of another form, ``ClusterError`` where nobody answers."""
    host, _, port = address.rpartition(":")
    form = "write HOST:PORT, as `ray start --head` prints it, and run this on a node of the cluster"
    require(bool(host) and "/" not in host and port.isdecimal(), "ray address", address, form)
    remedy = "start one with `ray start --head`, or leave the address out for a cluster on this machine alone"
    try:
        # Ray itself tries for minutes, and then ends the process.
        socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, RuntimeError, ray.exceptions.RayError) as error:
        raise ClusterError(f"no Ray cluster answers at {address} ({error}): {remedy}") from error


def _imported() -> ModuleType:
    """Ray, imported only where it is asked for. It tells its makers nothing, and the terminal as little as it can."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"engine = 'ray': {error}; pip install '.[ray]', or use local") from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what they would say of a failure is raised
    return ray


@contextmanager
def _explained(ray: ModuleType) -> Iterator[None]:
    """What a portion raised is raised as it was; a cluster that fails itself is a ``ClusterError``."""
    try:
        yield
    except ray.exceptions.RayError as error:
        failure = getattr(error, "cause", None)
        if isinstance(failure, PortionError):
            raise failure.error from error
        raise ClusterError(f"the Ray cluster failed: {error}") from error


class PortionError(Exception):
    """What a portion raised, on its way to the driver: Ray writes into the message of what it carries."""

    def __init__(self, message: str, error: UbertError) -> None:
        super().__init__(message, error)

    @property
    def error(self) -> UbertError:
        """As it was raised."""
        return cast(UbertError, self.args[1])


class _Worker:
    """One process of the cluster: opens the job once, and does the portions that it is given."""

    def __init__(self, job: Job[Any, Any]) -> None:
        self._job = job

    @cached_property
    def _do(self) -> Callable[[Any], Any]:
        return self._job.open()

    def __call__(self, batch: Any) -> Any:
        import pyarrow  # noqa: PLC0415  # comes with ray

        (portion,) = batch["portion"].to_pylist()
        try:
            result = self._do(pickle.loads(portion))
        except UbertError as error:
            raise PortionError(str(error), error) from error
        return pyarrow.table({"place": batch["place"], "result": [pickle.dumps(result)]})
