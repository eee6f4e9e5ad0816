"""Which pairs the network rates in one call."""

from hypothesis import given
from hypothesis import strategies as st

from ubert_service.scoring.batching import PairTokens, plan_batches

TOKENS = st.integers(1, 300)
PAIRS = st.lists(
    st.builds(lambda user_side, item: PairTokens(user_side=user_side, user=7 * user_side, item=item), TOKENS, TOKENS),
    max_size=200,
)


def longest_sides(pairs: list[PairTokens], batch: list[int]) -> tuple[int, int]:
    """Longest user side and longest item side of a batch."""
    return max(pairs[one].user for one in batch), max(pairs[one].item for one in batch)


@given(pairs=PAIRS, budget=st.integers(1, 5_000))
def test_every_pair_is_in_one_batch_and_only_a_single_pair_exceeds_the_budget(
    pairs: list[PairTokens], budget: int
) -> None:
    batches = list(plan_batches(pairs, budget=budget))
    assert sorted(position for batch in batches for position in batch) == list(range(len(pairs)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * sum(longest_sides(pairs, batch)) <= budget


@given(pairs=PAIRS)
def test_padding_costs_at_most_a_quarter_of_the_real_scores_and_one_more_call(
    pairs: list[PairTokens],
) -> None:
    for batch in plan_batches(pairs, budget=100_000):
        user, item = longest_sides(pairs, batch)
        real = sum(pairs[one].user * pairs[one].item for one in batch)
        assert len(batch) * user * item <= 1.25 * real + 16 * 1024


@given(items=st.lists(TOKENS, min_size=2, max_size=60))
def test_the_candidates_of_two_users_are_never_in_one_batch(items: list[int]) -> None:
    pairs = [PairTokens(user_side=user, user=20, item=item) for item in items for user in ("a", "b")]
    for batch in plan_batches(pairs, budget=3_000):
        assert len({pairs[one].user_side for one in batch}) == 1


def test_single_pairs_of_many_callers_share_a_batch() -> None:
    pairs = [PairTokens(user_side=caller, user=200 + caller, item=220 - caller) for caller in range(20)]
    assert len(list(plan_batches(pairs, budget=10_000))) == 1
