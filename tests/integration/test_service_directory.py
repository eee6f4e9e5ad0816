"""Search for users and items, and what a person is told of the model."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.app_settings import settings_for
from support.running_app import serving
from support.tiny_bundle import Corpus, TinyBundle
from ubert_model.bundle import METRICS, Bundle
from ubert_model.errors import BundleError
from ubert_model.states import StateStore, open_store
from ubert_service.reviews import directory
from ubert_service.serving.accuracy import scores_of


@pytest.fixture(scope="module")
def client(tiny: TinyBundle, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    url = f"lmdb:{tmp_path_factory.mktemp('directory')}"
    store = open_store(url)
    corpus.write(store, tiny.bundle)
    with serving(settings_for(tiny.bundle, store=url), store) as client:
        yield client
    store.close()


def found(client: httpx.Client, path: str, **query: Any) -> list[dict[str, Any]]:
    answer: dict[str, Any] = client.get(path, params=query).raise_for_status().json()
    return answer["found"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("prefix", ["", "u", "U"])
def test_a_search_finds_whom_training_knows_by_how_the_identifier_begins(
    client: httpx.Client, tiny: TinyBundle, prefix: str
) -> None:
    assert [one["id"] for one in found(client, "/users", prefix=prefix)] == sorted(
        tiny.bundle.identities.users.identifiers
    )
    assert found(client, "/users", prefix="nobody") == []


def test_a_search_tells_how_much_is_known(client: httpx.Client, corpus: Corpus) -> None:
    (user,) = found(client, "/users", prefix="u2")
    ratings = [review.rating for review in corpus.of_user("u2")]
    mean = pytest.approx(sum(ratings) / len(ratings))
    assert user == {"id": "u2", "known": True, "counts": {"reviews": len(ratings), "mean_rating": mean}}


def test_whom_only_the_store_knows_is_found_by_the_full_identifier(
    client: httpx.Client, tiny: TinyBundle, corpus: Corpus
) -> None:
    (item,) = found(client, "/items", prefix="i11")
    assert "i11" not in tiny.bundle.identities.items
    assert (item["known"], item["counts"]["reviews"]) == (False, len(corpus.of_item("i11")))
    assert [one["id"] for one in found(client, "/items", prefix="i1")] == ["i1"]


def test_no_more_are_found_than_asked_for(client: httpx.Client) -> None:
    assert [one["id"] for one in found(client, "/users", limit=2)] == ["u0", "u1"]
    assert [one["id"] for one in found(client, "/users", prefix="u1", limit=1)] == ["u1"]


def test_no_search_holds_others_up_by_sorting_what_is_searched(
    tiny: TinyBundle, lmdb_store: StateStore, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.write(lmdb_store, tiny.bundle)
    with serving(settings_for(tiny.bundle), lmdb_store) as client:
        monkeypatch.setattr(directory, "_ordered", lambda _: pytest.fail("sorted while requests are served"))
        assert [one["id"] for one in found(client, "/users", limit=1)] == ["u0"]
        assert [one["id"] for one in found(client, "/items", limit=1)] == ["i0"]


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"prefix": "x" * 2000}])
def test_a_search_that_cannot_be_is_refused(client: httpx.Client, query: dict[str, Any]) -> None:
    problem = client.get("/items", params=query).json()
    assert problem["type"] == "urn:u-bert:problem:invalid-request"


def test_about_describes_the_bundle_and_names_the_store_by_its_kind_alone(
    client: httpx.Client, tiny: TinyBundle
) -> None:
    about = client.get("/about").raise_for_status().json()
    assert about == {
        "bundle": tiny.bundle.manifest.bundle_id,
        "scale": {"lowest": 1.0, "highest": 5.0},
        "users": len(tiny.bundle.identities.users),
        "items": len(tiny.bundle.identities.items),
        "max_reviews": tiny.model.config.max_reviews,
        "max_tokens": tiny.model.config.max_rows,
        "store": "lmdb",
        "accuracy": [],
    }


def test_about_tells_of_the_bundle_that_answers_though_another_was_exported_into_its_folder(
    tiny: TinyBundle, lmdb_store: StateStore, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny.bundle.path, folder)
    with serving(settings_for(Bundle.load(folder)), lmdb_store) as client:
        estimate = {"value": 0.7, "low": 0.6, "high": 0.8}
        scored = {"pairs": 9, "mse": estimate, "rmse": estimate, "mae": estimate}
        (folder / METRICS).write_text(json.dumps({"scores": {"another": scored}}), encoding="utf-8")
        assert client.get("/about").raise_for_status().json()["accuracy"] == []


def test_scores_of_a_bundle_are_those_that_evaluation_wrote() -> None:
    estimate = {"value": 0.7, "low": 0.6, "high": 0.8}
    scored = {"pairs": 9, "mse": estimate, "rmse": estimate, "mae": estimate}
    assert scores_of({"scores": {"U-BERT": scored}, "settings": {}})["U-BERT"].model_dump() == scored


def test_metrics_of_another_shape_are_refused() -> None:
    with pytest.raises(BundleError, match="export the bundle again"):
        scores_of({"scores": {"U-BERT": {"mse": 0.7}}})
