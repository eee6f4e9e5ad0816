"""``/explain`` over real HTTP: its parts make up the rating, and its effects are what really happens."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from support.app_settings import settings_for
from support.running_app import running, serving
from support.tiny_bundle import Corpus, TinyBundle
from ubert_model.rating.deviations import SideDeviations
from ubert_model.states import ReviewEntry, Side, StateStore
from ubert_service.app import create_app
from ubert_service.errors import WorkCancelledError
from ubert_service.explaining.listed import LISTED_UNREAD
from ubert_service.reading.histories import EVERY_REVIEW, Pair, Reading
from ubert_service.reading.inline import InlineText
from ubert_service.schemas import MAX_EXPLAINED_PAIRS, RatingEvidence
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.engine import ScoringEngine
from ubert_service.scoring.runtime import ActiveDevice
from ubert_service.serving.served import ServedBundle

ROUNDING = 1e-5
FLOAT32 = 1e-6
"""Stars by which single precision may move a rating."""
PAIRS = [(f"u{user}", f"i{item}") for user in range(0, 10, 2) for item in range(0, 14, 3)]
REVIEW = {"user": "u1", "item": "i13", "rating": 2, "text": "  A board, bought cheap,\n came back. ", "timestamp": 60}
PARTS = ("mean", "user_bias", "item_bias", "identity_and_summary", "matching", "clipped")


@pytest.fixture
def client(tiny: TinyBundle, corpus: Corpus, lmdb_store: StateStore) -> Iterator[httpx.Client]:
    """Over a store of the test's own."""
    corpus.write(lmdb_store, tiny.bundle)
    with serving(settings_for(tiny.bundle), lmdb_store) as client:
        yield client


def explain(client: httpx.Client, user: str, item: str, **options: Any) -> dict[str, Any]:
    answer = client.post("/explain", json={"user": user, "item": item, **options})
    explained: dict[str, Any] = answer.raise_for_status().json()
    return explained


def predict(client: httpx.Client, user: str, item: str, **options: Any) -> dict[str, Any]:
    answer = client.post("/predict", json={"pairs": [{"user": user, "item": item}], **options})
    prediction: dict[str, Any] = answer.raise_for_status().json()["predictions"][0]
    return prediction


def test_predict_tells_on_request_of_each_pair_what_explain_tells(reader: httpx.Client) -> None:
    pairs = [{"user": user, "item": item} for user, item in PAIRS[:MAX_EXPLAINED_PAIRS]]
    plain = reader.post("/predict", json={"pairs": pairs}).raise_for_status().json()["predictions"]
    answer = reader.post("/predict", json={"pairs": pairs, "explain": True}).raise_for_status().json()["predictions"]
    for rated, explained, pair in zip(plain, answer, pairs, strict=True):
        evidence = explained.pop("evidence")
        assert explained.pop("rating") == pytest.approx(rated.pop("rating"), abs=ROUNDING)
        assert explained.pop("interval") == pytest.approx(rated.pop("interval"), abs=ROUNDING)
        assert explained == rated
        alone = explain(reader, **pair)
        assert evidence == {name: alone[name] for name in RatingEvidence.model_fields}


def test_more_pairs_than_may_be_explained_are_refused_by_the_limit(reader: httpx.Client) -> None:
    pairs = [{"user": "u0", "item": "i1"}] * (MAX_EXPLAINED_PAIRS + 1)
    refused = reader.post("/predict", json={"pairs": pairs, "explain": True})
    assert refused.status_code == 422
    assert f"at most {MAX_EXPLAINED_PAIRS} pairs" in refused.json()["detail"]
    assert reader.post("/predict", json={"pairs": pairs}).status_code == 200


@pytest.fixture(scope="module")
def full(reader: httpx.Client) -> dict[str, Any]:
    """A pair that the network reads several reviews for on both sides."""
    answers = [explain(reader, *pair) for pair in PAIRS]
    return max(answers, key=lambda answer: min(answer["user_reviews"], answer["item_reviews"]))


def test_an_explanation_begins_with_what_predict_answers(reader: httpx.Client) -> None:
    for pair in PAIRS:
        answer, prediction = explain(reader, *pair), predict(reader, *pair)
        assert {name: answer[name] for name in prediction if name not in {"rating", "interval"}} == {
            name: value for name, value in prediction.items() if name not in {"rating", "interval"}
        }
        assert answer["rating"] == pytest.approx(prediction["rating"], abs=ROUNDING)
        assert answer["interval"] == pytest.approx(prediction["interval"], abs=ROUNDING)


