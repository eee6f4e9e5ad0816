"""``/explain`` over real HTTP: contributions sum to the rating, and effects are what removing a review changes."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from support.app_settings import settings_for
from support.running_app import serving
from support.tiny_bundle import BLEND_WEIGHT, Corpus, TinyBundle
from ubert_model.bundle import Bundle
from ubert_model.history import select_history, without_counterpart
from ubert_model.nn.pair_explainer import PairExplainer
from ubert_model.rating.deviations import SideDeviations
from ubert_model.review import ReviewEntry, Side
from ubert_model.states import MaintenanceStore
from ubert_service.errors import WorkCancelledError
from ubert_service.explaining.explainer_graph import PairParts
from ubert_service.reading.histories import EVERY_REVIEW, Pair, Reading
from ubert_service.reading.inline import InlineText
from ubert_service.schemas import LISTED_UNREAD, MAX_EXPLAINED_PAIRS, RatingEvidence
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.engine import ScoringEngine
from ubert_service.serving.served import ServedBundle

ROUNDING = 1e-5
FLOAT32 = 1e-6
"""In stars: the rounding of single precision."""
PAIRS = [(f"u{user}", f"i{item}") for user in range(0, 10, 2) for item in range(0, 14, 3)]
WHERE = {"user": "u1", "item": "i13"}
REVIEW = {**WHERE, "rating": 2, "text": "  A board, bought cheap,\n came back. ", "timestamp": 60}
CONTRIBUTIONS = ("mean", "user_bias", "item_bias", "identity_and_summary", "matching", "clipped")


@pytest.fixture
def client(tiny: TinyBundle, filled_store: MaintenanceStore) -> Iterator[httpx.Client]:
    """Over a store of the test's own."""
    with serving(settings_for(tiny.bundle), filled_store) as client:
        yield client


def explain(client: httpx.Client, user: str, item: str, **options: Any) -> dict[str, Any]:
    answer = client.post("/explain", json={"user": user, "item": item, **options})
    explained: dict[str, Any] = answer.raise_for_status().json()
    return explained


def predict(client: httpx.Client, user: str, item: str, **options: Any) -> dict[str, Any]:
    answer = client.post("/predict", json={"pairs": [{"user": user, "item": item}], **options})
    prediction: dict[str, Any] = answer.raise_for_status().json()["predictions"][0]
    return prediction


def test_predict_with_explain_returns_the_evidence_of_explain_for_each_pair(reader: httpx.Client) -> None:
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


def test_predict_with_explain_refuses_more_pairs_than_the_limit(reader: httpx.Client) -> None:
    pairs = [{"user": "u0", "item": "i1"}] * (MAX_EXPLAINED_PAIRS + 1)
    refused = reader.post("/predict", json={"pairs": pairs, "explain": True})
    assert refused.status_code == 422
    assert f"at most {MAX_EXPLAINED_PAIRS} pairs" in refused.json()["detail"]
    assert reader.post("/predict", json={"pairs": pairs}).status_code == 200


@pytest.fixture(scope="module")
def full(reader: httpx.Client) -> dict[str, Any]:
    """The explanation of a pair of which several reviews are read on both sides."""
    answers = [explain(reader, *pair) for pair in PAIRS]
    return max(answers, key=lambda answer: min(answer["user_reviews"], answer["item_reviews"]))


def test_an_explanation_contains_the_prediction(reader: httpx.Client) -> None:
    for pair in PAIRS:
        answer, prediction = explain(reader, *pair), predict(reader, *pair)
        assert {name: answer[name] for name in prediction if name not in {"rating", "interval"}} == {
            name: value for name, value in prediction.items() if name not in {"rating", "interval"}
        }
        assert answer["rating"] == pytest.approx(prediction["rating"], abs=ROUNDING)
        assert answer["interval"] == pytest.approx(prediction["interval"], abs=ROUNDING)


def test_contributions_sum_to_the_rating_and_token_contributions_to_the_matching(reader: httpx.Client) -> None:
    matched = 0
    for pair in PAIRS:
        answer = explain(reader, *pair)
        parts = answer["contributions"]
        assert sum(parts[name] for name in CONTRIBUTIONS) == pytest.approx(answer["rating"], abs=ROUNDING)
        assert (parts["clipped"] == 0) == (1 < answer["rating"] < 5)
        assert sum(one["matching"] for one in answer["reviews"]) == pytest.approx(parts["matching"], abs=ROUNDING)
        for review in answer["reviews"]:
            assert sum(review["token_contributions"]) == pytest.approx(review["matching"], abs=ROUNDING)
        matched += abs(parts["matching"]) > 100 * ROUNDING
    assert matched > 0  # some of the pairs do have matching


