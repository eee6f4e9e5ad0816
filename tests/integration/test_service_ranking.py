"""The options of ``/rank``: candidate sets, filters, replays and latency budgets."""

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from support.app_settings import settings_for
from support.problems import problem_of
from support.running_app import running, serving
from support.tiny_bundle import Corpus, TinyBundle
from ubert_model.states import MaintenanceStore
from ubert_service.app import create_app
from ubert_service.reviews.candidate_sets import MAX_SETS
from ubert_service.schemas import LEAST_SCORED
from ubert_service.serving.opened import OpenedBundle
from ubert_service.work.admission import WorkKind

ITEMS = [f"i{number}" for number in range(14)]


@pytest.fixture(params=["lmdb_store", "redis_store"])
def store(request: pytest.FixtureRequest) -> MaintenanceStore:
    store: MaintenanceStore = request.getfixturevalue(request.param)
    return store


@pytest.fixture
def client(tiny: TinyBundle, corpus: Corpus, store: MaintenanceStore) -> Iterator[httpx.Client]:
    corpus.write(store, tiny.bundle)
    with serving(settings_for(tiny.bundle), store) as client:
        yield client


@pytest.fixture
def app(tiny: TinyBundle, filled_store: MaintenanceStore) -> FastAPI:
    """Not yet running, for tests that watch its admission."""
    settings = settings_for(tiny.bundle)
    return create_app(settings, OpenedBundle.open(settings), filled_store)


def rank(client: httpx.Client, **options: Any) -> dict[str, Any]:
    question = {"user": "u1", **({} if "candidate_set" in options else {"candidates": ITEMS}), **options}
    answer: dict[str, Any] = client.post("/rank", json=question).raise_for_status().json()
    return answer


def test_a_candidate_set_ranks_as_its_items_do_until_it_is_removed(client: httpx.Client) -> None:
    written = client.put("/candidate-sets/spring", json={"items": [*ITEMS, "i0"]})
    assert written.raise_for_status().json() == {"name": "spring", "items": ITEMS}
    assert client.get("/candidate-sets/spring").json() == {"name": "spring", "items": ITEMS}
    assert client.get("/candidate-sets").json() == {"names": ["spring"]}
    assert rank(client, candidate_set="spring") == rank(client)

    client.put("/candidate-sets/spring", json={"items": ["i3"]}).raise_for_status()
    assert [one["item"] for one in rank(client, candidate_set="spring")["items"]] == ["i3"]

    assert client.delete("/candidate-sets/spring").status_code == 204
    for response in (
        client.delete("/candidate-sets/spring"),
        client.get("/candidate-sets/spring"),
        client.post("/rank", json={"user": "u1", "candidate_set": "spring"}),
    ):
        assert problem_of(response) == (404, "unknown-candidate-set")


def test_candidate_sets_are_not_namespaces_and_their_number_is_bounded(
    client: httpx.Client, store: MaintenanceStore
) -> None:
    namespaces = store.namespaces()
    for number in range(MAX_SETS):
        store.put_candidates(f"set-{number}", ["i0"])
    assert problem_of(client.put("/candidate-sets/more", json={"items": ["i0"]})) == (422, "unusable-input")
    assert client.put("/candidate-sets/set-7", json={"items": ["i1"]}).status_code == 200
    assert store.candidates("set-7") == ["i1"]
    assert (store.namespaces(), len(store.candidate_sets())) == (namespaces, MAX_SETS)
    for number in range(MAX_SETS):
        assert store.delete_candidates(f"set-{number}")


@pytest.mark.parametrize("name", ["-a", "a" * 65, "a%20b"])
def test_an_invalid_name_of_a_candidate_set_is_refused(client: httpx.Client, name: str) -> None:
    assert problem_of(client.put(f"/candidate-sets/{name}", json={"items": ["i0"]})) == (422, "invalid-request")


def test_rank_requires_either_candidates_or_a_candidate_set(client: httpx.Client) -> None:
    for invalid in ({"user": "u1"}, {"user": "u1", "candidates": ["i0"], "candidate_set": "spring"}):
        refused = client.post("/rank", json=invalid)
        assert problem_of(refused) == (422, "invalid-request")
        assert refused.json()["errors"] == [
            {"pointer": "", "message": "send exactly one of candidates and candidate_set"}
        ]


def test_exclude_rated_leaves_out_what_the_user_has_reviewed(client: httpx.Client, corpus: Corpus) -> None:
    reviewed = {entry.item for entry in corpus.of_user("u1")}
    whole, unrated = rank(client), rank(client, exclude_rated=True)
    assert 0 < len(reviewed) < len(ITEMS)
    assert [one["item"] for one in unrated["items"]] == [
        one["item"] for one in whole["items"] if one["item"] not in reviewed
    ]
    assert unrated["candidates"] == unrated["scored"] == len(ITEMS) - len(reviewed)
    nothing_left = rank(client, candidates=sorted(reviewed), exclude_rated=True)
    assert (nothing_left["items"], nothing_left["candidates"]) == ([], 0)
    # As of a time before all reviews, the user has reviewed nothing.
    assert rank(client, exclude_rated=True, as_of=1)["candidates"] == len(ITEMS)


