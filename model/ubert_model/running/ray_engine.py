"""Portions of work on the workers of a Ray cluster, by Ray Data.

Ray Data keeps few portions in flight, retries one that failed, and replaces a worker that died. The caller says what a
portion does: it writes to a store or a folder, returns a summary, and must be idempotent, since it may run twice.
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

from ubert_model.errors import ClusterError, ConfigError, UbertError
from ubert_model.validation import require

P_contra = TypeVar("P_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
P = TypeVar("P")
R = TypeVar("R")

EngineName = Literal["local", "ray"]
ATTEMPTS = 4
"""How often a portion that raises is tried, with growing pauses, before its error ends the run."""
PORTIONS_IN_FLIGHT = 2
"""Of one worker: the portion that it works on, and the next, so that it need not wait."""
SECONDS_TO_CONNECT = 5.0
SECONDS_TO_SHUT_DOWN = 3.0
LOCAL_OBJECT_BYTES = 256 * 1024 * 1024
"""Shared memory of a local cluster: portions and their results are small."""


class Job(Protocol[P_contra, R_co]):
    """What a worker opens once and then runs. It is pickled to the workers, so it holds addresses and nothing open."""

    def open(self) -> Callable[[P_contra], R_co]:
        """The function that does one portion. What this method or that function raises reaches the driver."""


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """The cluster to work on, and the workers to run there.

    ``address`` None: a cluster on this machine that ends with this process. ``workers`` 0: as many as fit. ``cpus`` and
    ``gpus``: those of one worker.
    """

    address: str | None = None
    workers: int = 0
    cpus: int = 1
    gpus: int = 0

    def __post_init__(self) -> None:
        require(self.workers >= 0, "workers", self.workers, "give a number of workers, or 0 for all processors")
        require(self.cpus >= 1, "worker cpus", self.cpus, "give a worker 1 or more")

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Stay connected while entered; reuses a connection that the process already has.

        Raises ``ConfigError`` if ray is not installed, ``ClusterError`` if no cluster can be reached or started.
        """
        ray = _import_ray()
        if ray.is_initialized():
            yield
            return
        with _temporary_folder() as folder:
            if self.address is None:
                self._start_local(ray, folder)
            else:
                _connect(ray, self.address)
            try:
                yield
            finally:
                ray.shutdown()

    def results(self, job: Job[P, R], portions: Sequence[P], *, one_node: bool = False) -> Generator[tuple[int, R]]:
        """Each portion's index and result, in order of completion.

        ``one_node``: refuse a cluster of several nodes, because the job writes to the local disk. Closing the generator
        ends the workers. Raises as :meth:`connected` does, ``ConfigError`` for a cluster that does not fit,
        ``ClusterError`` if the cluster fails, and whatever ``job`` raises.
        """
        if not portions:
            return
        ray = _import_ray()
        with self.connected(), _translated_errors(ray):
            nodes = sum(node["Alive"] for node in ray.nodes())
            remedy = "the work goes to one machine's disk: keep states in redis://…, or leave the address out"
            require(not one_node or nodes == 1, "nodes of the cluster", nodes, remedy)
            workers = min(self._worker_count(ray), len(portions))
            for row in self._dataset(ray, job, portions, workers).iter_rows():
                yield row["index"], pickle.loads(row["result"])

    def _dataset(self, ray: ModuleType, job: Job[P, R], portions: Sequence[P], workers: int) -> Any:
        items = [{"index": index, "portion": pickle.dumps(portion)} for index, portion in enumerate(portions)]
        dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Worker,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=PORTIONS_IN_FLIGHT),
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

    def _worker_count(self, ray: ModuleType) -> int:
        """How many workers to start. Raises ``ConfigError`` for more than the cluster has room for."""
        total = ray.cluster_resources()
        needed = {name: count for name, count in (("CPU", self.cpus), ("GPU", self.gpus)) if count}
        room = min(int(total.get(name, 0)) // count for name, count in needed.items())
        has, takes = (" and ".join(f"{int(found.get(name, 0))} {name}" for name in needed) for found in (total, needed))
        remedy = f"the cluster has {has}, and each takes {takes}: ask for fewer, or add nodes"
        require(room >= max(1, self.workers), "workers", self.workers, remedy)
        return self.workers or room

    def _start_local(self, ray: ModuleType, folder: str) -> None:
        """Start a cluster that ends with this process. Only its own processes know the token to connect to it."""
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        try:
            ray.init(
                address="local",
                num_cpus=self.workers * self.cpus or None,
                object_store_memory=LOCAL_OBJECT_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
            )
        except (OSError, RuntimeError, ray.exceptions.RayError) as error:
            raise ClusterError(f"Ray does not start on this machine ({error}): use --engine local") from error


def ray_engine_or_none(
    engine: EngineName, *, address: str | None, workers: int, cpus: int = 1, gpus: int = 0
) -> RayEngine | None:
    """The engine of a command; None if this process does the work itself.

    Raises ``ConfigError`` for the address of a cluster, or workers, that would not be used.
    """
    if engine == "ray":
        return RayEngine(address=address, workers=workers, cpus=cpus, gpus=gpus)
    require(address is None, "ray address", address, "to use this cluster, add --engine ray")
    require(workers == 0, "workers", workers, "to use workers, add --engine ray")
    require(cpus == 1, "worker cpus", cpus, "to use workers, add --engine ray")
    return None


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """A folder for the cluster's logs and sockets. Removed with retries: the last processes write on for a moment."""
    folder = tempfile.mkdtemp(prefix="ubert-ray-")
    try:
        yield folder
    finally:
        deadline = time.monotonic() + SECONDS_TO_SHUT_DOWN
        while os.path.isdir(folder) and time.monotonic() < deadline:
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.05)


