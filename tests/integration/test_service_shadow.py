"""A shadow bundle beside the live one: it is compared, never returned, and live as soon as it is promoted."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from support.api_keys import write_keys
from support.app_settings import settings_for
from support.killed_writes import finishes_before_kill
from support.metrics import metric
from support.problems import problem_of
from support.running_app import running, serving, wait_until_ready
from support.serve_process import ServeProcess
from support.store_contents import item_reviews
from support.tiny_bundle import Corpus, TinyBundle, changed_copy
from support.waiting import wait_until
from ubert_model.bundle import Bundle
from ubert_model.config import RatingScale
from ubert_model.review import Side
from ubert_model.states import MaintenanceStore
from ubert_service.app import create_app
from ubert_service.commands.serve import open_bundles
from ubert_service.errors import OverloadedError
from ubert_service.reading.histories import Pair
from ubert_service.reviews.written_review import NewReview
from ubert_service.scoring.assembly import ScorerBatch
from ubert_service.scoring.runtime import ActiveDevice
from ubert_service.serving.bundles import Bundles, Roles
from ubert_service.serving.opened import OpenedBundle
from ubert_service.serving.served import ServedBundle
from ubert_service.settings import Settings
from ubert_service.work.admission import Admission

PAIRS = [{"user": f"u{user}", "item": f"i{item}"} for user in range(4) for item in range(4)]
REVIEW = {"user": "u1", "item": "i13", "rating": 2, "text": "A board, bought cheap, came back.", "timestamp": 60}


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    path = tmp_path / "keys.toml"
    keys = write_keys(path, operator=["admin"], caller=["read", "write"])
    return path, {name: f"Bearer {key}" for name, key in keys.items()}


@pytest.fixture
def store(request: pytest.FixtureRequest, tiny: TinyBundle, other: Bundle, corpus: Corpus) -> MaintenanceStore:
    store: MaintenanceStore = request.getfixturevalue(getattr(request, "param", "lmdb_store"))
    for bundle in (tiny.bundle, other):
        corpus.write(store, bundle)
    return store


def sampling_all(bundle: Bundle, **options: Any) -> Settings:
    """Settings by which the shadow rates every request."""
    return settings_for(bundle, **{"shadow_share": 1.0, **options})


@pytest.fixture
def live_and_shadow(tiny: TinyBundle, other: Bundle, store: MaintenanceStore) -> list[ServedBundle]:
    return [ServedBundle(OpenedBundle.open(sampling_all(bundle)), store) for bundle in (tiny.bundle, other)]


@pytest.fixture
def clients(
    tiny: TinyBundle, live_and_shadow: list[ServedBundle], keys: tuple[Path, dict[str, str]]
) -> Iterator[dict[str, httpx.Client]]:
    """Two clients of one service: with the key of a caller, and with that of an operator."""
    path, headers = keys
    live, shadow = live_and_shadow
    settings = sampling_all(tiny.bundle, api_keys=path)
    with (
        running(create_app(settings, live.opened, live.store, shadow=shadow.opened)) as client,
        httpx.Client(
            base_url=client.base_url,
            headers={"Authorization": headers["operator"]},
            timeout=client.timeout,
            trust_env=False,
        ) as operator,
    ):
        client.headers["Authorization"] = headers["caller"]
        yield {"caller": client, "operator": operator}


def predict(client: httpx.Client) -> dict[str, Any]:
    answer: dict[str, Any] = client.post("/predict", json={"pairs": PAIRS}).raise_for_status().json()
    return answer


def answers_alone(bundle: Bundle, store: MaintenanceStore) -> dict[str, Any]:
    """What a service with this bundle alone answers."""
    with serving(sampling_all(bundle), store) as client:
        return predict(client)


def test_the_shadow_is_compared_and_never_returned(
    clients: dict[str, httpx.Client], tiny: TinyBundle, other: Bundle, store: MaintenanceStore
) -> None:
    client = clients["caller"]
    answered = predict(client)
    wait_until(lambda: metric(client, "ubert_shadow_samples_total", fate="compared") == 1)
    alone = [answers_alone(bundle, store) for bundle in (tiny.bundle, other)]
    ratings = [np.array([one["rating"] for one in answer["predictions"]]) for answer in alone]
    assert answered == alone[0]
    assert metric(client, "ubert_shadow_difference_stars_count") == len(PAIRS)
    measured = metric(client, "ubert_shadow_difference_stars_sum")
    assert measured == pytest.approx(np.abs(ratings[0] - ratings[1]).sum(), abs=1e-4)
    assert measured > 1
    version = client.get("/version").json()
    assert (version["bundle"], version["shadow"]) == (tiny.bundle.manifest.bundle_id, other.manifest.bundle_id)


def test_the_runs_of_the_shadow_are_not_taken_for_those_of_the_live_bundle(
    clients: dict[str, httpx.Client], tiny: TinyBundle, store: MaintenanceStore
) -> None:
    client = clients["caller"]
    predict(client)
    wait_until(lambda: metric(client, "ubert_shadow_samples_total", fate="compared") == 1)
    runs = metric(client, "ubert_inference_seconds_count", graph="scorer")
    with serving(sampling_all(tiny.bundle), store) as alone:
        predict(alone)
        assert runs == metric(alone, "ubert_inference_seconds_count", graph="scorer") > 0


def test_an_operator_promotes_the_shadow_and_back(
    clients: dict[str, httpx.Client], tiny: TinyBundle, other: Bundle, store: MaintenanceStore
) -> None:
    ids = [bundle.manifest.bundle_id for bundle in (tiny.bundle, other)]
    alone = [answers_alone(bundle, store) for bundle in (tiny.bundle, other)]
    client, operator = clients["caller"], clients["operator"]
    for live, shadow in ((1, 0), (0, 1)):
        promoted = operator.post("/admin/promote").raise_for_status().json()
        assert promoted == {"bundle": ids[live], "shadow": ids[shadow]}
        assert predict(client) == alone[live]


def test_promoting_a_bundle_by_its_id_is_idempotent_and_an_unknown_id_is_refused(
    clients: dict[str, httpx.Client], tiny: TinyBundle, other: Bundle
) -> None:
    operator, ids = clients["operator"], [bundle.manifest.bundle_id for bundle in (tiny.bundle, other)]
    for live, shadow in ((1, 0), (1, 0), (0, 1), (0, 1)):
        promoted = operator.post("/admin/promote", params={"bundle": ids[live]}).raise_for_status().json()
        assert promoted == {"bundle": ids[live], "shadow": ids[shadow]}
    refused = operator.post("/admin/promote", params={"bundle": "a third"})
    assert problem_of(refused) == (409, "not-the-shadow")
    assert clients["caller"].get("/version").json()["bundle"] == ids[0]


def test_promote_version_and_about_are_answered_during_an_overload(
    clients: dict[str, httpx.Client], other: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Admission, tokens: int = 0, *, admitted: bool = False) -> None:
        raise OverloadedError("as much as may wait is waiting", retry_after_s=1.0)

    monkeypatch.setattr(Admission, "check", refuse)
    caller, operator = clients["caller"], clients["operator"]
    for path in ("/items", "/users/u0", "/not-there"):
        assert caller.get(path).status_code == 429
    operator.post("/admin/promote", params={"bundle": other.manifest.bundle_id}).raise_for_status()
    for path in ("/version", "/about"):
        assert caller.get(path).raise_for_status().json()["bundle"] == other.manifest.bundle_id


def test_a_review_is_written_and_removed_for_both_bundles(
    clients: dict[str, httpx.Client], tiny: TinyBundle, other: Bundle, store: MaintenanceStore
) -> None:
    client, operator = clients["caller"], clients["operator"]
    versions = [bundle.manifest.namespace("fp32").version for bundle in (tiny.bundle, other)]
    name = client.post("/reviews", json=REVIEW).raise_for_status().json()["review_id"]
    encoded = sum(bundle.manifest.config.max_length for bundle in (tiny.bundle, other))
    assert metric(client, "ubert_queue_batch_tokens_sum") == encoded
    assert [[one.review_id for one in item_reviews(store, version, ["i13"])[0]] for version in versions] == [[name]] * 2
    operator.post("/admin/promote").raise_for_status()
    client.delete(f"/reviews/{name}", params={"user": "u1", "item": "i13"}).raise_for_status()
    assert [item_reviews(store, version, ["i13"]) for version in versions] == [[[]], [[]]]
    assert [store.states(version, [name]) for version in versions] == [[None], [None]]


def test_a_review_gets_one_timestamp_for_both_bundles(
    live_and_shadow: list[ServedBundle], store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, shadow = live_and_shadow
    for served, second in ((live, 1_000.0), (shadow, 2_000.0)):
        monkeypatch.setattr(served.reviews, "_clock", partial(float, second))
    written = Roles(live=live, shadow=shadow).add(NewReview(user="u1", item="i13", rating=2, text="A board.")).entry
    (of_shadow,) = item_reviews(store, shadow.namespace.version, ["i13"])
    assert [review.timestamp for review in of_shadow] == [written.timestamp] == [1_000]


def test_a_review_that_the_shadow_lacks_is_removed_from_the_live_bundle(
    live_and_shadow: list[ServedBundle], store: MaintenanceStore
) -> None:
    live, shadow = live_and_shadow
    roles = Roles(live=live, shadow=shadow)
    written = roles.add(NewReview(user="u1", item="i13", rating=2, text="A board.")).entry
    shadow.reviews.remove(written.review_id, user="u1", item="i13")
    roles.remove(written.review_id, user="u1", item="i13")
    assert item_reviews(store, live.namespace.version, ["i13"]) == [[]]


@pytest.mark.parametrize("store", ["redis_store"], indirect=True)
def test_the_state_of_an_interrupted_write_blocks_the_review_in_neither_bundle(
    live_and_shadow: list[ServedBundle], store: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, shadow = live_and_shadow
    version, states = shadow.namespace.version, len([*store.state_sizes(shadow.namespace.version)])
    review = NewReview(user="u9", item="i13", rating=2, text="A board.")
    claim_and_state = 5  # commands, before any list has the review
    assert not finishes_before_kill(lambda: shadow.reviews.add(review), claim_and_state, monkeypatch)
    assert len([*store.state_sizes(version)]) == states + 1
    assert item_reviews(store, version, ["i13"]) == [[]]
    written = Roles(live=live, shadow=shadow).add(review).entry
    assert [item_reviews(store, served.namespace.version, ["i13"]) for served in (live, shadow)] == [[[written]]] * 2


def test_a_state_without_lines_or_claim_blocks_the_same_review_in_neither_bundle(
    live_and_shadow: list[ServedBundle], store: MaintenanceStore
) -> None:
    live, shadow = live_and_shadow
    review = NewReview(user="u9", item="i13", rating=2, text="A board.")
    for served in (live, shadow):  # as a precompute leaves it that is killed between the two
        interrupted = served.reviews.add(review).entry
        for side in Side:
            where = served.namespace.version, side, side.entity(interrupted)
            store.remove_lines(*where, [*store.lines(*where)])
    written = Roles(live=live, shadow=shadow).add(review).entry
    assert [item_reviews(store, served.namespace.version, ["i13"]) for served in (live, shadow)] == [[[written]]] * 2


def test_a_review_whose_id_is_taken_in_the_shadow_is_written_for_the_live_bundle(
    live_and_shadow: list[ServedBundle], store: MaintenanceStore, caplog: pytest.LogCaptureFixture
) -> None:
    live, shadow = live_and_shadow
    taken_by = shadow.reviews.add(
        NewReview(user="u9", item="i14", rating=5, text="A board.", review_id="order 7")
    ).entry
    review = NewReview(user="u9", item="i13", rating=2, text="A board.", review_id="order 7")
    written = Roles(live=live, shadow=shadow).add(review).entry
    assert item_reviews(store, live.namespace.version, ["i13"]) == [[written]]
    assert item_reviews(store, shadow.namespace.version, ["i14"]) == [[taken_by]]
    assert "not written for the shadow bundle" in caplog.text
    assert "order 7" not in caplog.text


@pytest.mark.parametrize("store", ["lmdb_store", "redis_store"], indirect=True)
def test_read_versions_from_before_a_promotion_stay_valid_after_it(clients: dict[str, httpx.Client]) -> None:
    client, operator = clients["caller"], clients["operator"]
    written = client.post("/reviews", json=REVIEW).raise_for_status()
    where = {"user": "u1", "item": "i13"}
    removed = client.delete(f"/reviews/{written.json()['review_id']}", params=where).raise_for_status()
    operator.post("/admin/promote").raise_for_status()
    for answered in (written, removed):
        version = answered.headers["X-Read-Version"]
        client.post("/predict", json={"pairs": PAIRS}, headers={"X-Read-Version": version}).raise_for_status()


@pytest.mark.parametrize("promoted_first", [False, True])
@pytest.mark.parametrize("store", ["redis_store"], indirect=True)
def test_after_a_promotion_in_one_namespace_writes_that_began_before_it_are_seen_at_once(
    tiny: TinyBundle, store: MaintenanceStore, promoted_first: bool
) -> None:
    opened = OpenedBundle.open(sampling_all(tiny.bundle, resident_lag=60.0))
    live, shadow = (ServedBundle(opened, store) for _ in range(2))
    bundles, pair = Bundles(live, shadow), Pair("u1", "i13")
    at_arrival = bundles.roles
    before = shadow.engine.score([pair])
    if promoted_first:
        bundles.promote()
    written = at_arrival.add(NewReview(user="u9", item="i13", rating=1, text="A board.")).entry
    with_review = shadow.engine.score([pair])
    assert with_review == live.engine.score([pair])
    assert with_review != before
    at_arrival.remove(written.review_id, user="u9", item="i13")
    if not promoted_first:
        bundles.promote()
    assert shadow.engine.score([pair]) == live.engine.score([pair]) == before


def test_the_metric_of_resident_bytes_adds_up_both_bundles(clients: dict[str, httpx.Client]) -> None:
    wait_until_ready(clients["caller"])  # after that, warming adds nothing
    before = metric(clients["caller"], "ubert_residents_bytes")
    predict(clients["caller"])
    wait_until(lambda: metric(clients["caller"], "ubert_shadow_samples_total", fate="compared") == 1)
    with_both = metric(clients["caller"], "ubert_residents_bytes")
    clients["operator"].post("/admin/promote").raise_for_status()
    assert metric(clients["caller"], "ubert_residents_bytes") == with_both > before


def test_both_bundles_share_the_resident_bytes_that_one_has_alone(
    tiny: TinyBundle, other: Bundle, store: MaintenanceStore
) -> None:
    alone = settings_for(tiny.bundle, resident_bytes=1_000_000)
    both = settings_for(tiny.bundle, resident_bytes=1_000_000, shadow_bundle=other.path)
    bounds = [[one.settings.resident_bytes for one in open_bundles(given) if one] for given in (alone, both)]
    assert bounds == [[1_000_000], [500_000, 500_000]]


def assert_served_alone(tiny: TinyBundle, shadow: Path, caplog: pytest.LogCaptureFixture, why: str) -> None:
    live, none = open_bundles(settings_for(tiny.bundle, resident_bytes=1_000_000, shadow_bundle=shadow))
    assert none is None
    assert live.bundle.manifest.bundle_id == tiny.bundle.manifest.bundle_id
    assert live.settings.resident_bytes == 1_000_000
    (record,) = (record for record in caplog.records if record.name == "ubert_service.commands.serve")
    assert record.levelname == "ERROR"
    assert str(shadow) in record.getMessage()
    assert why in record.getMessage()


def test_without_a_usable_shadow_the_live_bundle_is_served_alone(
    tiny: TinyBundle, other: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing"
    config = replace(tiny.bundle.manifest.config, scale=RatingScale(lowest=1, highest=4))
    other_scale = changed_copy(tiny.bundle, tmp_path / "bundle", config=config).path  # could not take its reviews
    for shadow, why in (
        (missing, "give the directory that `ubert export` wrote"),
        (tiny.bundle.path, "it is the same bundle as --bundle"),
        (other_scale, "it has the rating scale 1:4, --bundle 1:5"),
    ):
        caplog.clear()
        assert_served_alone(tiny, shadow, caplog, why)

    opened: list[Path] = []

    def fail(settings: Settings) -> OpenedBundle:
        opened.append(settings.bundle)
        if settings.bundle == other.path:
            raise RuntimeError("a bug")
        return open_bundle(settings)

    caplog.clear()
    open_bundle = OpenedBundle.open
    monkeypatch.setattr(OpenedBundle, "open", fail)
    assert_served_alone(tiny, other.path, caplog, "a bug")
    assert opened == [tiny.bundle.path, other.path]  # each once: opening measures runtimes and takes a GPU's memory


def test_the_metrics_name_the_bundles_of_now(clients: dict[str, httpx.Client], tiny: TinyBundle, other: Bundle) -> None:
    caller, operator = clients["caller"], clients["operator"]
    ids = [bundle.manifest.bundle_id for bundle in (tiny.bundle, other)]
    for live, shadow in ((0, 1), (1, 0)):
        assert metric(caller, "ubert_info", bundle=ids[live], shadow=ids[shadow], codec="fp32") == 1
        assert metric(caller, "ubert_info") == 1, "one series alone"
        operator.post("/admin/promote").raise_for_status()


def test_only_an_admin_key_promotes(
    clients: dict[str, httpx.Client], tiny: TinyBundle, store: MaintenanceStore
) -> None:
    assert clients["caller"].post("/admin/promote").status_code == 403
    with serving(sampling_all(tiny.bundle), store) as client:
        refused = client.post("/admin/promote")
    assert problem_of(refused) == (403, "forbidden")


def test_a_shadow_without_states_is_not_promoted(
    tiny: TinyBundle, other: Bundle, lmdb_store: MaintenanceStore, corpus: Corpus, keys: tuple[Path, dict[str, str]]
) -> None:
    corpus.write(lmdb_store, tiny.bundle)  # and nothing for the other
    path, headers = keys
    live, shadow = (OpenedBundle.open(sampling_all(bundle)) for bundle in (tiny.bundle, other))
    with running(create_app(sampling_all(tiny.bundle, api_keys=path), live, lmdb_store, shadow=shadow)) as client:
        client.headers["Authorization"] = headers["operator"]
        refused = client.post("/admin/promote")
        version = client.get("/version", headers={"Authorization": headers["caller"]}).json()
        assert version["bundle"] == tiny.bundle.manifest.bundle_id
        written = client.post("/reviews", json=REVIEW, headers={"Authorization": headers["caller"]})
    assert problem_of(refused) == (503, "not-ready")
    assert written.status_code == 201  # a shadow without states does not stop writes


class BrokenRuntime:
    """Fails with an unexpected error."""

    device: ActiveDevice = "cpu"

    def score(self, batch: ScorerBatch) -> Any:
        raise RuntimeError(f"a bug at {len(batch.item)} pairs")


def test_the_failures_of_a_shadow_are_counted_logged_once_and_change_no_answer(
    tiny: TinyBundle, live_and_shadow: list[ServedBundle], store: MaintenanceStore, caplog: pytest.LogCaptureFixture
) -> None:
    live, shadow = live_and_shadow
    broken = replace(shadow.opened, runtime=BrokenRuntime())
    with running(create_app(sampling_all(tiny.bundle), live.opened, store, shadow=broken)) as client:
        for _ in range(3):
            answered = predict(client)
        wait_until(lambda: metric(client, "ubert_shadow_samples_total", fate="failed") == 3)
    assert answered == answers_alone(tiny.bundle, store)
    (logged,) = [record for record in caplog.records if "failed to rate a sample" in record.getMessage()]
    assert logged.exc_info is not None  # as the error is unexpected


@pytest.mark.parametrize(("share", "sampled"), [(0.0, 0), (0.25, 2), (1.0, 8)])
def test_shadow_share_is_the_share_of_requests_that_is_sampled(
    tiny: TinyBundle, live_and_shadow: list[ServedBundle], share: float, sampled: int
) -> None:
    live, shadow = live_and_shadow
    app = create_app(sampling_all(tiny.bundle, shadow_share=share), live.opened, live.store, shadow=shadow.opened)
    with running(app) as client:
        for _ in range(8):
            predict(client)
    lines = app.state.context.metrics.exposition().decode().splitlines()
    counts = [float(line.rpartition(" ")[2]) for line in lines if line.startswith("ubert_shadow_samples_total{")]
    assert sum(counts) == sampled


@pytest.fixture
def both_in_redis(
    tiny: TinyBundle, other: Bundle, redis_store: MaintenanceStore, own_redis_url: str, corpus: Corpus
) -> list[str]:
    """Arguments of a service whose shadow can be promoted at once."""
    for bundle in (tiny.bundle, other):
        corpus.write(redis_store, bundle)
    arguments = ["--bundle", str(tiny.bundle.path), "--shadow-bundle", str(other.path), "--store", own_redis_url]
    arguments += ["--warm-seconds", "0"]  # no shadow is promoted before it is warm
    return [*arguments, "--codec", "fp32", "--device", "cpu", "--threads", "1"]


def test_sighup_promotes_the_shadow_of_a_running_process(
    tiny: TinyBundle, other: Bundle, both_in_redis: list[str]
) -> None:
    with ServeProcess(*both_in_redis) as service:
        before = predict(service.client)
        service.hang_up()
        wait_until(lambda: service.client.get("/version").json()["bundle"] == other.manifest.bundle_id)
        after = predict(service.client)
        assert service.terminate() == 0
    assert (before["bundle"], after["bundle"]) == (tiny.bundle.manifest.bundle_id, other.manifest.bundle_id)
    assert before["predictions"] != after["predictions"]


def test_sighup_during_startup_promotes_the_shadow_once_the_service_runs(
    other: Bundle, both_in_redis: list[str]
) -> None:
    with ServeProcess(*both_in_redis, hang_up_early=True) as service:
        wait_until(lambda: service.client.get("/version").json()["bundle"] == other.manifest.bundle_id)
