"""Claims on review ids in Redis, where a write takes several commands and may be cut short between them."""

from collections.abc import Iterable

from ubert_model.identifiers import identifier_bytes
from ubert_model.review import ReviewEntry, Side
from ubert_model.states.changes import entity_mark
from ubert_model.states.keys import RedisKeys
from ubert_model.states.records import is_same_pair, name_taken
from ubert_model.states.redis_errors import Command
from ubert_model.states.redis_pipelines import RedisPipelines

_SECONDS_OF_CLAIM = 7 * 24 * 3600


class RedisClaims:
    """A claim names the pair of user and item that is writing or deleting a review.

    A write that was cut short may leave a state that no list names. Its claim, which lasts a week, then tells whose
    it is: that pair alone can repeat the write.
    """

    def __init__(self, redis: RedisPipelines) -> None:
        self._redis = redis

    def claim_new(self, keys: RedisKeys, entry: ReviewEntry) -> None:
        """Claim the id of a review that is new. Raises ``ReviewNameTakenError`` if it is another pair's."""
        key, claimant = keys.claim(entry.review_id), _claimant(entry)
        # Before the claim, too: a second request of this pair would take the first one's claim for a right to the id.
        if self._has_state(keys, entry) and self._claimant_of(key) != claimant and not self._is_listed(keys, entry):
            raise name_taken(entry.review_id)
        earlier = self._set_if_free(key, claimant)
        if earlier == claimant:
            return
        if earlier is None:
            if not self._has_state(keys, entry) or self._is_listed(keys, entry):
                return
            self.end(keys, [entry])
        raise name_taken(entry.review_id)

    def claim(self, keys: RedisKeys, entries: Iterable[ReviewEntry]) -> None:
        """Claim the ids of listed reviews, unless they are claimed already."""
        self._redis.write(_claim(keys.claim(entry.review_id), _claimant(entry)) for entry in entries)

    def end(self, keys: RedisKeys, entries: Iterable[ReviewEntry]) -> None:
        self._redis.write(("UNLINK", keys.claim(entry.review_id)) for entry in entries)

    def _set_if_free(self, key: bytes, claimant: bytes) -> bytes | None:
        """Claim a key for a week, unless it is claimed already; returns that earlier claimant, or None."""
        before, _, now = self._redis.write([("GET", key), _claim(key, claimant), ("GET", key)])
        earlier = before if now in {None, claimant} else now  # None: the earlier claim has ended meanwhile
        return None if earlier is None else bytes(earlier)

    def _claimant_of(self, key: bytes) -> bytes | None:
        (found,) = self._redis.read([("GET", key)])
        return None if found is None else bytes(found)

    def _has_state(self, keys: RedisKeys, entry: ReviewEntry) -> bool:
        (found,) = self._redis.read([("EXISTS", keys.state(entry.review_id))])
        return bool(found)

    def _is_listed(self, keys: RedisKeys, entry: ReviewEntry) -> bool:
        """Does either list hold the review? Ask after the claim, which a write ends once the review is listed."""
        name = identifier_bytes(entry.review_id)
        lines = self._redis.read([("HGET", keys.reviews(side, side.entity(entry)), name) for side in Side])
        return any(is_same_pair(line, side, entry) for line, side in zip(lines, Side, strict=True))


def _claim(key: bytes, claimant: bytes) -> Command:
    return ("SET", key, claimant, "NX", "EX", str(_SECONDS_OF_CLAIM))


def _claimant(entry: ReviewEntry) -> bytes:
    return b"".join(entity_mark(side, side.entity(entry)) for side in Side)
