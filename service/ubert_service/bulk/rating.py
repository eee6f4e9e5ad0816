"""Rates a file of pairs in portions, in this process or on a Ray cluster, with the same bytes as the result."""

import atexit
import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ubert_model.bundle import Bundle
from ubert_model.errors import ConfigError, InputError, UbertError
from ubert_model.running.ray_engine import RayEngine
from ubert_model.running.sharding import Shard
from ubert_model.states import NamespaceLeases, StateStore, numpy_in_one_thread, open_existing_store, without_password
from ubert_service.bulk.pair_files import in_portions, of_shard, read_pairs
from ubert_service.bulk.portions import Portions
from ubert_service.errors import NotReadyError
from ubert_service.reading.namespaces import require_namespace
from ubert_service.serving.opened import OpenedBundle
from ubert_service.serving.served import ServedBundle
from ubert_service.settings import Settings

BULK_VERSION = 1
"""Increased whenever pairs are rated or stored differently, so that portions of an older version are discarded."""
PAIRS_A_PORTION = 8192
"""Some seconds of work: what a kill or a failure loses."""


@dataclass(frozen=True, kw_only=True)
class RatingJob:
    """Rates portions by number. The settings' paths and store, and the folder, must be valid on every node."""

    settings: Settings
    portions: Portions

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], int]]:
        """A function that rates one portion and returns its number of pairs.

        Raises as ``OpenedBundle.open``, ``open_existing_store`` and ``ScoringEngine.score`` do.
        """
        with numpy_in_one_thread(), closing(open_existing_store(self.settings.store)) as store:
            served = ServedBundle(OpenedBundle.open(self.settings), store)

            def rate(number: int) -> int:
                # The last bits of a decoded state depend on what is decoded with it, so on what is resident. With an
                # empty cache, a portion gets the same ratings whichever process rates it, after whatever else.
                served.residents.drop(None)
                pairs = self.portions.pairs(number)
                self.portions.rate(number, served.engine.score(pairs))
                return len(pairs)

            with NamespaceLeases(store, [served.namespace.version]):
                yield rate

    def open(self) -> Callable[[int], int]:
        """As :meth:`opened`, until this process ends."""
        stack = ExitStack()
        atexit.register(stack.close)
        return stack.enter_context(self.opened())


def rate_pairs(
    pairs: Path,
    out: Path,
    settings: Settings,
    *,
    shard: Shard,
    engine: RayEngine | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda _rated, _of: None,
) -> int:
    """Rate a shard of the file ``pairs`` and write the Parquet file ``out``; returns the number of pairs rated.

    The same call resumes a killed run, also with the other engine: finished portions are kept. ``progress`` receives
    the number of pairs rated so far, and of all.

    Raises ``InputError`` for pairs that cannot be read; for an ``out`` that exists or that a run with other pairs,
    bundle, states or shard has started (both unless ``force``), that another run is writing, or whose name does not end
    in ``.parquet``; ``ConfigError`` for the runtime ``auto``; ``NotReadyError`` if the store has no states of the
    bundle; and what loading, scoring and ``engine`` raise.
    """
    if settings.runtime == "auto":
        raise ConfigError("runtime = 'auto': it measures, so two workers may choose differently; name one")
    if out.suffix.lower() != ".parquet":
        raise InputError(f"--out {out}: ratings are written as Parquet; give a name that ends in .parquet")
    if out.exists() and not force:
        raise InputError(f"{out} exists: choose another --out, or replace it with --force")
    with closing(open_existing_store(settings.store)) as store:
        origin, one_node = _origin(settings, store), store.local
    fingerprint = _fingerprint(pairs, settings, shard, origin)
    portions = Portions(folder=out.absolute().with_name(f"{out.name}.portions"), fingerprint=fingerprint)
    if force:
        for _ in read_pairs(pairs):  # an invalid file must not discard the ratings of another
            pass
    job = RatingJob(settings=settings, portions=portions)
    with (
        portions.opened(discard=force),
        _discarded_if_empty(portions),
        _rater(job, engine, one_node) as rate,  # it may fail, so before anything is discarded
    ):
        portions.stage(in_portions((of_shard(table, shard) for table in read_pairs(pairs)), PAIRS_A_PORTION))
        sizes = portions.sizes()
        left = [number for number in range(len(sizes)) if not portions.is_rated(number)]
        rated = sum(sizes) - sum(sizes[number] for number in left)
        progress(rated, sum(sizes))
        with closing(rate(left)) as portions_rated:
            for done in portions_rated:
                rated += done
                progress(rated, sum(sizes))
        portions.gather(out, origin)
        portions.discard()
    return rated


@contextmanager
def _discarded_if_empty(portions: Portions) -> Iterator[None]:
    """Remove the folder if the run fails with a ``UbertError`` before any portion is rated."""
    try:
        yield
    except UbertError:
        if not portions.has_ratings():
            with suppress(OSError):  # a worker of a cluster may still be writing to it
                portions.discard()
        raise


@contextmanager
def _rater(
    job: RatingJob, engine: RayEngine | None, one_node: bool
) -> Iterator[Callable[[Sequence[int]], Generator[int]]]:
    """A function that rates portions and yields the size of each as it is done, in this process or on the cluster."""
    if engine is None:
        with job.opened() as rate:
            yield lambda left: (rate(number) for number in left)
        return

    def rate_there(left: Sequence[int]) -> Generator[int]:
        with closing(engine.results(job, left, one_node=one_node)) as results:
            yield from (done for _, done in results)

    with engine.connected():
        yield rate_there


def _origin(settings: Settings, store: StateStore) -> dict[str, object]:
    """What ratings depend on besides pairs and reviews. Raises ``NotReadyError`` for a store without the states."""
    manifest = Bundle.load(settings.bundle).manifest
    namespace = manifest.namespace(settings.codec)
    try:
        require_namespace(store, namespace)
    except NotReadyError as error:
        raise NotReadyError(f"{without_password(settings.store)}, for {settings.bundle}: {error}") from error
    return {
        "bundle": manifest.bundle_id,
        "states": namespace.version,
        "runtime": settings.runtime,
        "coverage": manifest.intervals.coverage,
    }


def _fingerprint(pairs: Path, settings: Settings, shard: Shard, origin: dict[str, object]) -> str:
    """A digest of everything that the output depends on, 32 hexadecimal characters."""
    if not pairs.is_file():
        raise InputError(f"no file of pairs at {pairs}")
    stat = pairs.stat()
    file = [str(pairs.resolve()), stat.st_size, stat.st_mtime_ns]
    described = [BULK_VERSION, file, without_password(settings.store), str(shard), PAIRS_A_PORTION, origin]
    return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=16).hexdigest()