def test_clipping_to_the_rating_scale_is_one_of_the_contributions(client: httpx.Client) -> None:
    for number in range(12):
        for pair in ({"user": "delighted", "item": f"x{number}"}, {"user": f"x{number}", "item": "delightful"}):
            client.post("/reviews", json={**pair, "rating": 5, "text": ""}).raise_for_status()
    answer = explain(client, "delighted", "delightful")
    parts = answer["contributions"]
    assert answer["rating"] == 5
    assert parts["clipped"] < 0
    assert sum(parts[name] for name in CONTRIBUTIONS) == pytest.approx(5, abs=ROUNDING)


def test_an_effect_is_the_change_of_the_prediction_without_the_review(
    reader: httpx.Client, full: dict[str, Any]
) -> None:
    assert {review["side"] for review in full["reviews"]} == {"user", "item"}
    for review in full["reviews"]:
        without = predict(reader, full["user"], full["item"], exclude_review_ids=[review["review_id"]])
        assert review["effect"] == pytest.approx(full["rating"] - without["rating"], abs=ROUNDING)
    assert any(abs(review["effect"]) > 100 * ROUNDING for review in full["reviews"])


def test_every_effect_equals_that_of_lists_rebuilt_without_the_review(served: ServedBundle, corpus: Corpus) -> None:
    """Also for pairs with a review of their own, with inline texts, and in a replay."""
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
            rebuilt = [
                served.residents.read([pair])
                .read_by(replace(reading, excluded=reading.excluded | left_out))
                .histories(pair)
                for left_out in (frozenset[str](), *(frozenset([one.entry.review_id]) for one in explanation.reviews))
            ]
            prediction, *others = served.engine.rate(rebuilt, reading.inline)
            assert explanation.prediction == prediction
            expected = [prediction.rating - other.rating for other in others]
            assert [one.effect for one in explanation.reviews] == pytest.approx(expected, abs=FLOAT32)
            moved += sum(abs(effect) > 100 * ROUNDING for effect in expected)
    assert moved > len(pairs)  # many reviews do have an effect


def test_contributions_sum_to_the_rating_with_rating_base_none(served: ServedBundle) -> None:
    manifest = served.bundle.manifest
    config = replace(manifest.config, rating_base="none", history_ratings=False)
    bundle = Bundle(served.bundle.path, replace(manifest, config=config))
    explainer = ServedBundle(replace(served.opened, bundle=bundle), served.store).explainer
    unclipped = 0
    for explanation in (explainer.explain(Pair(*pair)) for pair in PAIRS):
        parts = asdict(explanation.contributions)
        assert sum(parts.values()) == pytest.approx(explanation.prediction.rating, abs=ROUNDING)
        unclipped += explanation.prediction.basis == "full" and not parts["clipped"]
    assert unclipped


def test_reviews_removed_during_an_explanation_change_neither_rating_nor_contributions(
    served: ServedBundle, corpus: Corpus
) -> None:
    class RemovingRuntime:
        """Removes the user's reviews once the pair is scored."""

        device = served.opened.runtime.device

        def score(self, batch: ScorerBatch) -> NDArray[np.float32]:
            outputs = served.opened.runtime.score(batch)
            while to_remove:
                entry = to_remove.pop()
                interrupted.reviews.remove(entry.review_id, user=entry.user, item=entry.item)
            return outputs

    explanations = (served.explainer.explain(Pair(*pair)) for pair in PAIRS)
    expected = next(one for one in explanations if one.prediction.basis == "full")
    pair = expected.prediction.pair
    to_remove = corpus.of_user(pair.user)
    interrupted = ServedBundle(replace(served.opened, runtime=RemovingRuntime()), served.store)
    explanation = interrupted.explainer.explain(pair)
    assert (explanation.prediction, explanation.contributions) == (expected.prediction, expected.contributions)
    assert sum(asdict(explanation.contributions).values()) == pytest.approx(expected.prediction.rating, abs=ROUNDING)
    assert explanation.heat_map is not None
    assert interrupted.explainer.explain(pair).prediction.basis != "full"  # they have been removed


def test_a_cancelled_explanation_reads_no_states(served: ServedBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScoringEngine, "gather", lambda *_: pytest.fail("states were read"))
    with pytest.raises(WorkCancelledError):
        served.explainer.explain(Pair("u0", "i0"), cancelled=lambda: True)


