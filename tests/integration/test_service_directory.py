"""``/users`` and ``/items``, which search identifiers, and ``/about``, which describes the bundle."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.app_settings import settings_for
from support.problems import problem_of
from support.running_app import serving
from support.tiny_bundle import Corpus, TinyBundle
from ubert_model.bundle import METRICS, Bundle
from ubert_model.errors import BundleError
from ubert_model.states import MaintenanceStore, open_store
from ubert_service.reviews import directory
from ubert_service.serving.accuracy import scores_of

ESTIMATE = {"value": 0.7, "low": 0.6, "high": 0.8}
SCORES = {"pairs": 9, "mse": ESTIMATE, "rmse": ESTIMATE, "mae": ESTIMATE}


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
def test_a_search_finds_known_identifiers_by_prefix_in_either_case(
    client: httpx.Client, tiny: TinyBundle, prefix: str
) -> None:
    assert [one["id"] for one in found(client, "/users", prefix=prefix)] == sorted(
        tiny.bundle.identities.users.identifiers
    )
    assert found(client, "/users", prefix="nobody") == []


def test_a_search_returns_the_number_and_mean_rating_of_reviews(client: httpx.Client, corpus: Corpus) -> None:
    (user,) = found(client, "/users", prefix="u2")
    ratings = [review.rating for review in corpus.of_user("u2")]
    mean = pytest.approx(sum(ratings) / len(ratings))
    assert user == {"id": "u2", "known": True, "counts": {"reviews": len(ratings), "mean_rating": mean}}


def test_an_identifier_unknown_to_the_bundle_is_found_only_in_full(
    client: httpx.Client, tiny: TinyBundle, corpus: Corpus
) -> None:
    (item,) = found(client, "/items", prefix="i11")
    assert "i11" not in tiny.bundle.identities.items
    assert (item["known"], item["counts"]["reviews"]) == (False, len(corpus.of_item("i11")))
    assert [one["id"] for one in found(client, "/items", prefix="i1")] == ["i1"]


def test_a_search_returns_at_most_limit_results(client: httpx.Client) -> None:
    assert [one["id"] for one in found(client, "/users", limit=2)] == ["u0", "u1"]
    assert [one["id"] for one in found(client, "/users", prefix="u1", limit=1)] == ["u1"]


def test_identifiers_are_not_sorted_while_requests_are_served(
    tiny: TinyBundle, filled_store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(settings_for(tiny.bundle), filled_store) as client:
        monkeypatch.setattr(directory, "_ordered", lambda _: pytest.fail("sorted while requests are served"))
        assert [one["id"] for one in found(client, "/users", limit=1)] == ["u0"]
        assert [one["id"] for one in found(client, "/items", limit=1)] == ["i0"]


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"prefix": "x" * 2000}])
def test_an_invalid_search_is_refused(client: httpx.Client, query: dict[str, Any]) -> None:
    assert problem_of(client.get("/items", params=query)) == (422, "invalid-request")


def test_about_describes_the_bundle_and_names_only_the_kind_of_store(client: httpx.Client, tiny: TinyBundle) -> None:
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


def test_about_describes_the_loaded_bundle_and_not_a_later_one_in_its_folder(
    tiny: TinyBundle, lmdb_store: MaintenanceStore, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny.bundle.path, folder)
    with serving(settings_for(Bundle.load(folder)), lmdb_store) as client:
        (folder / METRICS).write_text(json.dumps({"scores": {"another": SCORES}}), encoding="utf-8")
        assert client.get("/about").raise_for_status().json()["accuracy"] == []


def test_scores_are_those_that_evaluation_wrote_into_the_metrics() -> None:
    assert scores_of({"scores": {"U-BERT": SCORES}, "settings": {}})["U-BERT"].model_dump() == SCORES


def test_malformed_metrics_are_refused() -> None:
    with pytest.raises(BundleError, match="export the bundle again"):
        scores_of({"scores": {"U-BERT": {"mse": 0.7}}})
