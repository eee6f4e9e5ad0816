"""What the process keeps of the store: review lists and decoded states, bounded in bytes and true to the store."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from ubert_model.config import ModelConfig
from ubert_model.rating.blend import BiasModel
from ubert_model.rating.deviations import UsualDeviations
from ubert_model.states import (
    FloatMatrix,
    ReviewEntry,
    Side,
    StateCodec,
    StateStore,
    entity_mark,
    marks_of,
    state_mark,
)
from ubert_service.errors import NotResidentError
from ubert_service.read_version import ReadVersion
from ubert_service.reading.histories import Pair, Reckoning, ReviewList, ReviewLists
from ubert_service.reading.namespaces import require_namespace
from ubert_service.reading.stored_states import read_states
from ubert_service.resident.bounded_cache import BoundedCache, Fresh, Key
from ubert_service.resident.following import Follower
from ubert_service.telemetry import SILENT, Residence, ResidentsTelemetry

_MAX_AGE_S = 300.0
"""Bounds what no feed tells: a writer that died between its write and its announcement."""
_ARRAY_BYTES = 160
_ALWAYS = -float("inf")

Copy = ReviewList | FloatMatrix


class Residents:
    """Reads one namespace, and keeps what it has read. Thread-safe.

    ``max_bytes`` 0: nothing is kept, and every read goes to the store. ``max_lag_s``: how late a write through another
    process may be seen; 0: never, for one more question to the store a request. A store on this machine is always
    asked, since that costs microseconds.

    While the store is away, what is kept still answers, as of the last time it was known to be true (``stale_s``).
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
        self._of_users, self._of_items = Reckoning.of_users(usual, bias), Reckoning.of_items(usual, bias)
        self._telemetry = telemetry
        self._clock = clock
        self._keeps = max_bytes > 0
        self._cache: BoundedCache[Copy] = BoundedCache(max_bytes)
        self.follower = Follower(
            store=store,
            version=self._version,
            copies=self,
            max_lag_s=0.0 if store.local else max_lag_s,
            clock=clock,
        )

    @property
    def keeps(self) -> bool:
        """Is anything ever kept?"""
        return self._keeps

    @property
    def held_bytes(self) -> int:
        """Bytes held now, bookkeeping included."""
        return self._cache.held_bytes

    @property
    def stand_in(self) -> bool:
        """Is there anything to answer from without the store?"""
        return self._keeps and len(self._cache) > 0

    @property
    def away(self) -> str | None:
        """Why the store does not answer, while what is kept stands in for it; else None."""
        return self.follower.away if self.stand_in else None

    @property
    def stale_s(self) -> float:
        """How long ago the store last confirmed what is kept, while it is away; else 0."""
        return self.follower.stale_s if self._keeps else 0.0

    def read(self, pairs: Sequence[Pair]) -> ReviewLists:
        """The lists of the users and items of some pairs, in at most one round trip.

        Raises ``StoreError``, ``CorruptStateError`` for a damaged list, and ``NotReadyError`` where the store has
        nothing of these because it has nothing of the namespace, which costs a round trip more.
        """
        users = list(dict.fromkeys(pair.user for pair in pairs))
        items = list(dict.fromkeys(pair.item for pair in pairs))
        lists = self.review_lists(users, items)
        return ReviewLists(
            users=dict(zip(users, lists, strict=False)), items=dict(zip(items, lists[len(users) :], strict=True))
        )

    def review_lists(self, users: Sequence[str], items: Sequence[str], *, warming: bool = False) -> list[ReviewList]:
        """The lists of all users, then of all items. ``warming``: they are read before anyone asks for them."""
        keys = [*((Side.USER.value, user) for user in users), *((Side.ITEM.value, item) for item in items)]
        if self._keeps:
            self.follower.settle()
        moment = self._cache.moment
        kept = cast("list[ReviewList | None]", self._kept("lists", keys, told=not warming))
        lacking = [key for key, reviews in zip(keys, kept, strict=True) if reviews is None]
        if not lacking:
            return cast("list[ReviewList]", kept)
        self.require_store()
        read = dict(zip(lacking, self._read_lists(lacking), strict=True))
        self._keep((self._fresh_list(key, reviews) for key, reviews in read.items()), moment, coldest=warming)
        return [read[key] if reviews is None else reviews for key, reviews in zip(keys, kept, strict=True)]

    def states(self, review_ids: Iterable[str], *, warming: bool = False) -> dict[str, FloatMatrix]:
        """The (L, D) states of those reviews that the store has, in at most one round trip.

        Raises ``StoreError``, and ``StateError`` naming a review whose state cannot be used.
        """
        distinct = list(dict.fromkeys(review_ids))
        moment = self._cache.moment
        keys = [("state", one) for one in distinct]
        kept = cast("list[FloatMatrix | None]", self._kept("states", keys, told=not warming))
        found = {one: states for one, states in zip(distinct, kept, strict=True) if states is not None}
        if len(found) == len(distinct):
            return found
        self.require_store()
        read = read_states(self._store, self._codec, (one for one in distinct if one not in found))
        self._keep((self._fresh_states(*one) for one in read.items()), moment, coldest=warming)
        return found | read

    def wrote(self, entries: Iterable[ReviewEntry]) -> None:
        """Forget what a write of this process has changed, so that its own next answer shows it."""
        self.drop(frozenset(marks_of(entries)))

    def catch_up(self, written: ReadVersion) -> None:
        """Return once every answer shows this write. Raises as :meth:`Follower.catch_up` does."""
        if self._keeps:
            self.follower.catch_up(written)

    def require_store(self) -> None:
        """Raise ``NotResidentError`` while the store is known to be away, before anyone waits for it in vain: by what
        waits, threads would be held that could answer from memory.
        """
        # Known, because someone asks again and again.
        if self._keeps and self.follower.kept_up and self.follower.away is not None:
            raise NotResidentError(f"what is needed is not held in memory, and {self.follower.away}")

    def drop(self, marks: frozenset[bytes] | None) -> None:
        """Forget what these marks stand for, or everything (None)."""
        self._telemetry.residents_dropped(self._cache.drop(marks))

    def _kept(self, residence: Residence, keys: Sequence[Key], *, told: bool) -> list[Copy | None]:
        if not self._keeps:
            return [None] * len(keys)
        # What is too old to be trusted beside a store that answers is still the best there is without one.
        values = self._cache.get(keys, now=self._clock() if self.follower.away is None else _ALWAYS)
        if told:
            misses = sum(value is None for value in values)
            self._telemetry.residents_asked(residence, hits=len(keys) - misses, misses=misses)
        return values

    def _keep(self, fresh: Iterable[Fresh[Copy]], moment: int, *, coldest: bool) -> None:
        if self._keeps:
            self._telemetry.residents_evicted(self._cache.add(fresh, moment=moment, coldest=coldest))

    def _read_lists(self, keys: Sequence[Key]) -> list[ReviewList]:
        users = [entity for side, entity in keys if side == Side.USER.value]
        items = [entity for side, entity in keys if side == Side.ITEM.value]
        user_lists, item_lists = self._store.review_lists(self._version, users=users, items=items)
        if not any((*user_lists, *item_lists)):
            require_namespace(self._store, self._namespace)
        return [
            *(
                ReviewList.of(user, reviews, self._of_users, self._config)
                for user, reviews in zip(users, user_lists, strict=True)
            ),
            *(
                ReviewList.of(item, reviews, self._of_items, self._config)
                for item, reviews in zip(items, item_lists, strict=True)
            ),
        ]

    def _fresh_list(self, key: Key, reviews: ReviewList) -> Fresh[Copy]:
        side, entity = key
        return self._fresh(key, reviews, reviews.held_bytes, entity_mark(Side(side), entity))

    def _fresh_states(self, review_id: str, states: FloatMatrix) -> Fresh[Copy]:
        # What was read together shares one array, of which each part would keep the whole.
        own = states.copy()
        return self._fresh(("state", review_id), own, own.nbytes + _ARRAY_BYTES, state_mark(review_id))

    def _fresh(self, key: Key, value: Copy, size: int, mark: bytes) -> Fresh[Copy]:
        # Spread out, so that what was read together is not read again together.
        age = _MAX_AGE_S * (0.5 + mark[0] / 512)
        return Fresh(key, value, size, mark, self._clock() + age)