@pytest.mark.parametrize("tokens", [0, 3])
def test_an_explanation_does_not_sum_a_long_list_once_per_review(
    served: ServedBundle, tiny: TinyBundle, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    pair = next(Pair(one.user, one.item) for one in corpus.entries if len(corpus.of_user(one.user)) > 3)
    many = [
        ReviewEntry(review_id=f"p{number}", user=f"x{number}", item=pair.item, rating=4, timestamp=100, rows=tokens)
        for number in range(300)
    ]
    codec = tiny.bundle.codec("fp32")
    states = next(states for states in corpus.states.values() if len(states) >= tokens)[:tokens]
    served.store.put(codec.namespace.version, [(one, codec.encode(states)) for one in many])
    summed = 0
    above_usual = SideDeviations.above_usual

    def counted(side: SideDeviations, reviews: Iterable[ReviewEntry]) -> list[float]:
        nonlocal summed
        above = above_usual(side, reviews)
        summed += len(above)
        return above

    monkeypatch.setattr(SideDeviations, "above_usual", counted)
    explanation = served.explainer.explain(pair, Reading(before=101))
    listed = sum(one.side == Side.ITEM for one in explanation.reviews)
    assert listed >= LISTED_UNREAD
    assert listed + explanation.item_unlisted == len(many) + sum(
        one.user != pair.user for one in corpus.of_item(pair.item)
    )
    # For the whole list, for what the request reads of it, and for that without the pair's own review.
    assert len(many) < summed < 4 * len(many)


@pytest.mark.parametrize("side", ["user", "item"])
def test_deleting_a_review_changes_the_rating_by_its_effect(
    client: httpx.Client, full: dict[str, Any], side: str
) -> None:
    before = explain(client, full["user"], full["item"])
    review = max((one for one in before["reviews"] if one["side"] == side), key=lambda one: abs(one["effect"]))
    where = {"user": review["user"], "item": review["item"]}
    client.delete(f"/reviews/{review['review_id']}", params=where).raise_for_status()
    after = predict(client, full["user"], full["item"])
    assert abs(review["effect"]) > 100 * ROUNDING
    assert after["rating"] == pytest.approx(before["rating"] - review["effect"], abs=ROUNDING)


def test_every_read_review_is_listed_with_its_tokens_and_the_pairs_own_is_not(
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
            stored = corpus.of_user(pair[0]) if side == "user" else corpus.of_item(pair[1])
            counted = [review for review in stored if (review.user, review.item) != pair]
            assert len(reviews) + answer[f"{side}_unlisted"] == len(counted)


def test_the_heat_map_is_between_two_reviews_that_were_read(reader: httpx.Client, full: dict[str, Any]) -> None:
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


def test_token_contributions_and_the_heat_map_are_those_of_the_torch_model(
    tiny: TinyBundle, corpus: Corpus, served: ServedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any text, a review's first row is known to be [CLS], and all others count as words."""
    decomposer, batches, config = served.explainer._decomposer, list[ScorerBatch](), tiny.model.config
    decompose = decomposer.decompose

    def recorded(batch: ScorerBatch) -> PairParts:
        batches.append(batch)
        return decompose(batch)

    monkeypatch.setattr(decomposer, "decompose", recorded)
    compared = 0
    for user, item in PAIRS:
        explained = served.explainer.explain(Pair(user, item))
        if explained.heat_map is None:
            continue
        inputs = {name: torch.from_numpy(array) for name, array in batches[-1].graph_inputs().items()}
        with torch.no_grad():
            parts = PairExplainer(tiny.model)(**inputs)
        rows: dict[str, tuple[Side, slice]] = {}
        for side, stored, other in (Side.USER, corpus.of_user(user), item), (Side.ITEM, corpus.of_item(item), user):
            start = 0
            reviews = without_counterpart(side, stored, other)
            for review in select_history(reviews, max_reviews=config.max_reviews, max_rows=config.max_rows):
                rows[review.review_id] = side, slice(start, start := start + review.rows)
        of_sides = {Side.USER: parts.user_contributions, Side.ITEM: parts.item_contributions}
        found = {one.entry.review_id: one.token_contributions for one in explained.reviews if one.token_contributions}
        assert found.keys() == rows.keys()
        for name, (side, of_review) in rows.items():
            by_torch = BLEND_WEIGHT * of_sides[side][0, of_review].numpy()
            np.testing.assert_allclose(np.array(found[name]), by_torch, atol=ROUNDING)
        mutual = {
            (one, other): sum(
                float(parts.user_attention[0, row, column] * parts.item_attention[0, column, row])
                for row in range(of_user.start + 1, of_user.stop)
                for column in range(of_item.start + 1, of_item.stop)
            )
            for one, (of_one, of_user) in rows.items()
            for other, (of_other, of_item) in rows.items()
            if (of_one, of_other) == (Side.USER, Side.ITEM)
        }
        heat_map = explained.heat_map
        assert (heat_map.user_review_id, heat_map.item_review_id) == max(mutual, key=lambda pair: mutual[pair])
        of_user, of_item = rows[heat_map.user_review_id][1], rows[heat_map.item_review_id][1]
        expected = parts.user_attention[0, of_user, of_item], parts.item_attention[0, of_item, of_user]
        np.testing.assert_allclose(heat_map.user_attention, expected[0].numpy(), atol=ROUNDING)
        np.testing.assert_allclose(heat_map.item_attention, expected[1].numpy(), atol=ROUNDING)
        compared += len(mutual) > 1
    assert compared > 3


def test_an_item_without_reviews_gives_effects_but_no_matching_and_no_heat_map(reader: httpx.Client) -> None:
    answer = explain(reader, "u0", "nothing")
    assert (answer["basis"], answer["heat_map"], answer["contributions"]["matching"]) == ("one_side", None, 0)
    assert answer["reviews"]
    assert all(review["matching"] == 0 and not review["token_contributions"] for review in answer["reviews"])
    assert any(review["effect"] for review in answer["reviews"])


def test_a_pair_without_reviews_is_explained_by_the_mean_alone(reader: httpx.Client) -> None:
    answer = explain(reader, "nobody", "nothing")
    assert (answer["basis"], answer["reviews"]) == ("mean", [])
    assert answer["contributions"]["mean"] == answer["rating"]


def test_as_of_explains_with_earlier_reviews_only(reader: httpx.Client, full: dict[str, Any]) -> None:
    times = sorted(review["timestamp"] for review in full["reviews"])
    as_of = times[len(times) // 2]
    answer = explain(reader, full["user"], full["item"], as_of=as_of)
    assert all(0 < review["timestamp"] < as_of for review in answer["reviews"])
    assert answer["rating"] == pytest.approx(
        predict(reader, full["user"], full["item"], as_of=as_of)["rating"], abs=ROUNDING
    )


def review_of(answer: dict[str, Any], review_id: str) -> dict[str, Any]:
    return next(review for review in answer["reviews"] if review["review_id"] == review_id)


@pytest.mark.parametrize("store_name", ["lmdb_store", "redis_store"])
def test_a_text_is_shown_as_far_as_it_is_encoded_and_is_removed_with_its_review(
    tiny: TinyBundle, corpus: Corpus, store_name: str, request: pytest.FixtureRequest
) -> None:
    store: MaintenanceStore = request.getfixturevalue(store_name)
    corpus.write(store, tiny.bundle)
    settings = settings_for(tiny.bundle, texts=True)
    version = tiny.bundle.manifest.namespace(settings.codec).version
    with serving(settings, store) as client:
        name = client.post("/reviews", json=REVIEW).raise_for_status().json()["review_id"]
        shown = review_of(explain(client, "u1", "i4"), name)
        changed = {**REVIEW, "review_id": name, "text": ""}
        client.post("/reviews", json=changed).raise_for_status()
        without_text = store.texts(version, [name])
        client.post("/reviews", json={**REVIEW, "review_id": name}).raise_for_status()
        kept = store.texts(version, [name])
        client.delete(f"/reviews/{name}", params=WHERE).raise_for_status()
        removed = store.texts(version, [name])
    text = shown["text"]
    assert str(REVIEW["text"]).strip().startswith(text)
    assert kept == [text]
    assert without_text == removed == [None]
    words = [text[start:end] for start, end in shown["token_spans"] if end]
    assert len(shown["token_spans"]) == shown["tokens"] == len(shown["token_contributions"])
    assert shown["token_spans"][0] == [0, 0]
    assert words[0] == "A"
    assert text.endswith(words[-1])


def test_by_default_no_text_is_stored_and_a_stored_one_is_not_shown(
    client: httpx.Client, tiny: TinyBundle, lmdb_store: MaintenanceStore
) -> None:
    version = tiny.bundle.manifest.namespace("fp32").version
    name = client.post("/reviews", json=REVIEW).raise_for_status().json()["review_id"]
    assert lmdb_store.texts(version, [name]) == [None]
    lmdb_store.put_texts(version, [(name, "A board.")])
    shown = review_of(explain(client, "u1", "i4"), name)
    assert (shown["text"], shown["token_spans"]) == (None, None)
