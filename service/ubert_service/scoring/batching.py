"""Which pairs the network rates in one call, so that little is padded and no user's tokens are copied for nothing."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

_PADDED_SHARE = 0.25
_CALL_IN_SCORES = 16 * 1024
"""What one more call costs (65 µs at D = 64), in entries of the (Nu, Ni) score matrix."""
_ALIKE = 32
"""User sides whose lengths fall into the same span of this many tokens are alike enough to be batched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTokens:
    """What a pair gives the network to read: rows of each side, and what tells its user side from any other."""

    user_side: Hashable
    user: int
    item: int


def plan_batches(pairs: Sequence[PairTokens], *, budget: int) -> Iterator[list[int]]:
    """Positions of the pairs that are rated together, each in one batch.

    Pairs that share their user side (``/rank``) make batches that hold it once; the others (``/predict`` of many
    callers) are put together by like lengths of both sides. A batch of n pairs has at most ``budget`` tokens, n times
    its longest sides together, unless one pair alone has more.
    """
    by_user_side: defaultdict[Hashable, list[int]] = defaultdict(list)
    for position, pair in enumerate(pairs):
        by_user_side[pair.user_side].append(position)
    alone: list[int] = []
    for group in by_user_side.values():
        if len(group) == 1:
            alone += group
        else:
            yield from _cut(sorted(group, key=lambda position: pairs[position].item), pairs, budget)
    alone.sort(key=lambda position: (pairs[position].user // _ALIKE, pairs[position].item))
    yield from _cut(alone, pairs, budget)


def _cut(positions: Sequence[int], pairs: Sequence[PairTokens], budget: int) -> Iterator[list[int]]:
    """Consecutive positions, as many as the budget allows and as are worth their padding."""
    batch: list[int] = []
    longest_user = longest_item = scores = 0
    for position in positions:
        pair = pairs[position]
        user, item = max(longest_user, pair.user), max(longest_item, pair.item)
        padded, real = (len(batch) + 1) * user * item, scores + pair.user * pair.item
        wasteful = padded - real > _CALL_IN_SCORES + _PADDED_SHARE * real
        if batch and (wasteful or (len(batch) + 1) * (user + item) > budget):
            yield batch
            batch, scores, user, item = [], 0, pair.user, pair.item
        batch.append(position)
        longest_user, longest_item, scores = user, item, scores + pair.user * pair.item
    if batch:
        yield batch
