"""Reviews written, listed and removed over HTTP, and what the store holds and predictions read afterwards."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from support.app_settings import settings_for
from support.problems import problem_of
from support.redis_server import RedisServer
from support.running_app import running
from support.serve_process import ServeProcess
from support.small_corpus import small_table
from support.store_contents import item_reviews, user_reviews
from support.tiny_bundle import BIAS, ITEM_WORTH, Corpus, TinyBundle, states_of_text, torch_rating
from ubert_model.errors import InputError, ReviewNameTakenError, StoreUnavailableError
from ubert_model.review import ReviewEntry, Side
from ubert_model.states import FloatMatrix, MaintenanceStore, open_store
from ubert_model.states.keys import RedisKeys
from ubert_service.app import create_app
from ubert_service.reviews.review_writer import ReviewWriter
from ubert_service.reviews.written_review import NewReview, WrittenReview
from ubert_service.schemas import MAX_LISTED, MAX_TEXT_CHARACTERS, READ_VERSION
from ubert_service.serving.opened import OpenedBundle
from ubert_service.serving.served import ServedBundle
from ubert_training.reviews.table import Review
from ubert_training.states.precompute import precompute

CACHED_EQUALS_FRESH = 1e-4
WHERE = {"user": "u1", "item": "i13"}
TEXT = "A board, bought cheap, came back."
REVIEW = {**WHERE, "rating": 2, "text": TEXT, "timestamp": 60}
EVERY_PAIR = [(f"u{user}", f"i{item}") for user in range(10) for item in range(14)]


@pytest.fixture
def client(tiny: TinyBundle, served: ServedBundle) -> Iterator[httpx.Client]:
    """Over a store of the test's own."""
    with running(create_app(settings_for(tiny.bundle), served.opened, served.store)) as client:
        yield client


