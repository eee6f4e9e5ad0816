"""A file of pairs rated portion by portion, in this process or on a Ray cluster: the same code, the same bytes."""

import atexit
import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ubert_model.bundle import Bundle
from ubert_model.errors import InputError, UbertError
from ubert_model.running.ray_engine import RayEngine
from ubert_model.running.sharding import Shard
from ubert_model.states import NamespaceHolder, StateStore, numpy_in_one_thread, open_existing_store, without_password
from ubert_service.bulk.pair_files import in_portions, of_shard, read_pairs
from ubert_service.bulk.portions import Portions
from ubert_service.errors import NotReadyError
from ubert_service.serving.served import ServedBundle
from ubert_service.settings import Settings

BULK_VERSION = 1
"""Raised whenever pairs would be rated or kept otherwise, so that portions of an older version are discarded."""
PAIRS_A_PORTION = 8192
"""Seconds of work, and what a kill or a failure loses."""


@dataclass(frozen=True, kw_only=True)
class RatingJob:
    """Rates portions by their number. The settings' paths and store, and the folder, must hold on every node."""

    settings: Settings
    portions: Portions

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], int]]:
        """What rates one portion and tells how many pairs it has.

        Raises as ``ServedBundle.load``, ``open_existing_store`` and ``ScoringEngine.score`` do.
        """
        with numpy_in_one_thread(), closing(open_existing_store(self.settings.store)) as store:
            served = ServedBundle.load(self.settings, store)

            def rate(number: int) -> int:
                # The last bits of a decoded state depend on what it is decoded with, so on what is resident by then: a
                # portion that begins with nothing has the same ratings whoever rates it after whatever else.
                served.residents.drop(None)
                pairs = self.portions.pairs(number)
                self.portions.rate(number, served.engine.score(pairs))
                return len(pairs)

            with NamespaceHolder(store, [served.namespace.version]):
                yield rate

    def open(self) -> Callable[[int], int]:
        """The same until this process ends."""
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
    """Rate the share of the file ``pairs`` and write the Parquet file ``out``; how many pairs that were.

    A run that was killed is continued by the same call, also by the other engine: what was rated by then stays as it
    was. ``progress`` hears how many pairs of how many are rated.

    Raises ``InputError`` for pairs that cannot be read, an ``out`` that exists or that a run of other pairs, bundle,
    states or share has begun (both unless ``force``), that another run is writing or whose name does not end in
    ``.parquet``, ``NotReadyError`` where the store has no states of the bundle, and what loading, scoring and
    ``engine`` raise.
    """
    if out.suffix.lower() != ".parquet":
        raise InputError(f"--out {out}: ratings are written as Parquet, so give a name that ends in .parquet")
    if out.exists() and not force:
        raise InputError(f"{out} exists: choose another --out, or replace it with --force")
    with closing(open_existing_store(settings.store)) as store:
        origin, one_node = _origin(settings, store), store.local
    fingerprint = _fingerprint(pairs, settings, shard, origin)
    portions = Portions(folder=out.absolute().with_name(f"{out.name}.portions"), fingerprint=fingerprint)
    if force:
        for _ in read_pairs(pairs):  # a file that is refused must not cost what was rated of another
            pass
    job = RatingJob(settings=settings, portions=portions)
    with (
        portions.opened(discard=force),
        _kept_for_ratings(portions),
        _rater(job, engine, one_node) as rate,  # before anything is discarded: it may fail
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
def _kept_for_ratings(portions: Portions) -> Iterator[None]:
    """Where the work ends with an error that has a name and nothing is rated, its folder is of no use."""
    try:
        yield
    except UbertError:
        if not portions.hold_ratings():
            with suppress(OSError):  # a worker of a cluster may be at work in it yet
                portions.discard()
        raise


@contextmanager
def _rater(
    job: RatingJob, engine: RayEngine | None, one_node: bool
) -> Iterator[Callable[[Sequence[int]], Generator[int]]]:
    """What rates portions, and tells the pairs of each as it is done: with the bundle opened, or the cluster there."""
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
    """What a rating depends on beside its pair and the reviews. Raises ``NotReadyError`` for a store without states."""
    manifest = Bundle.load(settings.bundle).manifest
    namespace = manifest.namespace(settings.codec)
    if namespace not in store.namespaces():
        raise NotReadyError(
            f"{without_password(settings.store)} has no states of bundle {manifest.bundle_id} under codec "
            f"{settings.codec}: ubert precompute --bundle {settings.bundle} --store URL --codec {settings.codec}"
        )
    return {
        "bundle": manifest.bundle_id,
        "states": namespace.version,
        "runtime": settings.runtime,
        "coverage": manifest.intervals.coverage,
    }


def _fingerprint(pairs: Path, settings: Settings, shard: Shard, origin: dict[str, object]) -> str:
    """Name what the ratings will be of in 32 hexadecimal characters."""
    if not pairs.is_file():
        raise InputError(f"no file of pairs at {pairs}")
    stat = pairs.stat()
    file = [str(pairs.resolve()), stat.st_size, stat.st_mtime_ns]
    described = [BULK_VERSION, file, without_password(settings.store), str(shard), PAIRS_A_PORTION, origin]
    return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=16).hexdigest()
