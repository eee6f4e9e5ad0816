"""What ``/rank`` can be asked beside an order: other candidates, fewer answers, less time, another day."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.app_settings import settings_for
from support.running_app import running, serving
from support.tiny_bundle import Corpus, TinyBundle
from ubert_model.states import StateStore
from ubert_service.app import create_app
from ubert_service.reviews.candidate_sets import MAX_SETS
from ubert_service.schemas import LEAST_SCORED
from ubert_service.serving.served import ServedBundle

ITEMS = [f"i{number}" for number in range(14)]


@pytest.fixture(params=["lmdb_store", "redis_store"])
def store(request: pytest.FixtureRequest) -> StateStore:
    store: StateStore = request.getfixturevalue(request.param)
    return store


@pytest.fixture
def client(tiny: TinyBundle, corpus: Corpus, store: StateStore) -> Iterator[httpx.Client]:
    corpus.write(store, tiny.bundle)
    with serving(settings_for(tiny.bundle), store) as client:
        yield client


def rank(client: httpx.Client, **options: Any) -> dict[str, Any]:
    question = {"user": "u1", **({} if "candidate_set" in options else {"candidates": ITEMS}), **options}
    answer: dict[str, Any] = client.post("/rank", json=question).raise_for_status().json()
    return answer


def problem(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["type"].removeprefix("urn:u-bert:problem:")


def test_a_stored_set_ranks_as_its_items_do_until_it_is_removed(client: httpx.Client) -> None:
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
        assert problem(response) == (404, "unknown-candidate-set")


def test_sets_are_no_namespace_and_their_number_is_bounded(client: httpx.Client, store: StateStore) -> None:
    namespaces = store.namespaces()
    for number in range(MAX_SETS):
        store.put_candidates(f"set-{number}", ["i0"])
    assert problem(client.put("/candidate-sets/more", json={"items": ["i0"]})) == (422, "unusable-input")
    assert client.put("/candidate-sets/set-7", json={"items": ["i1"]}).status_code == 200
    assert store.candidates("set-7") == ["i1"]
    assert (store.namespaces(), len(store.candidate_sets())) == (namespaces, MAX_SETS)
    for number in range(MAX_SETS):
        assert store.delete_candidates(f"set-{number}")


@pytest.mark.parametrize("name", ["-a", "a" * 65, "a%20b"])
def test_a_set_needs_a_plain_name(client: httpx.Client, name: str) -> None:
    assert problem(client.put(f"/candidate-sets/{name}", json={"items": ["i0"]})) == (422, "invalid-request")


def test_candidates_come_either_sent_or_stored(client: httpx.Client) -> None:
    for wrong in ({"user": "u1"}, {"user": "u1", "candidates": ["i0"], "candidate_set": "spring"}):
        assert problem(client.post("/rank", json=wrong)) == (422, "invalid-request")


def test_what_the_user_has_reviewed_can_be_left_out(client: httpx.Client, corpus: Corpus) -> None:
    reviewed = {entry.item for entry in corpus.of_user("u1")}
    whole, left = rank(client), rank(client, exclude_rated=True)
    assert 0 < len(reviewed) < len(ITEMS)
    assert [one["item"] for one in left["items"]] == [
        one["item"] for one in whole["items"] if one["item"] not in reviewed
    ]
    assert left["candidates"] == left["scored"] == len(ITEMS) - len(reviewed)
    nothing_left = rank(client, candidates=sorted(reviewed), exclude_rated=True)
    assert (nothing_left["items"], nothing_left["candidates"]) == ([], 0)
    # In a replay of a time before its reviews, the user had reviewed nothing.
    assert rank(client, exclude_rated=True, as_of=1)["candidates"] == len(ITEMS)


def test_what_is_rated_too_low_is_left_out(client: httpx.Client) -> None:
    whole = rank(client)
    lowest = sorted(one["rating"] for one in whole["items"])[6]
    answer = rank(client, min_rating=lowest)
    assert answer["items"] == [one for one in whole["items"] if one["rating"] >= lowest]
    assert (answer["candidates"], answer["scored"]) == (len(ITEMS), len(ITEMS))


def test_a_replay_ranks_with_the_reviews_of_its_time_alone(client: httpx.Client, corpus: Corpus) -> None:
    excluded = [entry.review_id for entry in corpus.entries if entry.timestamp >= 25 or entry.timestamp == 0]
    replayed = rank(client, as_of=25)
    assert replayed == rank(client, exclude_review_ids=excluded)
    assert replayed != rank(client)


def test_with_no_time_the_first_candidates_are_rated_and_the_answer_says_how_many(client: httpx.Client) -> None:
    candidates = [f"i{number}" for number in range(2 * LEAST_SCORED)]
    short = rank(client, candidates=candidates, latency_budget_ms=0.001)
    assert (short["candidates"], short["scored"]) == (len(candidates), LEAST_SCORED)
    assert short["items"] == rank(client, candidates=candidates[:LEAST_SCORED])["items"]


def test_with_time_enough_all_are_rated_as_without_a_budget(client: httpx.Client) -> None:
    candidates = [f"i{number}" for number in range(20 * LEAST_SCORED)]
    ample, whole = rank(client, candidates=candidates, latency_budget_ms=60_000), rank(client, candidates=candidates)
    assert (ample["candidates"], ample["scored"]) == (len(candidates), len(candidates))
    assert [one["item"] for one in ample["items"]] == [one["item"] for one in whole["items"]]


def test_of_a_request_that_was_let_in_no_later_step_asks_again(
    tiny: TinyBundle, corpus: Corpus, lmdb_store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.write(lmdb_store, tiny.bundle)
    settings = settings_for(tiny.bundle)
    app = create_app(settings, ServedBundle.load(settings, lmdb_store))
    with running(app) as client:
        admission = app.state.context.scheduler.admission
        check, going_on = admission.check, []

        def noted(tokens: int = 0, *, admitted: bool = False) -> None:
            going_on.append(admitted)
            check(tokens, admitted=admitted)

        monkeypatch.setattr(admission, "check", noted)
        for _ in range(2):
            rank(client, user_texts=[{"text": "A dull board."}], exclude_rated=True, latency_budget_ms=60_000)
    # At the gate, then encoding, what is rated already, and the candidates themselves.
    assert going_on == 2 * [False, False, True, True]