def test_the_parts_add_up_to_the_rating_and_the_tokens_to_the_matching(reader: httpx.Client) -> None:
    matched = 0
    for pair in PAIRS:
        answer = explain(reader, *pair)
        parts = answer["contributions"]
        assert sum(parts[name] for name in PARTS) == pytest.approx(answer["rating"], abs=ROUNDING)
        assert (parts["clipped"] == 0) == (1 < answer["rating"] < 5)
        assert sum(one["matching"] for one in answer["reviews"]) == pytest.approx(parts["matching"], abs=ROUNDING)
        for review in answer["reviews"]:
            assert sum(review["token_contributions"]) == pytest.approx(review["matching"], abs=ROUNDING)
        matched += abs(parts["matching"]) > 100 * ROUNDING
    assert matched > 0  # else it would not have been seen


def test_what_the_scale_takes_from_a_rating_is_a_part_of_it(client: httpx.Client) -> None:
    for number in range(12):
        for pair in ({"user": "delighted", "item": f"x{number}"}, {"user": f"x{number}", "item": "delightful"}):
            client.post("/reviews", json={**pair, "rating": 5, "text": ""}).raise_for_status()
    answer = explain(client, "delighted", "delightful")
    parts = answer["contributions"]
    assert answer["rating"] == 5
    assert parts["clipped"] < 0
    assert sum(parts[name] for name in PARTS) == pytest.approx(5, abs=ROUNDING)


def test_an_effect_is_what_predict_gives_without_the_review(reader: httpx.Client, full: dict[str, Any]) -> None:
    assert {review["side"] for review in full["reviews"]} == {"user", "item"}
    for review in full["reviews"]:
        without = predict(reader, full["user"], full["item"], exclude_review_ids=[review["review_id"]])
        assert review["effect"] == pytest.approx(full["rating"] - without["rating"], abs=ROUNDING)
    assert any(abs(review["effect"]) > 100 * ROUNDING for review in full["reviews"])


@pytest.fixture
def served(tiny: TinyBundle, corpus: Corpus, lmdb_store: StateStore) -> ServedBundle:
    corpus.write(lmdb_store, tiny.bundle)
    return ServedBundle.load(settings_for(tiny.bundle), lmdb_store)


def test_every_effect_equals_that_of_lists_built_anew_without_the_review(served: ServedBundle, corpus: Corpus) -> None:
    """Over pairs of all kinds: with a review of their own, with texts brought along, with a replay of the past."""
    texts = [InlineText(text="A board, bought cheap, came back.", rating=2, item="i13"), InlineText(text="All big.")]
    pairs = [Pair(*pair) for pair in PAIRS] + [Pair(one.user, one.item) for one in corpus.entries[::6]]
    moved = 0
    for pair in pairs:
        excluded = frozenset(one.review_id for one in corpus.of_user(pair.user)[:1])
        for reading in (
            EVERY_REVIEW,
            Reading(before=30, excluded=excluded),
            Reading(inline=served.encode_inline(pair.user, texts)),
        ):
            explanation = served.explainer.explain(pair, reading)
            anew = [
                served.residents.read([pair])
                .read_by(replace(reading, excluded=reading.excluded | left_out))
                .histories(pair)
                for left_out in (frozenset[str](), *(frozenset([one.entry.review_id]) for one in explanation.reviews))
            ]
            prediction, *others = served.engine.rate(anew, reading.inline)
            assert explanation.prediction == prediction
            expected = [prediction.rating - other.rating for other in others]
            assert [one.effect for one in explanation.reviews] == pytest.approx(expected, abs=FLOAT32)
            moved += sum(abs(effect) > 100 * ROUNDING for effect in expected)
    assert moved > len(pairs)  # else it would not have been seen


