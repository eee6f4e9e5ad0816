"""The in-process cache of review lists and decoded states, bounded in bytes and coherent with the store."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import cast

from ubert_model.config import ModelConfig
from ubert_model.errors import StoreUnavailableError
from ubert_model.rating.blend import BiasModel
from ubert_model.rating.deviations import UsualDeviations
from ubert_model.review import ReviewEntry, Side
from ubert_model.states import FloatMatrix, StateCodec, StateStore, entity_mark, marks_of, state_mark
from ubert_service.errors import NotResidentError
from ubert_service.read_version import ReadVersion
from ubert_service.reading.histories import Pair, ReviewList, ReviewLists, SideStatistics
from ubert_service.reading.namespaces import require_namespace
from ubert_service.reading.stored_states import read_states
from ubert_service.resident.bounded_cache import BoundedCache, CacheEntry, Key
from ubert_service.resident.follower import Follower
from ubert_service.telemetry import SILENT, Residence, ResidentsTelemetry

_MAX_AGE_S = 300.0
"""Bounds staleness that no feed reports: of a writer that died between its write and its announcement."""
_ARRAY_BYTES = 160
_NEVER_EXPIRED = -float("inf")

Copy = ReviewList | FloatMatrix


class Residents:
    """A read-through cache of one namespace. Thread-safe.

    ``max_bytes`` 0: no cache, every read goes to the store. ``max_lag_s``: how late a write through another process may
    be seen; 0: at once, for one more round trip to the store per read. A store on this machine is polled for every
    request whatever the lag, since that costs microseconds.

    While the store is away, the cache still answers, as of the last time it was confirmed (``stale_s``).
    """

    def __init__(
        self,
        *,
        store: StateStore,
        codec: StateCodec,
        config: ModelConfig,
        usual: UsualDeviations,
        bias: BiasModel,
        max_bytes: int,
        max_lag_s: float = 0.0,
        telemetry: ResidentsTelemetry = SILENT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._codec = codec
        self._namespace = codec.namespace
        self._version = codec.namespace.version
        self._config = config
        self._of_users, self._of_items = SideStatistics(Side.USER, usual, bias), SideStatistics(Side.ITEM, usual, bias)
        self._telemetry = telemetry
        self._clock = clock
        self.keeps = max_bytes > 0
        """Is there a cache at all?"""
        self._cache: BoundedCache[Copy] = BoundedCache(max_bytes)
        self.follower = Follower(
            store=store,
            version=self._version,
            drop=self.drop,
            max_lag_s=0.0 if store.local else max_lag_s,
            clock=clock,
        )

    @property
    def held_bytes(self) -> int:
        """Bytes cached now, bookkeeping included."""
        return self._cache.held_bytes

    @property
    def can_stand_in(self) -> bool:
        """Is anything cached to answer from without the store?"""
        return self.keeps and len(self._cache) > 0

    @property
    def away(self) -> str | None:
        """Why the store does not answer, while the cache stands in for it; else None."""
        return self.follower.away if self.can_stand_in else None

    @property
    def stale_s(self) -> float:
        """While the store is away: how long ago it last confirmed the cache; else 0."""
        return self.follower.stale_s if self.keeps else 0.0

    def read(self, pairs: Sequence[Pair], users: Mapping[str, ReviewList] = MappingProxyType({})) -> ReviewLists:
        """The lists of the users and items of some pairs, in at most one round trip. ``users``: lists already read.

        Raises ``StoreError``, ``CorruptStateError`` for a damaged list, and ``NotReadyError`` if all lists are empty
        because the store lacks the namespace; that check costs one more round trip.
        """
        held = {pair.user: users[pair.user] for pair in pairs if pair.user in users}
        missing = list(dict.fromkeys(pair.user for pair in pairs if pair.user not in held))
        items = list(dict.fromkeys(pair.item for pair in pairs))
        lists = self.review_lists(missing, items)
        return ReviewLists(
            users=held | dict(zip(missing, lists, strict=False)),
            items=dict(zip(items, lists[len(missing) :], strict=True)),
        )

    def review_lists(
        self, users: Sequence[str], items: Sequence[str], *, latest: bool = False, warming: bool = False
    ) -> list[ReviewList]:
        """The lists of all users, then of all items. ``warming``: no request has asked for them yet.

        ``latest``: with every change announced before this call, whatever the lag; then it also raises
        ``StoreUnavailableError`` while the changes cannot be read. Lists that are cached are not read again for that.
        """
        keys = [*((Side.USER.value, user) for user in users), *((Side.ITEM.value, item) for item in items)]
        if self.keeps and latest:
            self.follower.poll()
            if self.follower.away is not None:
                raise StoreUnavailableError(self.follower.away)
        elif self.keeps:
            self.follower.poll_if_stale()
        generation = self._cache.generation
        cached = cast("list[ReviewList | None]", self._cached("lists", keys, report=not warming))
        missing = [key for key, reviews in zip(keys, cached, strict=True) if reviews is None]
        if not missing:
            return cast("list[ReviewList]", cached)
        self.require_store()
        read = dict(zip(missing, self._read_lists(missing), strict=True))
        self._add((self._list_entry(key, reviews) for key, reviews in read.items()), generation, coldest=warming)
        return [read[key] if reviews is None else reviews for key, reviews in zip(keys, cached, strict=True)]

    def states(self, review_ids: Iterable[str], *, warming: bool = False) -> dict[str, FloatMatrix]:
        """The (L, D) states of those reviews that the store has, in at most one round trip.

        Raises ``StoreError``, and ``StateError`` naming a review whose state cannot be used.
        """
        distinct = list(dict.fromkeys(review_ids))
        generation = self._cache.generation
        keys = [("state", review_id) for review_id in distinct]
        cached = cast("list[FloatMatrix | None]", self._cached("states", keys, report=not warming))
        found = {review_id: states for review_id, states in zip(distinct, cached, strict=True) if states is not None}
        if len(found) == len(distinct):
            return found
        self.require_store()
        read = read_states(self._store, self._codec, (review_id for review_id in distinct if review_id not in found))
        self._add((self._state_entry(*each) for each in read.items()), generation, coldest=warming)
        return found | read

    def wrote(self, entries: Iterable[ReviewEntry]) -> None:
        """Invalidate what a write of this process has changed, so that its own next answer shows it."""
        self.drop(frozenset(marks_of(entries)))

    def reflects(self, written: ReadVersion) -> bool:
        """Is every answer known to reflect this write? Does not ask the store."""
        return not self.keeps or self.follower.reflects(written)

    def catch_up(self, written: ReadVersion) -> None:
        """Return once every answer reflects this write. Raises as :meth:`Follower.catch_up` does."""
        if self.keeps:
            self.follower.catch_up(written)

    def require_store(self, need: str = "what this request needs is not in memory") -> None:
        """Raise ``NotResidentError``, which begins with ``need``, while the store is known to be away: a thread that
        waited for it in vain could not answer other requests from memory.
        """
        # Only a background poller notices when the store is back.
        if self.keeps and self.follower.polled and self.follower.away is not None:
            raise NotResidentError(f"{need}, and {self.follower.away}")

    def drop(self, marks: frozenset[bytes] | None) -> None:
        """Invalidate the copies with these marks, or all (None)."""
        dropped, evicted = self._cache.drop(marks)
        self._telemetry.residents_dropped(dropped)
        self._telemetry.residents_evicted(evicted)

    def _cached(self, residence: Residence, keys: Sequence[Key], *, report: bool) -> list[Copy | None]:
        if not self.keeps:
            return [None] * len(keys)
        # Entries past their age are still the best there is while the store is away.
        values = self._cache.get(keys, now=self._clock() if self.follower.away is None else _NEVER_EXPIRED)
        if report:
            misses = sum(value is None for value in values)
            self._telemetry.residents_asked(residence, hits=len(keys) - misses, misses=misses)
        return values

    def _add(self, fresh: Iterable[CacheEntry[Copy]], generation: int, *, coldest: bool) -> None:
        if self.keeps:
            self._telemetry.residents_evicted(self._cache.add(fresh, generation=generation, coldest=coldest))

    def _read_lists(self, keys: Sequence[Key]) -> list[ReviewList]:
        users = [entity for side, entity in keys if side == Side.USER.value]
        items = [entity for side, entity in keys if side == Side.ITEM.value]
        user_lists, item_lists = self._store.review_lists(self._version, users=users, items=items)
        if not any((*user_lists, *item_lists)):
            require_namespace(self._store, self._namespace)
        sides = ((users, user_lists, self._of_users), (items, item_lists, self._of_items))
        return [
            ReviewList.of(entity, reviews, statistics, self._config)
            for entities, lists, statistics in sides
            for entity, reviews in zip(entities, lists, strict=True)
        ]

    def _list_entry(self, key: Key, reviews: ReviewList) -> CacheEntry[Copy]:
        side, entity = key
        return self._entry(key, reviews, reviews.held_bytes, entity_mark(Side(side), entity))

    def _state_entry(self, review_id: str, states: FloatMatrix) -> CacheEntry[Copy]:
        # States read together are views of one array, and each view would keep all of it alive.
        copy = states.copy()
        return self._entry(("state", review_id), copy, copy.nbytes + _ARRAY_BYTES, state_mark(review_id))

    def _entry(self, key: Key, value: Copy, size: int, mark: bytes) -> CacheEntry[Copy]:
        # Ages are spread out, so that entries read together do not expire together.
        age = _MAX_AGE_S * (0.5 + mark[0] / 512)
        return CacheEntry(key, value, size, mark, self._clock() + age)