def post(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.post("/reviews", json={**REVIEW, **changes}).raise_for_status().json()
    return answer


def rating(client: httpx.Client, user: str, item: str, *, since: httpx.Response | None = None, **options: Any) -> float:
    """``since``: the answer to a write that the rating must reflect."""
    question = {"pairs": [{"user": user, "item": item}], **options}
    headers = {READ_VERSION: since.headers[READ_VERSION]} if since else {}
    (prediction,) = client.post("/predict", json=question, headers=headers).raise_for_status().json()["predictions"]
    return float(prediction["rating"])


def with_review(tiny: TinyBundle, corpus: Corpus, name: str, review: dict[str, Any]) -> Corpus:
    """The corpus and one review more, as precomputing would have stored it."""
    states = states_of_text(tiny, review["text"])
    rating = float(review["rating"])
    entry = ReviewEntry(
        review_id=name,
        user=review["user"],
        item=review["item"],
        rating=rating,
        timestamp=review["timestamp"],
        rows=len(states),
        surplus=tiny.bundle.text_reader.surplus(review["text"], review["item"], rating),
    )
    return corpus.changed(entry, states)


def lists(served: ServedBundle, user: str, item: str) -> list[list[ReviewEntry]]:
    version = served.namespace.version
    return [*user_reviews(served.store, version, [user]), *item_reviews(served.store, version, [item])]


def test_a_review_written_and_removed_reaches_another_process_and_leaves_no_trace(
    tiny: TinyBundle, corpus: Corpus, filled_redis_store: MaintenanceStore, own_redis_url: str
) -> None:
    arguments = ["--bundle", str(tiny.bundle.path), "--codec", "fp32", "--store", own_redis_url]
    arguments += ["--device", "cpu", "--threads", "1"]
    with redis.Redis.from_url(own_redis_url) as raw:
        feed = RedisKeys(tiny.bundle.manifest.namespace("fp32").version).changes
        stored_before = {key: raw.dump(key) for key in raw.scan_iter() if key != feed}
        with ServeProcess(*arguments) as one, ServeProcess(*arguments) as other:
            before = rating(other.client, "u1", "i4")
            written = one.client.post("/reviews", json=REVIEW)
            answer = written.raise_for_status().json()
            after = rating(other.client, "u1", "i4", since=written)
            removed = other.client.delete(f"/reviews/{answer['review_id']}", params=WHERE)
            after_removal = rating(one.client, "u1", "i4", since=removed)
            assert [service.terminate() for service in (one, other)] == [0, 0]
        stored_after = {key: raw.dump(key) for key in raw.scan_iter() if key != feed}
        announced = raw.xrange(feed)

    assert (written.status_code, removed.status_code) == (201, 204)
    assert answer["states"] == tiny.bundle.manifest.namespace("fp32").version
    fresh = torch_rating(tiny, with_review(tiny, corpus, answer["review_id"], REVIEW), "u1", "i4")
    assert after == pytest.approx(fresh, abs=CACHED_EQUALS_FRESH)
    assert abs(after - before) > 10 * CACHED_EQUALS_FRESH
    assert after_removal == before
    # Every byte of the store is as before, and its change feed holds marks, not identifiers.
    assert stored_after == stored_before
    assert announced[-1][1] == announced[-2][1]
    assert len(announced[-1][1][b"marks"]) == 3 * 8


def test_the_answer_has_the_id_of_an_import_and_the_counts_of_user_and_item(
    client: httpx.Client, corpus: Corpus
) -> None:
    answer = post(client, text=f"  {TEXT}\n")
    imported = Review(user="u1", item="i13", rating=2, text=TEXT, timestamp=60, domain="any")
    ratings = [entry.rating for entry in corpus.of_user("u1")] + [2.0]
    assert answer["review_id"] == imported.review_id
    assert 0 < answer["tokens"] <= 16
    assert answer["user"] == {"reviews": len(ratings), "mean_rating": pytest.approx(sum(ratings) / len(ratings))}
    assert answer["item"] == {"reviews": 1, "mean_rating": 2.0}


@pytest.mark.parametrize("changes", [{}, {"timestamp": None}, {"review_id": "my own name"}, {"rating": 2.3}])
def test_the_same_review_sent_twice_is_stored_once(
    client: httpx.Client, served: ServedBundle, changes: dict[str, Any]
) -> None:
    review = {**REVIEW, **changes}
    first = client.post("/reviews", json=review)
    stored = lists(served, "u1", "i13")
    second = client.post("/reviews", json=review)
    assert (first.status_code, second.status_code) == (201, 200)
    assert {**first.json(), "read_version": None} == {**second.json(), "read_version": None}
    assert lists(served, "u1", "i13") == stored
    assert len(stored[1]) == 1


def test_a_failed_write_invalidates_the_cached_lists(served: ServedBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store may have done part of it, which its change feed does not announce."""

    def put_new(*_: object) -> None:
        raise StoreUnavailableError("it went away")

    invalidated: list[ReviewEntry] = []
    monkeypatch.setattr(served.store, "put_new", put_new)
    monkeypatch.setattr(served.residents, "wrote", invalidated.extend)
    with pytest.raises(StoreUnavailableError):
        served.reviews.add(NewReview(user="u1", item="i13", rating=2, text="A board."))
    assert [(entry.user, entry.item) for entry in invalidated] == [("u1", "i13")]


def test_a_rating_is_stored_in_float32_as_in_the_review_table(client: httpx.Client, served: ServedBundle) -> None:
    post(client, rating=2.3)
    (entry,) = lists(served, "u1", "i13")[1]
    assert entry.rating == float(np.float32(2.3)) != 2.3


def test_a_written_review_is_listed_as_precompute_lists_it(
    tiny: TinyBundle, served: ServedBundle, tmp_path: Path
) -> None:
    table = small_table(users=4)
    with closing(open_store(f"lmdb:{tmp_path / 'precomputed'}")) as store:
        precompute(table, np.arange(len(table)), tiny.bundle, store, codec="fp32")
        columns = (table.user, table.item, table.rating.tolist(), table.text, table.timestamp.tolist())
        for user, item, stars, text, timestamp in zip(*columns, strict=True):
            served.reviews.add(NewReview(user=user, item=item, rating=stars, text=text, timestamp=timestamp))
        users, items = sorted(set(table.user)), sorted(set(table.item))
        written, precomputed = (
            one.review_lists(served.namespace.version, users=users, items=items) for one in (served.store, store)
        )
    assert written == precomputed
    surpluses = [entry.surplus for entries in written[0] for entry in entries]
    assert len(surpluses) == len(table)
    assert sum(abs(surplus) > 0.1 for surplus in surpluses) > len(table) / 2


@pytest.mark.parametrize("text", [TEXT, "Perfect sound, I love it!"])
def test_what_a_text_says_beyond_its_rating_moves_the_predictions_of_its_item(
    client: httpx.Client, served: ServedBundle, text: str
) -> None:
    post(client, review_id="mine", rating=3, text="")
    by_rating = rating(client, "u9", "i13")  # a user without reviews, so that the biases alone rate the pair
    post(client, review_id="mine", rating=3, text=text)
    (entry,) = lists(served, "u1", "i13")[1]
    assert abs(entry.surplus) > 0.1
    moved = ITEM_WORTH.surplus_weight * entry.surplus / (1 + BIAS.item.shrinkage)
    assert rating(client, "u9", "i13") - by_rating == pytest.approx(moved, abs=1e-6)


def writer_at(served: ServedBundle, second: float) -> ReviewWriter:
    return ReviewWriter(
        scale=served.bundle.manifest.config.scale,
        codec=served.codec,
        store=served.store,
        residents=served.residents,
        encoder=served.opened.encoder,
        reader=served.bundle.text_reader,
        texts=served.texts,
        clock=lambda: second,
    )


def test_a_review_without_a_timestamp_gets_the_time_of_its_first_arrival(served: ServedBundle) -> None:
    review = NewReview(user="u1", item="i13", rating=2, text="")
    first, second = writer_at(served, 1000.7).add(review), writer_at(served, 2000.0).add(review)
    assert first.entry == second.entry
    assert first.entry.timestamp == 1000


def test_a_timestamp_may_be_a_day_ahead_and_no_more(served: ServedBundle) -> None:
    """It would count as the newest review of its user and item until then."""
    review, day = NewReview(user="u1", item="i13", rating=2, text="", timestamp=101_000), 86_400
    assert writer_at(served, 101_000 - day).add(review).entry.timestamp == 101_000
    with pytest.raises(InputError, match=r"^timestamp 101000 is 1\.2 days ahead of the service's clock"):
        writer_at(served, 101_000 - 1.2 * day).add(review)


def test_a_user_may_review_an_item_more_than_once(client: httpx.Client, served: ServedBundle) -> None:
    review_ids = {post(client)["review_id"], post(client, text="After a day: bad.")["review_id"]}
    for reviews in lists(served, "u1", "i13"):
        assert {entry.review_id for entry in reviews if entry.item == "i13"} == review_ids


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_a_review_without_text_counts_by_its_rating_alone(
    client: httpx.Client, tiny: TinyBundle, corpus: Corpus, text: str
) -> None:
    before = rating(client, "u1", "i4")
    answer = post(client, text=text, rating=1)
    review = {**REVIEW, "text": "", "rating": 1}
    fresh = torch_rating(tiny, with_review(tiny, corpus, answer["review_id"], review), "u1", "i4")
    assert answer["tokens"] == 0
    assert rating(client, "u1", "i4") == pytest.approx(fresh, abs=CACHED_EQUALS_FRESH)
    assert rating(client, "u1", "i4") < before


def test_a_review_with_a_chosen_id_is_replaced_and_keeps_its_timestamp(
    client: httpx.Client, served: ServedBundle, tiny: TinyBundle, corpus: Corpus
) -> None:
    post(client, review_id="mine")
    again = {**REVIEW, "review_id": "mine", "rating": 5, "text": "All big color.", "timestamp": None}
    assert client.post("/reviews", json=again).status_code == 200
    (entry,) = lists(served, "u1", "i13")[1]
    assert (entry.rating, entry.timestamp) == (5.0, REVIEW["timestamp"])
    fresh = torch_rating(tiny, with_review(tiny, corpus, "mine", {**again, "timestamp": 60}), "u1", "i4")
    assert rating(client, "u1", "i4") == pytest.approx(fresh, abs=CACHED_EQUALS_FRESH)


def test_the_id_of_another_pairs_review_is_refused_and_nothing_changes(client: httpx.Client, corpus: Corpus) -> None:
    taken = next(entry for entry in corpus.of_user("u0") if entry.rows)
    before = rating(client, "u0", "i13")
    refused = client.post("/reviews", json={**REVIEW, "review_id": taken.review_id})
    assert problem_of(refused) == (409, "review-name-taken")
    assert rating(client, "u0", "i13") == before
    assert client.get("/items/i13").status_code == 404


def test_a_derived_id_that_another_pair_has_chosen_is_refused_and_another_can_be_chosen(
    client: httpx.Client, served: ServedBundle
) -> None:
    derived = post(client)["review_id"]
    client.delete(f"/reviews/{derived}", params=WHERE).raise_for_status()
    other = {"user": "u2", "item": "i12", "text": "A board of another.", "review_id": derived}
    post(client, **other)
    before = served.store.states(served.namespace.version, [derived])
    assert problem_of(client.post("/reviews", json=REVIEW)) == (409, "review-name-taken")
    assert served.store.states(served.namespace.version, [derived]) == before
    assert client.get("/items/i13").status_code == 404
    assert post(client, review_id="mine")["review_id"] == "mine"


@pytest.mark.parametrize("kind", ["lmdb_store", "redis_store"])
def test_of_two_pairs_that_choose_one_id_concurrently_only_one_is_written(
    kind: str, request: pytest.FixtureRequest, tiny: TinyBundle, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: MaintenanceStore = request.getfixturevalue(kind)
    corpus.write(store, tiny.bundle)
    served = ServedBundle(OpenedBundle.open(settings_for(tiny.bundle)), store)
    both_encoding = threading.Barrier(2)
    encode = served.opened.encoder.encode

    def encoding_together(text: str) -> FloatMatrix:
        both_encoding.wait(10)
        return encode(text)

    monkeypatch.setattr(served.opened.encoder, "encode", encoding_together)
    written: dict[str, str] = {}
    refused: list[Exception] = []

    def write(user: str) -> None:
        try:
            served.reviews.add(
                NewReview(user=user, item="i13", rating=2.0, text=f"The board of {user}.", review_id="mine")
            )
            written[user] = f"The board of {user}."
        except ReviewNameTakenError as error:
            refused.append(error)

    writers = [threading.Thread(target=write, args=(user,)) for user in ("u1", "u2")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    ((user, text),) = written.items()
    assert len(refused) == 1
    version = served.namespace.version
    (of_item,) = item_reviews(served.store, version, ["i13"])
    assert [(review.user, review.review_id) for review in of_item] == [(user, "mine")]
    (state,) = served.store.states(version, ["mine"])
    assert state is not None
    np.testing.assert_array_equal(served.codec.decode(state), served.codec.decode(served.codec.encode(encode(text))))


@pytest.mark.parametrize("kind", ["lmdb_store", "redis_store"])
@pytest.mark.parametrize("during", ["the reading of lists", "the encoding"])
def test_the_same_review_sent_twice_concurrently_is_accepted_both_times(
    kind: str, during: str, request: pytest.FixtureRequest, tiny: TinyBundle, corpus: Corpus
) -> None:
    store: MaintenanceStore = request.getfixturevalue(kind)
    corpus.write(store, tiny.bundle)
    served = ServedBundle(OpenedBundle.open(settings_for(tiny.bundle)), store)
    review = NewReview(user="u1", item="i13", rating=2.0, text="A board.", review_id="mine", timestamp=60)
    first: list[WrittenReview] = []

    def followed_by_a_write(call: Callable[..., Any]) -> Callable[..., Any]:
        def call_and_write(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            interrupted.undo()
            first.append(served.reviews.add(review))
            return result

        return call_and_write

    with pytest.MonkeyPatch.context() as interrupted:
        if during == "the encoding":
            interrupted.setattr(served.opened.encoder, "encode", followed_by_a_write(served.opened.encoder.encode))
        else:
            interrupted.setattr(store, "review_lists", followed_by_a_write(store.review_lists))
        second = served.reviews.add(review)
    assert [one.entry for one in first] == [second.entry]
    (of_item,) = item_reviews(store, served.namespace.version, ["i13"])
    assert of_item == [second.entry]


@pytest.mark.parametrize("kind", ["lmdb_store", "redis_store"])
def test_a_review_removed_while_it_is_written_again_leaves_no_text_behind(
    kind: str, request: pytest.FixtureRequest, tiny: TinyBundle, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: MaintenanceStore = request.getfixturevalue(kind)
    corpus.write(store, tiny.bundle)
    served = ServedBundle(OpenedBundle.open(settings_for(tiny.bundle, texts=True)), store)
    review = NewReview(user="u1", item="i13", rating=2.0, text="A board.", review_id="mine")
    served.reviews.add(review)
    put_texts = store.put_texts

    def put_after_removal(version: str, texts: Sequence[tuple[str, str]]) -> None:
        served.reviews.remove("mine", user="u1", item="i13")
        put_texts(version, texts)

    monkeypatch.setattr(store, "put_texts", put_after_removal)
    served.reviews.add(review)
    is_listed = any(lists(served, "u1", "i13")[1])
    assert store.texts(served.namespace.version, ["mine"]) == ["A board." if is_listed else None]


def test_only_the_same_pair_can_repeat_an_interrupted_write_or_removal_of_an_id(
    tiny: TinyBundle, corpus: Corpus
) -> None:
    named = {**REVIEW, "review_id": "mine"}
    with RedisServer() as server, closing(open_store(server.url)) as store, redis.Redis(port=server.port) as raw:
        corpus.write(store, tiny.bundle)
        served = ServedBundle(OpenedBundle.open(settings_for(tiny.bundle)), store)
        with running(create_app(settings_for(tiny.bundle), served.opened, served.store)) as client:
            raw.acl_setuser("default", enabled=True, commands=["-hset"])  # a state can be written, but not listed
            assert client.post("/reviews", json=named).status_code == 500
            raw.acl_setuser("default", enabled=True, commands=["+hset"])
            assert client.post("/reviews", json={**named, "user": "u2"}).status_code == 409
            assert client.post("/reviews", json=named).status_code == 201
            raw.acl_setuser("default", enabled=True, commands=["-unlink"])
            assert client.delete("/reviews/mine", params=WHERE).status_code == 500
            raw.acl_setuser("default", enabled=True, commands=["+unlink"])
            assert client.post("/reviews", json={**named, "user": "u2"}).status_code == 409
            assert client.post("/reviews", json=named).status_code == 201
            assert client.delete("/reviews/mine", params=WHERE).status_code == 204
            assert client.post("/reviews", json={**named, "user": "u2"}).status_code == 201
        assert not list(raw.scan_iter("*:claim:*"))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"rating": 0.99}, "unusable-input"),
        ({"rating": 5.01}, "unusable-input"),
        ({"rating": "5"}, "invalid-request"),
        ({"rating": True}, "invalid-request"),
        ({"text": None}, "invalid-request"),
        ({"text": "a" * (MAX_TEXT_CHARACTERS + 1)}, "invalid-request"),
        ({"user": ""}, "invalid-request"),
        ({"item": "ü" * 129}, "invalid-request"),
        ({"review_id": ""}, "invalid-request"),
        ({"timestamp": -1}, "invalid-request"),
        ({"timestamp": 1_700_000_000_000}, "invalid-request"),
        ({"timestamp": 4_102_444_800}, "unusable-input"),
        ({"stars": 5}, "invalid-request"),
    ],
)
def test_an_invalid_review_is_refused(reader: httpx.Client, changes: dict[str, Any], name: str) -> None:
    assert problem_of(reader.post("/reviews", json={**REVIEW, **changes})) == (422, name)
    assert reader.get("/items/i13").status_code == 404


@pytest.mark.parametrize("literal", ['"\\ud800"', "NaN", "Infinity"])
def test_a_lone_surrogate_and_non_finite_ratings_are_refused(reader: httpx.Client, literal: str) -> None:
    field = "text" if literal.startswith('"') else "rating"
    rest = '"user": "u", "item": "i", ' + ('"rating": 3' if field == "text" else '"text": ""')
    headers = {"content-type": "application/json"}
    response = reader.post("/reviews", content=f'{{{rest}, "{field}": {literal}}}', headers=headers)
    assert problem_of(response) == (422, "invalid-request")


def test_the_longest_text_is_truncated_to_max_length(client: httpx.Client, tiny: TinyBundle) -> None:
    longest = ("a" * 99 + " ") * (MAX_TEXT_CHARACTERS // 100)
    assert post(client, text=longest)["tokens"] == tiny.model.config.max_length


def test_without_the_bundles_namespace_no_review_is_written(tiny: TinyBundle, lmdb_store: MaintenanceStore) -> None:
    served = ServedBundle(OpenedBundle.open(settings_for(tiny.bundle)), lmdb_store)
    with running(create_app(settings_for(tiny.bundle), served.opened, served.store)) as client:
        response = client.post("/reviews", json=REVIEW)
    assert problem_of(response) == (503, "not-ready")
    assert lists(served, "u1", "i13") == [[], []]


def test_without_the_bundles_namespace_reads_and_removals_get_503_and_not_404(
    tiny: TinyBundle, lmdb_store: MaintenanceStore
) -> None:
    served = ServedBundle(OpenedBundle.open(settings_for(tiny.bundle)), lmdb_store)
    with running(create_app(settings_for(tiny.bundle), served.opened, served.store)) as client:
        answers = [
            *(client.get(path) for path in ("/users/u0", "/users/nobody", "/items/i0", "/users", "/items?prefix=i1")),
            client.delete("/reviews/review-0", params={"user": "u0", "item": "i0"}),
        ]
    for answer in answers:
        assert problem_of(answer) == (503, "not-ready")
        assert "ubert precompute" in answer.json()["detail"]


def test_a_review_is_removed_only_if_user_and_item_match(
    client: httpx.Client, served: ServedBundle, lmdb_store: MaintenanceStore, corpus: Corpus
) -> None:
    entry = next(entry for entry in corpus.of_user("u0") if entry.rows)
    for user, item in [("u1", entry.item), ("u0", "i13"), ("nobody", "nothing")]:
        refused = client.delete(f"/reviews/{entry.review_id}", params={"user": user, "item": item})
        assert problem_of(refused) == (404, "unknown-review")
    assert lmdb_store.missing(served.namespace.version, [entry]) == [False]
    where = {"user": "u0", "item": entry.item}
    assert client.delete(f"/reviews/{entry.review_id}", params=where).status_code == 204
    assert problem_of(client.delete(f"/reviews/{entry.review_id}", params=where)) == (404, "unknown-review")


@pytest.mark.parametrize("params", [{}, {"user": "u0"}, {"item": "i0"}, {"user": "", "item": "i0"}])
def test_a_removal_requires_user_and_item(reader: httpx.Client, params: dict[str, str]) -> None:
    assert problem_of(reader.delete("/reviews/review-1", params=params)) == (422, "invalid-request")


@pytest.mark.parametrize("lost", list(Side))
def test_an_interrupted_removal_is_finished_by_repeating_it(
    tiny: TinyBundle, corpus: Corpus, filled_redis_store: MaintenanceStore, own_redis_url: str, lost: Side
) -> None:
    served = ServedBundle(OpenedBundle.open(settings_for(tiny.bundle)), filled_redis_store)
    entry = next(entry for entry in corpus.entries if entry.rows)
    keys = RedisKeys(served.namespace.version)
    with redis.Redis.from_url(own_redis_url) as raw:
        raw.hdel(keys.reviews(lost, lost.entity(entry)), entry.review_id)
        served.reviews.remove(entry.review_id, user=entry.user, item=entry.item)
        assert not raw.exists(keys.state(entry.review_id))
    assert all(entry not in reviews for reviews in lists(served, entry.user, entry.item))


def test_a_removal_repeated_after_it_was_cut_short_has_the_read_version_of_one(
    tiny: TinyBundle, corpus: Corpus
) -> None:
    with RedisServer() as server, redis.Redis(port=server.port) as raw, ExitStack() as services:
        store = services.enter_context(closing(open_store(server.url)))
        corpus.write(store, tiny.bundle)
        settings = settings_for(tiny.bundle, resident_lag=60)
        one, other = (
            services.enter_context(running(create_app(settings, OpenedBundle.open(settings), store))) for _ in range(2)
        )
        before = rating(other, "u1", "i4")
        written = one.post("/reviews", json={**REVIEW, "review_id": "mine"}).raise_for_status()
        assert rating(other, "u1", "i4", since=written) != before
        raw.acl_setuser("default", enabled=True, commands=["-unlink"])  # the lists change, but it is not announced
        assert one.delete("/reviews/mine", params=WHERE).status_code == 500
        raw.acl_setuser("default", enabled=True, commands=["+unlink"])
        repeated = one.delete("/reviews/mine", params=WHERE)
        assert problem_of(repeated) == (404, "unknown-review")
        assert rating(other, "u1", "i4") != before
        assert rating(other, "u1", "i4", since=repeated) == before


@pytest.mark.parametrize("bad", ["%FF", "a%C3", "%ED%A0%80", "%C0%AF"])
def test_bytes_that_are_not_utf_8_name_nothing(client: httpx.Client, bad: str) -> None:
    post(client, user="\ufffd", item="\ufffd", review_id="\ufffd")
    refused = [client.get(f"/users/{bad}"), client.get(f"/items/{bad}"), client.get(f"/users?prefix={bad}")]
    refused += [client.delete(f"/reviews/{bad}?user=u&item=i"), client.delete(f"/reviews/r?user={bad}&item=i")]
    for response, pointer in zip(refused, ["/path", "/path", "/query", "/path", "/query"], strict=True):
        assert problem_of(response) == (422, "invalid-request")
        assert response.json()["errors"] == [{"pointer": pointer, "message": "send percent-encoded UTF-8"}]


@pytest.mark.parametrize("identifier", ["a/b", "/", "ü x", "50%2F", "?#", "用户", "\ufffd", "a\n", "\na\r\nb"])
def test_any_identifier_can_be_part_of_a_path(client: httpx.Client, identifier: str) -> None:
    escaped = "".join(f"%{byte:02X}" for byte in identifier.encode())
    post(client, user=identifier, item=identifier, review_id=identifier)
    assert client.get(f"/users/{escaped}").raise_for_status().json()["id"] == identifier
    assert client.get(f"/items/{escaped}").raise_for_status().json()["counts"]["reviews"] == 1
    params = {"user": identifier, "item": identifier}
    assert client.delete(f"/reviews/{escaped}", params=params).status_code == 204
    assert client.get(f"/users/{escaped}").status_code == 404


def test_a_trailing_line_break_is_part_of_the_review_id_in_a_path(client: httpx.Client, served: ServedBundle) -> None:
    for name in ("mine", "mine\n"):
        post(client, review_id=name)
    assert client.delete("/reviews/mine%0A", params=WHERE).status_code == 204
    (of_item,) = item_reviews(served.store, served.namespace.version, [WHERE["item"]])
    assert [review.review_id for review in of_item] == ["mine"]


@pytest.mark.parametrize("limit", [1, 3, MAX_LISTED])
def test_pages_hold_every_review_once_newest_first(reader: httpx.Client, corpus: Corpus, limit: int) -> None:
    for address, expected in [("/users/u0", corpus.of_user("u0")), ("/items/i3", corpus.of_item("i3"))]:
        read: list[str] = []
        params: dict[str, Any] = {"limit": limit}
        while True:
            page = reader.get(address, params=params).raise_for_status().json()
            assert len(page["reviews"]) <= limit
            assert page["counts"]["reviews"] == len(expected)
            assert page["with_text"] == sum(entry.rows > 0 for entry in expected)
            read += [review["review_id"] for review in page["reviews"]]
            if page["next"] is None:
                break
            params["cursor"] = page["next"]
        assert read == [entry.review_id for entry in expected]


def test_a_review_written_between_two_pages_neither_hides_nor_repeats_another(
    client: httpx.Client, corpus: Corpus
) -> None:
    first = client.get("/users/u1", params={"limit": 2}).raise_for_status().json()
    post(client)
    rest = client.get("/users/u1", params={"cursor": first["next"]}).raise_for_status().json()
    read = [review["review_id"] for page in (first, rest) for review in page["reviews"]]
    assert read == [entry.review_id for entry in corpus.of_user("u1")]


def test_pages_hold_reviews_with_equal_timestamps_once_each(client: httpx.Client) -> None:
    review_ids = {post(client, item="i13", review_id=f"mine-{number}")["review_id"] for number in range(4)}
    read: list[str] = []
    page: dict[str, Any] = {"next": None}
    while not read or page["next"] is not None:
        cursor = {"cursor": page["next"]} if read else {}
        page = client.get("/items/i13", params={"limit": 1, **cursor}).raise_for_status().json()
        read += [review["review_id"] for review in page["reviews"]]
    assert sorted(read) == sorted(review_ids)


def test_known_users_and_users_with_reviews_are_listed_and_others_get_404(
    tiny: TinyBundle, served: ServedBundle, client: httpx.Client, corpus: Corpus
) -> None:
    served.store.delete(served.namespace.version, corpus.of_user("u4"))
    known = client.get("/users/u4").raise_for_status().json()
    assert (known["known"], known["counts"]) == (True, {"reviews": 0, "mean_rating": None})
    unknown = client.get("/users/u6").raise_for_status().json()
    assert (unknown["known"], unknown["counts"]["reviews"] > 0) == (False, True)
    assert problem_of(client.get("/users/nobody")) == (404, "unknown-user")
    assert problem_of(client.get("/items/nothing")) == (404, "unknown-item")


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": MAX_LISTED + 1}, {"cursor": "x"}, {"cursor": "-1:r"}])
def test_an_invalid_limit_or_cursor_is_refused(reader: httpx.Client, params: dict[str, Any]) -> None:
    assert problem_of(reader.get("/users/u0", params=params)) == (422, "invalid-request")


@pytest.mark.parametrize("as_of", [0, 1, 20, 35, 1_000])
def test_as_of_rates_as_a_store_of_only_the_earlier_reviews_does(
    reader: httpx.Client, tiny: TinyBundle, corpus: Corpus, as_of: int
) -> None:
    assert any(entry.timestamp == as_of for entry in corpus.entries) or as_of in {0, 1, 1_000}
    earlier = corpus.only(lambda entry: 0 < entry.timestamp < as_of)
    assert_rated_as(reader, tiny, earlier, as_of=as_of)


def test_as_of_leaves_out_reviews_without_a_timestamp(client: httpx.Client, tiny: TinyBundle, corpus: Corpus) -> None:
    post(client, user="u0", timestamp=0)
    assert_rated_as(client, tiny, corpus.only(lambda entry: entry.timestamp > 0), as_of=1_000)


def test_excluded_reviews_are_neither_read_nor_counted(reader: httpx.Client, tiny: TinyBundle, corpus: Corpus) -> None:
    excluded = [entry.review_id for entry in corpus.entries[::3]]
    rest = corpus.only(lambda entry: entry.review_id not in excluded)
    assert_rated_as(reader, tiny, rest, exclude_review_ids=[*excluded, "unknown"])
    both = rest.only(lambda entry: 0 < entry.timestamp < 30)
    assert_rated_as(reader, tiny, both, exclude_review_ids=excluded, as_of=30)


def assert_rated_as(client: httpx.Client, tiny: TinyBundle, corpus: Corpus, **options: Any) -> None:
    """With these options, pairs are rated as if the store held only this corpus."""
    pairs = EVERY_PAIR[:28]
    question = {"pairs": [{"user": user, "item": item} for user, item in pairs], **options}
    predictions = client.post("/predict", json=question).raise_for_status().json()["predictions"]
    expected = [torch_rating(tiny, corpus, user, item) for user, item in pairs]
    assert [one["rating"] for one in predictions] == pytest.approx(expected, abs=CACHED_EQUALS_FRESH)


USERS, ITEMS = ["u0", "u1", "new-user"], ["i0", "i1", "new-item"]
WRITES = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {
                "user": st.sampled_from(USERS),
                "item": st.sampled_from(ITEMS),
                "rating": st.sampled_from([1.0, 2.5, 4.1, 5.0]),
                "text": st.sampled_from(["", "A big board.", "Cheap, and bad because it came black.", "again " * 30]),
                "timestamp": st.integers(0, 5),
                "review_id": st.sampled_from([None, "one", "two"]),
            }
        ),
        st.integers(0, 20),  # remove the review written so many writes ago
        st.none(),  # predict in between, which caches what later writes must invalidate
    ),
    min_size=1,
    max_size=12,
)


@dataclass(frozen=True, kw_only=True)
class EmptiedService:
    """A running service whose store every example empties."""

    served: ServedBundle
    store: MaintenanceStore
    client: httpx.Client

    def empty(self) -> None:
        self.store.drop_namespace(self.served.namespace.version)
        self.store.open_namespace(self.served.namespace)


@pytest.fixture(scope="module")
def two_services(
    tiny: TinyBundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[EmptiedService, EmptiedService]]:
    settings = settings_for(tiny.bundle)
    with ExitStack() as stack:
        emptied: list[EmptiedService] = []
        for name in ("grown", "rebuilt"):
            store = stack.enter_context(closing(open_store(f"lmdb:{tmp_path_factory.mktemp(name)}")))
            served = ServedBundle(OpenedBundle.open(settings), store)
            client = stack.enter_context(running(create_app(settings, served.opened, store)))
            emptied.append(EmptiedService(served=served, store=store, client=client))
        yield emptied[0], emptied[1]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(writes=WRITES)
def test_after_any_writes_predictions_equal_those_of_a_store_built_from_the_surviving_reviews(
    tiny: TinyBundle, two_services: tuple[EmptiedService, EmptiedService], writes: list[dict[str, Any] | int | None]
) -> None:
    grown, rebuilt = two_services
    grown.empty()
    rebuilt.empty()
    corpus = Corpus(entries=[], states={})
    for name, review in survivors(grown.client, writes).items():
        corpus = with_review(tiny, corpus, name, review)
    corpus.write(rebuilt.store, tiny.bundle)

    grown_lists, rebuilt_lists = (
        service.store.review_lists(service.served.namespace.version, users=USERS, items=ITEMS)
        for service in two_services
    )
    assert grown_lists == rebuilt_lists
    answers = [predictions(service.client) for service in two_services]
    for found, expected in zip(*answers, strict=True):
        for stars in ("rating", "interval"):
            assert found.pop(stars) == pytest.approx(expected.pop(stars), abs=CACHED_EQUALS_FRESH)
        assert found == expected


def predictions(client: httpx.Client) -> list[dict[str, Any]]:
    """Of every pair that a write may affect."""
    pairs = [{"user": user, "item": item} for user in USERS for item in ITEMS]
    answer: list[dict[str, Any]] = client.post("/predict", json={"pairs": pairs}).json()["predictions"]
    return answer


def survivors(client: httpx.Client, writes: list[dict[str, Any] | int | None]) -> dict[str, dict[str, Any]]:
    """Do the writes, check their answers, and return the reviews that must be stored then, by id."""
    surviving: dict[str, dict[str, Any]] = {}
    written: list[tuple[str, dict[str, Any]]] = []
    for write in writes:
        if write is None:
            predictions(client)
            continue
        if isinstance(write, int):
            if not written:
                continue
            name, review = written[-1 - write % len(written)]
            where = {"user": review["user"], "item": review["item"]}
            exists = name in surviving and {key: surviving[name][key] for key in where} == where
            response = client.delete(f"/reviews/{name}", params=where)
            assert response.status_code == (204 if exists else 404)
            if exists:
                del surviving[name]
            continue
        response = client.post("/reviews", json=write)
        holder = surviving.get(write["review_id"])
        if holder and (holder["user"], holder["item"]) != (write["user"], write["item"]):
            assert response.status_code == 409
            continue
        name = response.json()["review_id"]
        assert response.status_code == (200 if name in surviving else 201)
        # In float32, as the review table stores it.
        surviving[name] = {**write, "rating": 4.099999904632568 if write["rating"] == 4.1 else write["rating"]}
        written.append((name, write))
    return surviving
