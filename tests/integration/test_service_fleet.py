"""Three replicas behind HAProxy with our configuration: promotion, rolling restart, writes, a dead replica."""

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from support.api_keys import write_keys
from support.app_settings import settings_for
from support.fleet import HOSTS, Fleet, load
from support.haproxy import haproxy_path
from support.redis_server import RedisServer
from support.tiny_bundle import Corpus, TinyBundle
from support.waiting import wait_until
from ubert_model.bundle import Bundle
from ubert_model.errors import InputError
from ubert_model.states import open_store
from ubert_service.commands import promote as promote_command
from ubert_service.reading.histories import Pair
from ubert_service.serving.opened import OpenedBundle
from ubert_service.serving.served import ServedBundle
from ubert_training.cli import make_app

pytestmark = pytest.mark.skipif(haproxy_path() is None, reason="HAProxy is not installed: apt-get install haproxy")

LAG_S = 0.5
PAIRS = [Pair(f"u{user}", f"i{item}") for user in range(8) for item in range(4)]
LEAST_DIFFERENCE = 0.01
"""In stars: pairs whose ratings by the two bundles differ by less cannot show which bundle has rated them."""
WHERE = {"user": "u1", "item": "i13"}
REVIEW = {**WHERE, "rating": 1, "text": "A board, bought cheap, came back."}


