"""Plans which pairs the network rates in one call, so that little is padded and shared user sides are not copied."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

_PADDED_SHARE = 0.25
_CALL_IN_SCORES = 16 * 1024
"""The cost of one more call (65 µs at D = 64), in entries of the (Nu, Ni) score matrix."""
_LENGTH_BUCKET = 32
"""User sides are bucketed by length, in steps of so many tokens, before they are batched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTokens:
    """The rows of each side of a pair; equal ``user_side`` values mean the same user side."""

    user_side: Hashable
    user: int
    item: int


def plan_batches(pairs: Sequence[PairTokens], *, budget: int) -> Iterator[list[int]]:
    """Batches as lists of positions; every pair is in exactly one.

    Pairs that share their user side (``/rank``) form batches that hold it once. The others (``/predict`` of many
    callers) are grouped by similar lengths of both sides. A batch of n pairs has at most ``budget`` padded tokens, n
    times the sum of its longest sides, unless a single pair has more.
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
    alone.sort(key=lambda position: (pairs[position].user // _LENGTH_BUCKET, pairs[position].item))
    yield from _cut(alone, pairs, budget)


def _cut(positions: Sequence[int], pairs: Sequence[PairTokens], budget: int) -> Iterator[list[int]]:
    """Runs of consecutive positions, as long as the budget and the cost of padding allow."""
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
