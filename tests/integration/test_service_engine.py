"""The scoring engine over real stores and a real graph, compared with the training model's forward."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from support.engines import engine_over, residents_over
from support.tiny_bundle import BIAS, Corpus, TinyBundle, random_corpus, states_of_tokens, torch_rating
from ubert_model.bundle import SCORER_GRAPH
from ubert_model.errors import BundleError, CorruptStateError, ForeignStateError, StateError
from ubert_model.review import ReviewEntry
from ubert_model.states import MaintenanceStore, make_codec, open_store
from ubert_model.states.keys import RedisKeys
from ubert_service.reading.histories import Pair, ReviewList
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.engine import Prediction, ScoringEngine
from ubert_service.scoring.runtime import ActiveDevice, OnnxRuntime, ScoringRuntime

CACHED_EQUALS_FRESH = 1e-4
BATCH_EQUALS_SINGLE = 1e-5
USERS = [f"u{number}" for number in range(10)]
ITEMS = [f"i{number}" for number in range(14)]
EVERY_PAIR = [Pair(user, item) for user in USERS for item in ITEMS]


@pytest.fixture(scope="module")
def runtime(tiny: TinyBundle) -> OnnxRuntime:
    return OnnxRuntime(tiny.bundle.file(SCORER_GRAPH), device="cpu", threads=1)


@pytest.fixture(scope="module")
def filled_engine(
    tiny: TinyBundle, corpus: Corpus, runtime: OnnxRuntime, tmp_path_factory: pytest.TempPathFactory
) -> ScoringEngine:
    """Over a store that no test writes to."""
    store = open_store(f"lmdb:{tmp_path_factory.mktemp('filled')}")
    corpus.write(store, tiny.bundle)
    return engine_on(store, tiny, runtime)


def engine_on(
    store: MaintenanceStore,
    tiny: TinyBundle,
    runtime: ScoringRuntime,
    *,
    codec: str = "fp32",
    resident_bytes: int = 0,
    **limits: int,
) -> ScoringEngine:
    residents = residents_over(store, tiny.bundle, codec, max_bytes=resident_bytes)
    return engine_over(residents, tiny.bundle, runtime, **limits)


def assert_same(found: Prediction, expected: Prediction) -> None:
    stars = {name: getattr(expected, name) for name in ("rating", "low", "high")}
    assert {name: getattr(found, name) for name in stars} == pytest.approx(stars, abs=BATCH_EQUALS_SINGLE)
    assert replace(found, **stars) == expected


@pytest.mark.parametrize("store_name", ["lmdb_store", "redis_store"])
def test_a_rating_from_stored_states_equals_the_training_models_forward(
    tiny: TinyBundle, corpus: Corpus, runtime: OnnxRuntime, store_name: str, request: pytest.FixtureRequest
) -> None:
    store: MaintenanceStore = request.getfixturevalue(store_name)
    corpus.write(store, tiny.bundle)

    predictions = engine_on(store, tiny, runtime).score(EVERY_PAIR)

    expected = [torch_rating(tiny, corpus, pair.user, pair.item) for pair in EVERY_PAIR]
    np.testing.assert_allclose([one.rating for one in predictions], expected, rtol=0, atol=CACHED_EQUALS_FRESH)
    # Otherwise this might pass with the graph unused, or with every rating clipped.
    assert sum(one.basis == "full" for one in predictions) > len(EVERY_PAIR) / 3
    assert np.std(expected) > 0.1


@pytest.mark.parametrize("codec", ["int8", "int4/pool2", "pq2/pool3", "pq1"])
def test_a_rating_from_lossy_states_equals_the_forward_over_the_decoded_states(
    tiny: TinyBundle, corpus: Corpus, runtime: OnnxRuntime, lmdb_store: MaintenanceStore, codec: str
) -> None:
    """So a codec changes the states and nothing else: not which reviews are read, nor how."""
    corpus.write(lmdb_store, tiny.bundle, codec)

    predictions = engine_on(lmdb_store, tiny, runtime, codec=codec).score(EVERY_PAIR)

    lossy = tiny.bundle.codec(codec)
    decoded = {name: lossy.decode(lossy.encode(states)) for name, states in corpus.states.items()}
    expected = [torch_rating(tiny, replace(corpus, states=decoded), one.user, one.item) for one in EVERY_PAIR]
    np.testing.assert_allclose([one.rating for one in predictions], expected, rtol=0, atol=CACHED_EQUALS_FRESH)
    exact = [torch_rating(tiny, corpus, one.user, one.item) for one in EVERY_PAIR]
    assert not np.allclose(expected, exact, rtol=0, atol=1e-5)  # the codec did lose something


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.sampled_from(EVERY_PAIR), min_size=1, max_size=30))
def test_order_and_batch_neighbours_never_change_a_prediction(filled_engine: ScoringEngine, pairs: list[Pair]) -> None:
    together = filled_engine.score(pairs)

    assert [one.pair for one in together] == pairs
    for prediction in together:
        assert_same(prediction, filled_engine.score([prediction.pair])[0])


@pytest.mark.parametrize(
    "limits", [{"batch_tokens": 1}, {"batch_tokens": 100}, {"fetched_floats": 16 * 40}, {"pairs_read": 3}]
)
def test_batch_and_fetch_limits_never_change_a_prediction(
    filled_engine: ScoringEngine,
    tiny: TinyBundle,
    runtime: OnnxRuntime,
    filled_store: MaintenanceStore,
    limits: dict[str, Any],
) -> None:

    limited = engine_on(filled_store, tiny, runtime, **limits).score(EVERY_PAIR)

    for found, expected in zip(limited, filled_engine.score(EVERY_PAIR), strict=True):
        assert_same(found, expected)


class CountedStore:
    """Forwards every call and counts it. ``fetched``: the reviews of each call for states. ``listed``: the users and
    items of each call for lists.
    """

    def __init__(self, store: MaintenanceStore) -> None:
        self._store = store
        self.local = store.local
        self.calls: Counter[str] = Counter()
        self.fetched: list[Sequence[str]] = []
        self.listed: list[tuple[Sequence[str], Sequence[str]]] = []

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self._store, name)

    def states(self, version: str, review_ids: Sequence[str]) -> list[bytes | None]:
        self.calls["states"] += 1
        self.fetched.append(review_ids)
        return self._store.states(version, review_ids)

    def review_lists(
        self, version: str, *, users: Sequence[str] = (), items: Sequence[str] = ()
    ) -> tuple[list[list[ReviewEntry]], list[list[ReviewEntry]]]:
        self.calls["review_lists"] += 1
        self.listed.append((users, items))
        return self._store.review_lists(version, users=users, items=items)


def test_few_lists_are_in_memory_at_a_time_and_that_of_the_user_is_read_once(
    tiny: TinyBundle, runtime: OnnxRuntime, filled_store: MaintenanceStore
) -> None:
    counted = CountedStore(filled_store)

    engine_on(counted, tiny, runtime, pairs_read=3).score([Pair("u0", f"i{number}") for number in range(7)])

    assert counted.listed == [(["u0"], ["i0", "i1", "i2"]), ([], ["i3", "i4", "i5"]), ([], ["i6"])]

    counted.listed.clear()
    engine_on(counted, tiny, runtime, pairs_read=1).score(
        [Pair(user, f"i{user}") for user in ("u0", "u1")] + [Pair("u0", "i2")]
    )
    assert [users for users, _ in counted.listed] == [["u0"], ["u1"], []]


def test_later_calls_read_the_user_as_the_first_has_found_it(
    tiny: TinyBundle, corpus: Corpus, runtime: OnnxRuntime, filled_store: MaintenanceStore
) -> None:
    engine = engine_on(filled_store, tiny, runtime)
    pairs, users = [Pair("u0", f"i{number}") for number in range(4)], dict[str, ReviewList]()
    before = engine.score(pairs)

    first = engine.score(pairs[:2], users=users)
    version = tiny.bundle.manifest.namespace("fp32").version
    filled_store.put_lines(version, [replace(corpus.of_user("u0")[0], review_id="new", item="i20", rating=1.0)])
    later = engine.score(pairs[2:], users=users)

    for found, expected in zip((*first, *later), before, strict=True):
        assert_same(found, expected)
    assert [each.rating for each in engine.score(pairs)] != [each.rating for each in before]


def test_the_states_of_one_fetch_stay_within_the_budget(
    tiny: TinyBundle, corpus: Corpus, runtime: OnnxRuntime, filled_store: MaintenanceStore
) -> None:
    config, rows = tiny.model.config, {entry.review_id: entry.rows for entry in corpus.entries}
    budget = 3 * config.max_rows  # more than any pair has alone
    counted = CountedStore(filled_store)

    engine_on(counted, tiny, runtime, fetched_floats=budget * tiny.bundle.manifest.state_dim).score(EVERY_PAIR)

    assert sum(rows.values()) > budget
    assert len(counted.fetched) > 1
    assert all(sum(rows[name] for name in review_ids) <= budget for review_ids in counted.fetched)


class NanRuntime:
    """Stands in for a broken graph, which no export can be made to write."""

    device: ActiveDevice = "cpu"

    def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
        return np.full(len(batch.item), np.nan, dtype=np.float32)


def test_a_non_finite_output_raises_an_error_that_names_the_pair(
    tiny: TinyBundle, corpus: Corpus, filled_store: MaintenanceStore
) -> None:
    pair = unreviewed_pair(corpus, USERS, ITEMS)
    with pytest.raises(BundleError, match=rf"{pair.user}.*{pair.item}.*is not finite; export the bundle again"):
        engine_on(filled_store, tiny, NanRuntime()).score([Pair("nobody", "nothing"), pair])


def reviewed_pair(corpus: Corpus) -> Pair:
    """A pair whose user has reviewed the item, with text, where both have other reviews with text."""
    return next(
        Pair(entry.user, entry.item)
        for entry in corpus.entries
        if entry.rows
        and sum(other.rows > 0 for other in corpus.of_user(entry.user)) > 2
        and sum(other.rows > 0 for other in corpus.of_item(entry.item)) > 2
    )


def unreviewed_pair(corpus: Corpus, users: list[str], items: list[str]) -> Pair:
    """A pair whose user has not reviewed the item, where both have reviews with text."""
    return next(
        Pair(user, item)
        for user in users
        for item in items
        if any(entry.rows for entry in corpus.of_user(user))
        and any(entry.rows for entry in corpus.of_item(item))
        and item not in {entry.item for entry in corpus.of_user(user)}
    )


def test_the_review_of_the_pair_itself_is_never_read(
    tiny: TinyBundle, corpus: Corpus, runtime: OnnxRuntime, filled_store: MaintenanceStore
) -> None:
    engine = engine_on(filled_store, tiny, runtime)
    version = tiny.bundle.manifest.namespace("fp32").version
    pair = reviewed_pair(corpus)
    review = corpus.review(pair.user, pair.item)
    neighbour = unreviewed_pair(corpus, [pair.user], ITEMS)
    before, neighbour_before = engine.score([pair])[0], engine.score([neighbour])[0]
    assert before.basis == "full"

    opposite = replace(review, rating=6.0 - review.rating if review.rating != 3.0 else 5.0)
    other_text = states_of_tokens(tiny.model, [7] * review.rows)
    corpus.changed(opposite, other_text).write(filled_store, tiny.bundle)
    after_change, neighbour_after_change = engine.score([pair])[0], engine.score([neighbour])[0]
    filled_store.put(version, [(review, b"damaged")])
    after_damage = engine.score([pair])[0]
    filled_store.delete(version, [review])
    after_removal = engine.score([pair])[0]

    assert after_change == after_damage == after_removal == before
    assert neighbour_after_change.rating != neighbour_before.rating  # other pairs do read the review


def test_a_pair_with_two_reviews_is_rated_without_either_and_others_with_both(
    tiny: TinyBundle, corpus: Corpus, runtime: OnnxRuntime, lmdb_store: MaintenanceStore
) -> None:
    pair = reviewed_pair(corpus)
    once = corpus.review(pair.user, pair.item)
    again = replace(once, review_id="again", rating=6.0 - once.rating, timestamp=once.timestamp + 1)
    twice = corpus.changed(again, states_of_tokens(tiny.model, [7] * once.rows))
    twice.write(lmdb_store, tiny.bundle)
    pairs = [pair, unreviewed_pair(corpus, [pair.user], ITEMS), unreviewed_pair(corpus, USERS, [pair.item])]

    rated = [prediction.rating for prediction in engine_on(lmdb_store, tiny, runtime).score(pairs)]

    expected = [torch_rating(tiny, twice, one.user, one.item) for one in pairs]
    np.testing.assert_allclose(rated, expected, rtol=0, atol=CACHED_EQUALS_FRESH)
    with_once = [torch_rating(tiny, corpus, one.user, one.item) for one in pairs]
    differences = np.abs(np.subtract(with_once, expected))
    assert differences[0] == 0
    assert (differences[1:] > CACHED_EQUALS_FRESH).all()


def test_candidates_that_the_user_has_reviewed_are_rated_without_that_review(
    filled_engine: ScoringEngine, corpus: Corpus, tiny: TinyBundle
) -> None:
    user = reviewed_pair(corpus).user
    ranked = filled_engine.score([Pair(user, item) for item in ITEMS])
    reviewed = {entry.item for entry in corpus.of_user(user)}
    assert 0 < len(reviewed) < len(ITEMS)
    for prediction in ranked:
        fresh = torch_rating(tiny, corpus, user, prediction.pair.item)
        assert prediction.rating == pytest.approx(fresh, abs=CACHED_EQUALS_FRESH)


def test_cold_start_predictions_name_their_basis_and_its_reasons(
    filled_engine: ScoringEngine, corpus: Corpus, tiny: TinyBundle
) -> None:
    known_users, known_items = tiny.bundle.identities.users, tiny.bundle.identities.items
    known_pair = unreviewed_pair(corpus, USERS[: len(known_users)], ITEMS[: len(known_items)])
    unknown_pair = unreviewed_pair(corpus, USERS[len(known_users) :], ITEMS[len(known_items) :])
    pairs = [
        known_pair,
        unknown_pair,
        Pair("nobody", known_pair.item),
        Pair(known_pair.user, "nothing"),
        Pair("nobody", "nothing"),
    ]
    known, unknown, no_user, no_item, neither = filled_engine.score(pairs)

    assert (known.basis, known.reasons, known.user_known, known.item_known) == ("full", (), True, True)
    assert (unknown.basis, unknown.user_known, unknown.item_known) == ("full", False, False)
    assert (no_user.basis, no_user.reasons, no_user.user_known) == (
        "one_side",
        ("user_without_reviews",),
        False,
    )
    assert (no_item.basis, no_item.reasons, no_item.item_known) == (
        "one_side",
        ("item_without_reviews",),
        False,
    )
    assert (neither.basis, neither.reasons) == ("mean", ("user_without_reviews", "item_without_reviews"))
    assert neither.rating == pytest.approx(BIAS.mean + BIAS.intercept)


def test_a_user_with_ratings_but_no_text_is_rated_by_the_biases_of_both_sides(
    tiny: TinyBundle, corpus: Corpus, runtime: OnnxRuntime, lmdb_store: MaintenanceStore
) -> None:
    pair = unreviewed_pair(corpus, ["u0"], ITEMS)
    without_text = corpus
    for entry in corpus.of_user("u0"):
        without_text = without_text.changed(replace(entry, rows=0), corpus.states[entry.review_id][:0])
    without_text.write(lmdb_store, tiny.bundle)

    prediction = engine_on(lmdb_store, tiny, runtime).score([pair])[0]

    assert (prediction.basis, prediction.reasons) == ("bias", ("user_without_reviews",))
    assert (prediction.user_tokens, prediction.user_reviews) == (0, 0)
    assert prediction.item_tokens > 0
    expected = torch_rating(tiny, without_text, pair.user, pair.item)
    assert prediction.rating == pytest.approx(expected, abs=CACHED_EQUALS_FRESH)


def test_every_rating_lies_in_the_interval_that_the_bundle_gives_it(
    filled_engine: ScoringEngine, corpus: Corpus, tiny: TinyBundle
) -> None:
    manifest = tiny.bundle.manifest
    for prediction in filled_engine.score(EVERY_PAIR):
        others = [entry for entry in corpus.of_user(prediction.pair.user) if entry.item != prediction.pair.item]
        low, high = manifest.intervals.around([prediction.rating], [len(others)], manifest.config.scale)
        assert (prediction.low, prediction.high) == (low[0], high[0])
        assert prediction.low <= prediction.rating <= prediction.high


def test_missing_states_are_counted_and_the_rest_are_used(
    tiny: TinyBundle, corpus: Corpus, runtime: OnnxRuntime, filled_redis_store: MaintenanceStore, own_redis_url: str
) -> None:
    engine = engine_on(filled_redis_store, tiny, runtime)
    keys = RedisKeys(tiny.bundle.manifest.namespace("fp32").version)
    pair = unreviewed_pair(corpus, ["u0"], ITEMS)
    whole = engine.score([pair])[0]
    read_of_user = [entry for entry in corpus.of_user("u0") if entry.rows][: whole.user_reviews]
    assert len(read_of_user) > 1

    with redis.Redis.from_url(own_redis_url) as client:
        client.unlink(keys.state(read_of_user[0].review_id))
        one_lost = engine.score([pair])[0]
        client.unlink(*(keys.state(entry.review_id) for entry in read_of_user))
        all_lost = engine.score([pair])[0]

    assert whole.missing_states == 0
    assert (one_lost.basis, one_lost.missing_states) == ("full", 1)
    assert one_lost.user_reviews == whole.user_reviews - 1
    assert (all_lost.basis, all_lost.reasons) == ("bias", ("user_states_missing",))
    assert all_lost.missing_states == len(read_of_user)


def test_damaged_foreign_and_misshapen_states_raise_errors_that_name_the_review(
    tiny: TinyBundle, corpus: Corpus, runtime: OnnxRuntime, filled_store: MaintenanceStore
) -> None:
    engine = engine_on(filled_store, tiny, runtime)
    version = tiny.bundle.manifest.namespace("fp32").version
    pair = reviewed_pair(corpus)
    read = next(one for one in corpus.of_user(pair.user) if one.rows and one.item != pair.item)
    states = corpus.states[read.review_id]
    codec = tiny.bundle.codec("fp32")
    payload = codec.encode(states)
    flipped = payload[:40] + bytes([payload[40] ^ 1]) + payload[41:]
    foreign = make_codec(replace(codec.namespace, version="f" * 16)).encode(states)
    narrow_codec = make_codec(replace(codec.namespace, state_dim=states.shape[1] - 1))
    narrow = narrow_codec.encode(states[:, :-1])

    for bad, error in [(flipped, CorruptStateError), (foreign, ForeignStateError), (narrow, StateError)]:
        filled_store.put(version, [(read, bad)])
        with pytest.raises(error, match=rf"{read.review_id}.*`ubert states verify --repair`, then `ubert precompute`"):
            engine.score([pair])


def test_a_request_costs_two_round_trips_and_fetches_no_state_twice(
    tiny: TinyBundle, runtime: OnnxRuntime, filled_store: MaintenanceStore
) -> None:
    counted = CountedStore(filled_store)

    engine_on(counted, tiny, runtime).score(EVERY_PAIR)

    assert counted.calls == {"review_lists": 1, "states": 1}
    (fetched,) = counted.fetched
    assert len(fetched) == len(set(fetched))


def test_cached_pairs_cost_only_a_poll_for_changes_and_get_the_same_ratings(
    tiny: TinyBundle, runtime: OnnxRuntime, filled_store: MaintenanceStore
) -> None:
    counted = CountedStore(filled_store)
    engine = engine_on(counted, tiny, runtime, resident_bytes=1 << 24)

    cold = engine.score(EVERY_PAIR)
    counted.calls.clear()
    warm = engine.score(EVERY_PAIR)

    assert counted.calls == {"changes": 1}
    assert warm == cold == engine_on(filled_store, tiny, runtime).score(EVERY_PAIR)


def test_a_history_over_the_limit_is_truncated_as_in_training(
    tiny: TinyBundle, runtime: OnnxRuntime, lmdb_store: MaintenanceStore
) -> None:
    long_lists = random_corpus(tiny.model, users=3, items=40, reviews=110, seed=1)
    long_lists.write(lmdb_store, tiny.bundle)
    pairs = [Pair("u0", "i0"), Pair("u1", "i1"), Pair("u2", "i39")]
    for prediction in engine_on(lmdb_store, tiny, runtime).score(pairs):
        assert prediction.user_reviews <= tiny.model.config.max_reviews < len(long_lists.of_user(prediction.pair.user))
        expected = torch_rating(tiny, long_lists, prediction.pair.user, prediction.pair.item)
        assert prediction.rating == pytest.approx(expected, abs=CACHED_EQUALS_FRESH)


def test_reviews_without_text_count_for_the_width_of_the_interval(
    tiny: TinyBundle, corpus: Corpus, lmdb_store: MaintenanceStore, runtime: OnnxRuntime
) -> None:
    """As in training: the width depends on all reviews of the user, not only on those read."""
    reviews = corpus.of_user("u0")
    one_text = corpus
    for entry in reviews[1:]:
        one_text = one_text.changed(replace(entry, rows=0), corpus.states[entry.review_id][:0])
    one_text.write(lmdb_store, tiny.bundle)
    (rated,) = engine_on(lmdb_store, tiny, runtime).score([Pair("u0", "nothing")])
    assert rated.user_reviews == 1
    manifest = tiny.bundle.manifest
    (low_of_all, low_of_read), _ = manifest.intervals.around(
        [rated.rating] * 2, [len(reviews), 1], manifest.config.scale
    )
    assert rated.low == low_of_all != low_of_read