@dataclass(frozen=True, kw_only=True)
class Site:
    """A fleet with two bundles. ``alone``: by bundle id, the ratings of the pairs that each gives by itself."""

    fleet: Fleet
    blue: Bundle
    green: Bundle
    store_url: str
    common: Sequence[str]
    key: str
    alone: Mapping[str, Mapping[Pair, float]]

    def promote(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Result:
        """As from a container of the compose project, where the name ``service`` resolves to every replica."""
        resolve = socket.getaddrinfo

        def as_docker(host: Any, *rest: Any, **named: Any) -> Any:
            if host != "service":
                return resolve(host, *rest, **named)
            return [found for replica in HOSTS for found in resolve(replica, *rest, **named)]

        monkeypatch.setattr(socket, "getaddrinfo", as_docker)
        url = f"http://service:{self.fleet.port}"
        arguments = [bundle.manifest.bundle_id, "--url", url, "--all-addresses"]
        return CliRunner().invoke(promote_command.app, arguments, env={"UBERT_API_KEY": self.key})

    def wrong_predictions(self, answers: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The predictions that differ from those of the bundle that their answer names."""
        return [
            (answer["bundle"], one)
            for answer in answers
            for one in answer["predictions"]
            if one["rating"] != pytest.approx(self.alone[answer["bundle"]][Pair(one["user"], one["item"])], abs=1e-4)
        ]

    def drop(self, bundle: Bundle) -> Result:
        version = bundle.manifest.namespace("fp32").version
        arguments = ["states", "drop", "--store", self.store_url, "--namespace", version, "--yes"]
        return CliRunner().invoke(make_app(["states"]), arguments)


@pytest.fixture(scope="module")
def site(tiny: TinyBundle, other: Bundle, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Every replica has loaded both bundles, until the test of a rolling restart leaves them with green alone."""
    folder = tmp_path_factory.mktemp("site")
    blue, green = tiny.bundle, other
    key = write_keys(folder / "keys.toml", operator=["read", "write", "admin"])["operator"]
    with RedisServer() as server:
        alone = {}
        with closing(open_store(server.url)) as store:
            for bundle in (blue, green):
                corpus.write(store, bundle)
                rated = ServedBundle(OpenedBundle.open(settings_for(bundle)), store).engine.score(PAIRS)
                alone[bundle.manifest.bundle_id] = {prediction.pair: prediction.rating for prediction in rated}
        common = ["--store", server.url, "--codec", "fp32", "--device", "cpu", "--threads", "1", "--concurrency", "1"]
        common += ["--api-keys", str(folder / "keys.toml"), "--resident-lag", str(LAG_S)]
        # A busy machine exceeds any bound on queueing, and its proxy is slow to notice that a replica shuts down.
        common += ["--queue-wait-ms", "0", "--drain-seconds", "4"]
        both = ["--bundle", str(blue.path), "--shadow-bundle", str(green.path)]
        with Fleet(folder, [*common, *both], {"Authorization": f"Bearer {key}"}) as fleet:
            yield Site(fleet=fleet, blue=blue, green=green, store_url=server.url, common=common, key=key, alone=alone)


@pytest.fixture
def questions(site: Site) -> list[dict[str, Any]]:
    """Requests of four pairs each, which the two bundles rate differently."""
    blue, green = site.alone.values()
    distinct = [pair for pair in PAIRS if abs(blue[pair] - green[pair]) > LEAST_DIFFERENCE]
    assert len(distinct) >= 8
    pairs = [{"user": pair.user, "item": pair.item} for pair in distinct]
    return [{"pairs": pairs[first : first + 4]} for first in range(0, len(pairs), 4)]


def request_for(user: str) -> dict[str, Any]:
    return {"pairs": [{"user": user, "item": "i1"}]}


def test_promotion_under_load_swaps_the_bundles_of_all_replicas_and_mixes_them_in_no_answer(
    site: Site, questions: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_live_everywhere(bundle: Bundle) -> bool:
        live = [replica.client.get("/version").json()["bundle"] for replica in site.fleet.replicas]
        return live == [bundle.manifest.bundle_id] * 3

    with load(site.fleet, questions) as results:

        def has_answers_since(promoted_at: float) -> bool:
            return len(results.answers_since(promoted_at)) > 20

        assert is_live_everywhere(site.blue)
        for bundle in (site.green, site.green, site.blue):
            done = site.promote(bundle, monkeypatch)
            assert done.exit_code == 0, done.output
            assert is_live_everywhere(bundle)
            promoted_at = time.monotonic()
            wait_until(partial(has_answers_since, promoted_at))
            bundles = {body["bundle"] for body in results.answers_since(promoted_at)}
            assert bundles == {bundle.manifest.bundle_id}
        for bundle in (site.green, site.blue):
            for replica in site.fleet.replicas:
                replica.hang_up()
            wait_until(partial(is_live_everywhere, bundle))
    assert results.failed == []
    assert {body["bundle"] for body in results.bodies} == set(site.alone)
    assert site.wrong_predictions(results.bodies) == []


def test_a_rolling_restart_fails_no_request_and_releases_the_old_namespace(
    site: Site, questions: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(site.fleet, questions) as results:
        assert site.promote(site.green, monkeypatch).exit_code == 0
        refused = site.drop(site.blue)
        assert isinstance(refused.exception, InputError)
        assert str(refused.exception).count(f"{socket.gethostname()}/") == 3
        site.fleet.restart_in_turn([*site.common, "--bundle", str(site.green.path)])
        dropped = site.drop(site.blue)
        assert dropped.exit_code == 0, dropped.output
        restarted_at = time.monotonic()
        wait_until(lambda: len(results.answers_since(restarted_at)) > 20)
    assert results.failed == []
    assert len(results.bodies) > 100
    bundles = {body["bundle"] for body in results.answers_since(restarted_at)}
    assert bundles == {site.green.manifest.bundle_id}
    assert site.wrong_predictions(results.bodies) == []
    assert isinstance(site.drop(site.green).exception, InputError)


def test_a_write_reaches_every_replica_within_the_lag_and_at_once_with_its_read_version(site: Site) -> None:
    one, *others = (replica.client for replica in site.fleet.replicas)

    pairs = [{"user": "u1", "item": f"i{number}"} for number in range(8)]  # some are at an end of the scale

    def ratings(client: httpx.Client, **headers: str) -> list[float]:
        answer = client.post("/predict", json={"pairs": pairs}, headers=headers).raise_for_status().json()
        return [rated["rating"] for rated in answer["predictions"]]

    before = ratings(one)
    written = one.post("/reviews", json=REVIEW).raise_for_status()
    version = {"X-Read-Version": written.headers["X-Read-Version"]}
    after = ratings(one)
    assert after != before
    assert [ratings(client, **version) for client in (*others, *site.fleet.proxies.values())] == [after] * 4
    one.delete(f"/reviews/{written.json()['review_id']}", params=WHERE).raise_for_status()
    time.sleep(LAG_S)
    assert [ratings(client) for client in (one, *others, *site.fleet.proxies.values())] == [before] * 5


def test_a_user_stays_on_one_replica_and_only_the_users_of_a_dead_replica_move(site: Site) -> None:
    """Each state is waited for: on a busy machine a health check may fail and take a live replica out for a second."""
    users = [f"shopper-{number}" for number in range(24)]

    def replicas_of_users() -> dict[str, int]:
        return {user: site.fleet.replica_that_answers("by-user", "/predict", request_for(user)) for user in users}

    before = replicas_of_users()

    def users_stay_and_all_replicas_have_some() -> bool:
        earlier = before.copy()
        before.update(replicas_of_users())
        return before == earlier and set(before.values()) == {0, 1, 2}

    wait_until(users_stay_and_all_replicas_have_some)

    def is_ranked_by_the_same_replica(user: str) -> bool:
        ranked = {"user": user, "candidates": ["i1", "i2"]}
        return site.fleet.replica_that_answers("by-user", "/rank", ranked) == before[user]

    for user in users[:6]:
        wait_until(partial(is_ranked_by_the_same_replica, user))
    site.fleet.replicas[0].kill()

    def only_users_of_the_dead_replica_have_moved() -> bool:
        during = replicas_of_users()
        assert 0 not in during.values()
        return all(during[user] == replica for user, replica in before.items() if replica != 0)

    wait_until(only_users_of_the_dead_replica_have_moved)
    site.fleet.restart(0)
    wait_until(lambda: replicas_of_users() == before)