def _connect(ray: ModuleType, address: str) -> None:
    """Connect to a running cluster. Raises ``ConfigError`` for a malformed address, ``ClusterError`` without answer."""
    host, _, port = address.rpartition(":")
    form = "write HOST:PORT, as `ray start --head` prints it, and run this on a node of the cluster"
    require(bool(host) and "/" not in host and port.isdecimal(), "ray address", address, form)
    remedy = "start one with `ray start --head`, or leave the address out for a cluster on this machine alone"
    try:
        # Without this check Ray would retry for minutes, and then end the process.
        socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, RuntimeError, ray.exceptions.RayError) as error:
        raise ClusterError(f"no Ray cluster answers at {address} ({error}): {remedy}") from error


def _import_ray() -> ModuleType:
    """Ray, imported only when it is used: without telemetry, and as quiet on the terminal as it can be."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"engine = 'ray': {error}; pip install '.[ray]', or use local") from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the failures that they would log are raised
    return ray


@contextmanager
def _translated_errors(ray: ModuleType) -> Iterator[None]:
    """Raise what a portion raised as it was, and any failure of the cluster itself as a ``ClusterError``."""
    try:
        yield
    except ray.exceptions.RayError as error:
        failure = getattr(error, "cause", None)
        if isinstance(failure, PortionError):
            raise failure.error from error
        raise ClusterError(f"the Ray cluster failed: {error}") from error


class PortionError(Exception):
    """Carries a portion's error to the driver unchanged: Ray would extend the message of an error that it carries."""

    def __init__(self, message: str, error: UbertError) -> None:
        super().__init__(message, error)

    @property
    def error(self) -> UbertError:
        """The error as it was raised."""
        return cast(UbertError, self.args[1])


class _Worker:
    """One process of the cluster: opens the job once, then does the portions that it is given."""

    def __init__(self, job: Job[Any, Any]) -> None:
        self._job = job

    @cached_property
    def _do_portion(self) -> Callable[[Any], Any]:
        return self._job.open()

    def __call__(self, batch: Any) -> Any:
        import pyarrow  # noqa: PLC0415  # comes with ray

        (portion,) = batch["portion"].to_pylist()
        try:
            result = self._do_portion(pickle.loads(portion))
        except UbertError as error:
            raise PortionError(str(error), error) from error
        return pyarrow.table({"index": batch["index"], "result": [pickle.dumps(result)]})
