"""``user_texts``, the inline texts of a request: they count as stored reviews do, and are not stored."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import httpx
import pytest

from support.app_settings import settings_for
from support.problems import problem_of
from support.running_app import serving
from support.tiny_bundle import Corpus, TinyBundle
from ubert_model.states import MaintenanceStore
from ubert_service.schemas import MAX_USER_TEXTS

ROUNDING = 1e-5
NEWEST = 60
"""Unix seconds after every review of the corpus."""
TEXTS = [
    {"text": "All big color.", "rating": 5, "item": "i2"},
    {"text": "A board, bought cheap, came back.", "rating": 2, "item": "i13"},
]
ITEMS = [f"i{number}" for number in range(14)]


@pytest.fixture
def client(
    tiny: TinyBundle, corpus: Corpus, lmdb_store: MaintenanceStore, request: pytest.FixtureRequest
) -> Iterator[httpx.Client]:
    """Over a store of the test's own, under the codec that is its parameter, if it has one."""
    codec = getattr(request, "param", "fp32")
    corpus.write(lmdb_store, tiny.bundle, codec)
    with serving(settings_for(tiny.bundle, codec=codec, texts=True), lmdb_store) as client:
        yield client


def rank(client: httpx.Client, user: str, **options: Any) -> dict[str, dict[str, Any]]:
    answer = client.post("/rank", json={"user": user, "candidates": ITEMS, **options}).raise_for_status().json()
    return {one["item"]: one for one in answer["items"]}


def explain(client: httpx.Client, user: str, **options: Any) -> tuple[list[Any], list[float]]:
    """An explanation without the ids and times of its reviews: what was read of each, and every number."""
    answer = client.post("/explain", json={"user": user, "item": "i0", **options}).raise_for_status().json()
    reviews, heat_map = answer["reviews"], answer["heat_map"]
    read = [[one[name] for name in ("side", "item", "tokens", "text", "token_spans")] for one in reviews]
    of_reviews = [[one["effect"], *one["token_contributions"]] for one in reviews]
    attention = [*heat_map["user_attention"], *heat_map["item_attention"]]
    return read, [*answer["contributions"].values(), *chain.from_iterable(of_reviews + attention)]


@pytest.mark.parametrize("user", ["newcomer", "u1"])
@pytest.mark.parametrize("client", ["fp32", "int8", "int8/pool2", "pq1", "pq1/pool3"], indirect=True)
def test_user_texts_give_the_ratings_and_explanations_that_stored_reviews_would(
    client: httpx.Client, user: str
) -> None:
    before = rank(client, user)
    inline = rank(client, user, user_texts=TEXTS)
    inline_read, inline_numbers = explain(client, user, user_texts=TEXTS)
    for age, review in enumerate(TEXTS):
        client.post("/reviews", json={**review, "user": user, "timestamp": NEWEST - age}).raise_for_status()
    stored = rank(client, user)
    stored_read, stored_numbers = explain(client, user)

    for item in ITEMS:
        for stars in ("rating", "interval"):
            assert inline[item].pop(stars) == pytest.approx(stored[item].pop(stars), abs=ROUNDING)
        assert inline[item] == stored[item]
    assert any(inline[item]["basis"] == "full" for item in ITEMS)
    assert any(before[item] != stored[item] for item in ITEMS)
    assert inline_read == stored_read
    assert inline_numbers == pytest.approx(stored_numbers, abs=ROUNDING)


@pytest.mark.parametrize("client", ["int8", "int8/pool2", "int8/pool3"], indirect=True)
def test_each_row_read_of_a_text_has_its_words_and_its_contribution(client: httpx.Client) -> None:
    question = {"user": "newcomer", "item": "i0", "user_texts": TEXTS}
    answer = client.post("/explain", json=question).raise_for_status().json()
    texts = {one["review_id"]: one for one in answer["reviews"] if one["side"] == "user"}
    assert len(texts) == len(TEXTS)
    assert all(len(one["token_spans"]) == len(one["token_contributions"]) > 1 for one in texts.values())
    attending = texts[answer["heat_map"]["user_review_id"]]
    assert len(answer["heat_map"]["user_attention"]) == len(attending["token_spans"])


def test_user_texts_are_neither_stored_nor_used_for_the_next_answer(
    client: httpx.Client, lmdb_store: MaintenanceStore, tiny: TinyBundle
) -> None:
    version = tiny.bundle.manifest.namespace("fp32").version
    written, answered = lmdb_store.changes(version, None).revision, rank(client, "u1")
    rank(client, "u1", user_texts=TEXTS)
    assert lmdb_store.changes(version, None).revision == written  # nothing was written
    assert rank(client, "u1") == answered


def test_a_text_without_a_rating_is_read_but_adds_no_bias(client: httpx.Client) -> None:
    (basis,) = {one["basis"] for one in rank(client, "newcomer", candidates=["i0"]).values()}
    unrated = rank(client, "newcomer", candidates=["i0"], user_texts=[{"text": "All big color."}])["i0"]
    rated = rank(client, "newcomer", candidates=["i0"], user_texts=[{"text": "All big color.", "rating": 1}])["i0"]
    explained = client.post(
        "/explain", json={"user": "newcomer", "item": "i0", "user_texts": [{"text": "All big color."}]}
    ).json()
    (review,) = (one for one in explained["reviews"] if one["side"] == "user")
    assert (basis, unrated["basis"], unrated["user_reviews"]) == ("one_side", "full", 1)
    assert unrated["rating"] != rated["rating"]
    assert explained["contributions"]["user_bias"] == 0
    assert (review["item"], review["rating"], review["text"]) == (None, None, "All big color.")


def test_a_text_on_the_rated_item_is_not_read(client: httpx.Client) -> None:
    plain = rank(client, "newcomer", candidates=["i2"])["i2"]
    assert rank(client, "newcomer", candidates=["i2"], user_texts=TEXTS[:1])["i2"] == plain


def test_a_text_that_is_stored_already_is_not_read_twice(client: httpx.Client) -> None:
    review = {**TEXTS[1], "user": "newcomer", "timestamp": 0}
    client.post("/reviews", json=review).raise_for_status()
    once = rank(client, "newcomer")
    assert rank(client, "newcomer", user_texts=TEXTS[1:] * 2) == once


def test_the_effect_of_a_text_is_the_change_of_the_rating_without_it(client: httpx.Client) -> None:
    question = {"user": "newcomer", "item": "i0", "user_texts": TEXTS}
    answer = client.post("/explain", json=question).raise_for_status().json()
    for review in answer["reviews"]:
        without = client.post("/explain", json={**question, "exclude_review_ids": [review["review_id"]]}).json()
        assert review["effect"] == pytest.approx(answer["rating"] - without["rating"], abs=ROUNDING)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"user_texts": [{"text": ""}]}, "invalid-request"),
        ({"user_texts": [{"text": "a"}] * (MAX_USER_TEXTS + 1)}, "invalid-request"),
        ({"user_texts": [{"text": "a", "rating": 6}]}, "unusable-input"),
        ({"user_texts": [{"text": "a", "rating": 1e300}]}, "unusable-input"),
        ({"user_texts": [{"text": "a"}], "pairs": [{"user": u, "item": "i"} for u in "ab"]}, "invalid-request"),
    ],
)
def test_invalid_user_texts_are_refused(client: httpx.Client, body: dict[str, Any], name: str) -> None:
    response = client.post("/predict", json={"pairs": [{"user": "u", "item": "i"}], **body})
    assert problem_of(response) == (422, name)