def test_exclude_rated_leaves_out_the_item_of_a_text_that_comes_with_the_request(
    client: httpx.Client, corpus: Corpus
) -> None:
    reviewed = {entry.item for entry in corpus.of_user("u1")}
    item, other = [item for item in ITEMS if item not in reviewed][:2]
    texts = {"user_texts": [{"text": "All big color.", "rating": 5, "item": item}]}
    explained = client.post("/explain", json={"user": "u1", "item": other, **texts}).raise_for_status().json()
    (text,) = [one["review_id"] for one in explained["reviews"] if (one["side"], one["item"]) == ("user", item)]
    for excluded, is_ranked in ([], False), ([text], True):
        ranked = rank(client, exclude_rated=True, exclude_review_ids=excluded, **texts)["items"]
        assert (item in [one["item"] for one in ranked]) == is_ranked


def test_min_rating_leaves_out_lower_ratings(client: httpx.Client) -> None:
    whole = rank(client)
    lowest = sorted(one["rating"] for one in whole["items"])[6]
    answer = rank(client, min_rating=lowest)
    assert answer["items"] == [one for one in whole["items"] if one["rating"] >= lowest]
    assert (answer["candidates"], answer["scored"]) == (len(ITEMS), len(ITEMS))
    # A rating answered before may come out a little lower in another batch.
    assert rank(client, min_rating=lowest + 1e-7)["items"] == answer["items"]
    assert lowest not in [one["rating"] for one in rank(client, min_rating=lowest + 1e-5)["items"]]


def test_as_of_ranks_with_earlier_reviews_only(client: httpx.Client, corpus: Corpus) -> None:
    excluded = [entry.review_id for entry in corpus.entries if entry.timestamp >= 25 or entry.timestamp == 0]
    replayed = rank(client, as_of=25)
    assert replayed == rank(client, exclude_review_ids=excluded)
    assert replayed != rank(client)


def test_a_spent_latency_budget_rates_the_first_candidates_and_says_how_many(client: httpx.Client) -> None:
    candidates = [f"i{number}" for number in range(2 * LEAST_SCORED)]
    short = rank(client, candidates=candidates, latency_budget_ms=0.001)
    assert (short["candidates"], short["scored"]) == (len(candidates), LEAST_SCORED)
    assert short["items"] == rank(client, candidates=candidates[:LEAST_SCORED])["items"]


def test_an_ample_latency_budget_rates_all_candidates(client: httpx.Client) -> None:
    candidates = [f"i{number}" for number in range(20 * LEAST_SCORED)]
    ample, whole = rank(client, candidates=candidates, latency_budget_ms=60_000), rank(client, candidates=candidates)
    assert (ample["candidates"], ample["scored"]) == (len(candidates), len(candidates))
    assert [one["item"] for one in ample["items"]] == [one["item"] for one in whole["items"]]


def test_a_long_ranking_starts_no_thread(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may be at its limit of threads by then: those of the service have all started before it is ready."""

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert rank(client, candidates=[f"i{number}" for number in range(500)])["scored"] == 500


def test_the_later_steps_of_an_admitted_request_are_admitted(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(app) as client:
        admission = app.state.context.scheduler.admission
        check, flags = admission.check, []

        def recorded(tokens: int = 0, *, admitted: bool = False) -> None:
            flags.append(admitted)
            check(tokens, admitted=admitted)

        monkeypatch.setattr(admission, "check", recorded)
        for _ in range(2):
            rank(client, user_texts=[{"text": "A dull board."}], exclude_rated=True, latency_budget_ms=60_000)
    # On arrival, then for the encoding, for the rated items, and for the candidates.
    assert flags == 2 * [False, False, True, True]


@pytest.mark.parametrize(
    ("path", "body", "kinds"),
    [
        ("/predict", {"pairs": [{"user": "u0", "item": "i1"}]}, ["scoring"]),
        ("/rank", {"user": "u0", "candidates": ["i1", "i2"]}, ["scoring"]),
        ("/rank", {"user": "new", "candidates": ["i1"], "user_texts": [{"text": "A board."}]}, ["encoding", "scoring"]),
        ("/explain", {"user": "u0", "item": "i1"}, ["explaining", "other"]),  # the latter serializes
        ("/reviews", {"user": "u1", "item": "i13", "rating": 2, "text": "A board."}, ["encoding"]),
        ("/users/u0", None, ["other"]),
    ],
)
def test_the_work_of_a_request_is_queued_by_its_kind(
    app: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, Any] | None,
    kinds: list[str],
) -> None:
    with running(app) as client:
        admission = app.state.context.scheduler.admission
        queued, found = admission.queued, []

        def recorded(kind: WorkKind, tokens: int) -> None:
            found.append(kind)
            queued(kind, tokens)

        monkeypatch.setattr(admission, "queued", recorded)
        answer = client.get(path) if body is None else client.post(path, json=body)
        answer.raise_for_status()
    assert found == kinds