def test_the_parts_add_up_where_the_network_predicts_the_rating_itself(
    served: ServedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = served.bundle.manifest
    config = replace(manifest.config, rating_base="none", history_ratings=False)
    monkeypatch.setattr(served.bundle, "manifest", replace(manifest, config=config))
    explainer = replace(served).explainer
    seen = 0
    for explanation in (explainer.explain(Pair(*pair)) for pair in PAIRS):
        parts = asdict(explanation.contributions)
        assert sum(parts.values()) == pytest.approx(explanation.prediction.rating, abs=ROUNDING)
        seen += explanation.prediction.basis == "full" and not parts["clipped"]
    assert seen


def test_what_is_removed_meanwhile_is_in_the_rating_and_in_its_parts_alike(
    served: ServedBundle, corpus: Corpus
) -> None:
    class Removing:
        """As soon as a pair is rated, its user's reviews go."""

        def device(self) -> ActiveDevice:
            return served.runtime.device()

        def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
            outputs = served.runtime.score(batch)
            while leaving:
                one = leaving.pop()
                racing.reviews.remove(one.review_id, user=one.user, item=one.item)
            return outputs

    explanations = (served.explainer.explain(Pair(*pair)) for pair in PAIRS)
    quiet = next(one for one in explanations if one.prediction.basis == "full")
    pair = quiet.prediction.pair
    leaving = corpus.of_user(pair.user)
    racing = replace(served, runtime=Removing())
    explanation = racing.explainer.explain(pair)
    assert (explanation.prediction, explanation.contributions) == (quiet.prediction, quiet.contributions)
    assert sum(asdict(explanation.contributions).values()) == pytest.approx(quiet.prediction.rating, abs=ROUNDING)
    assert explanation.heat_map is not None
    assert racing.explainer.explain(pair).prediction.basis != "full"  # they have really gone


def test_an_explanation_that_nobody_waits_for_reads_no_states(
    served: ServedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScoringEngine, "gather", lambda *_: pytest.fail("gathered"))
    with pytest.raises(WorkCancelledError):
        served.explainer.explain(Pair("u0", "i0"), cancelled=lambda: True)


@pytest.mark.parametrize("words", [0, 3])
def test_an_explanation_does_not_sum_up_a_long_list_for_each_review(
    served: ServedBundle, tiny: TinyBundle, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, words: int
) -> None:
    pair = next(Pair(one.user, one.item) for one in corpus.entries if len(corpus.of_user(one.user)) > 3)
    many = [
        ReviewEntry(review_id=f"p{number}", user=f"x{number}", item=pair.item, rating=4, timestamp=100, rows=words)
        for number in range(300)
    ]
    codec = tiny.bundle.codec("fp32")
    states = next(states for states in corpus.states.values() if len(states) >= words)[:words]
    served.store.put(codec.namespace.version, [(one, codec.encode(states)) for one in many])
    summed = 0
    above_usual = SideDeviations.above_usual

    def counted(side: SideDeviations, ratings: Iterable[tuple[str, float]]) -> list[float]:
        nonlocal summed
        above = above_usual(side, ratings)
        summed += len(above)
        return above

    monkeypatch.setattr(SideDeviations, "above_usual", counted)
    reviews = served.explainer.explain(pair, Reading(before=101)).reviews
    assert sum(one.side == Side.ITEM for one in reviews) >= LISTED_UNREAD
    # Once as the store has the list, once without what the request does not read, once without the pair's own review.
    assert len(many) < summed < 4 * len(many)


@pytest.mark.parametrize("side", ["user", "item"])
def test_deleting_a_review_moves_the_rating_by_its_effect(
    client: httpx.Client, full: dict[str, Any], side: str
) -> None:
    before = explain(client, full["user"], full["item"])
    review = max((one for one in before["reviews"] if one["side"] == side), key=lambda one: abs(one["effect"]))
    where = {"user": review["user"], "item": review["item"]}
    client.delete(f"/reviews/{review['review_id']}", params=where).raise_for_status()
    after = predict(client, full["user"], full["item"])
    assert abs(review["effect"]) > 100 * ROUNDING
    assert after["rating"] == pytest.approx(before["rating"] - review["effect"], abs=ROUNDING)


def test_every_read_review_is_there_with_its_tokens_and_the_pairs_own_is_not(
    reader: httpx.Client, corpus: Corpus
) -> None:
    for pair in PAIRS:
        answer = explain(reader, *pair)
        for side in ("user", "item"):
            reviews = [review for review in answer["reviews"] if review["side"] == side]
            read = [review for review in reviews if review["token_contributions"]]
            assert len(reviews) - len(read) <= LISTED_UNREAD
            if answer["basis"] == "full":
                assert len(read) == answer[f"{side}_reviews"]
                assert sum(review["tokens"] for review in read) == answer[f"{side}_tokens"]
            assert all(len(review["token_contributions"]) == review["tokens"] for review in read)
            assert all((review["user"], review["item"]) != pair for review in reviews)


def test_the_heat_map_is_of_two_reviews_that_were_read(reader: httpx.Client, full: dict[str, Any]) -> None:
    by_id = {review["review_id"]: review for review in full["reviews"]}
    heat_map = full["heat_map"]
    user, item = by_id[heat_map["user_review_id"]], by_id[heat_map["item_review_id"]]
    assert (user["side"], item["side"]) == ("user", "item")
    for attention, rows, columns in [
        (heat_map["user_attention"], user["tokens"], item["tokens"]),
        (heat_map["item_attention"], item["tokens"], user["tokens"]),
    ]:
        assert (len(attention), {len(row) for row in attention}) == (rows, {columns})
        assert all(0 <= weight <= 1 for row in attention for weight in row)
        assert all(sum(row) <= 1 + ROUNDING for row in attention)


def test_without_text_on_a_side_there_is_no_heat_map_and_no_matching_but_effects(reader: httpx.Client) -> None:
    answer = explain(reader, "u0", "nothing")
    assert (answer["basis"], answer["heat_map"], answer["contributions"]["matching"]) == ("one_side", None, 0)
    assert answer["reviews"]
    assert all(review["matching"] == 0 and not review["token_contributions"] for review in answer["reviews"])
    assert any(review["effect"] for review in answer["reviews"])


def test_of_two_strangers_there_is_only_the_mean(reader: httpx.Client) -> None:
    answer = explain(reader, "nobody", "nothing")
    assert (answer["basis"], answer["reviews"]) == ("mean", [])
    assert answer["contributions"]["mean"] == answer["rating"]


def test_a_replay_explains_with_the_reviews_of_its_time_alone(reader: httpx.Client, full: dict[str, Any]) -> None:
    times = sorted(review["timestamp"] for review in full["reviews"])
    as_of = times[len(times) // 2]
    answer = explain(reader, full["user"], full["item"], as_of=as_of)
    assert all(0 < review["timestamp"] < as_of for review in answer["reviews"])
    assert answer["rating"] == pytest.approx(
        predict(reader, full["user"], full["item"], as_of=as_of)["rating"], abs=ROUNDING
    )


def reviews_of(answer: dict[str, Any], review_id: str) -> dict[str, Any]:
    return next(review for review in answer["reviews"] if review["review_id"] == review_id)


@pytest.mark.parametrize("store_name", ["lmdb_store", "redis_store"])
def test_a_text_is_shown_as_far_as_it_is_read_and_goes_with_its_review(
    tiny: TinyBundle, corpus: Corpus, store_name: str, request: pytest.FixtureRequest
) -> None:
    store: StateStore = request.getfixturevalue(store_name)
    corpus.write(store, tiny.bundle)
    served = ServedBundle.load(settings_for(tiny.bundle, texts=True), store)
    version = served.namespace.version
    with running(create_app(settings_for(tiny.bundle), served)) as client:
        name = client.post("/reviews", json=REVIEW).raise_for_status().json()["review_id"]
        shown = reviews_of(explain(client, "u1", "i4"), name)
        changed = {**REVIEW, "review_id": name, "text": ""}
        client.post("/reviews", json=changed).raise_for_status()
        without_words = store.texts(version, [name])
        client.post("/reviews", json={**REVIEW, "review_id": name}).raise_for_status()
        kept = store.texts(version, [name])
        where = {"user": REVIEW["user"], "item": REVIEW["item"]}
        client.delete(f"/reviews/{name}", params=where).raise_for_status()
        removed = store.texts(version, [name])
    text = shown["text"]
    assert str(REVIEW["text"]).strip().startswith(text)
    assert kept == [text]
    assert without_words == removed == [None]
    words = [text[start:end] for start, end in shown["token_spans"] if end]
    assert len(shown["token_spans"]) == shown["tokens"] == len(shown["token_contributions"])
    assert shown["token_spans"][0] == [0, 0]
    assert words[0] == "A"
    assert text.endswith(words[-1])


def test_a_dropped_namespace_leaves_no_text(tiny: TinyBundle, corpus: Corpus, lmdb_store: StateStore) -> None:
    corpus.write(lmdb_store, tiny.bundle)
    version = tiny.bundle.manifest.namespace("fp32").version
    lmdb_store.put_texts(version, [("review-0", "A text."), ("review-1", "Another.")])
    assert lmdb_store.texts(version, ["review-0", "review-9"]) == ["A text.", None]
    lmdb_store.drop_namespace(version)
    assert lmdb_store.texts(version, ["review-0", "review-1"]) == [None, None]


def test_by_default_no_text_is_kept_nor_shown_if_there_is_one(
    client: httpx.Client, tiny: TinyBundle, lmdb_store: StateStore
) -> None:
    version = tiny.bundle.manifest.namespace("fp32").version
    name = client.post("/reviews", json=REVIEW).raise_for_status().json()["review_id"]
    assert lmdb_store.texts(version, [name]) == [None]
    lmdb_store.put_texts(version, [(name, "A board.")])
    shown = reviews_of(explain(client, "u1", "i4"), name)
    assert (shown["text"], shown["token_spans"]) == (None, None)
