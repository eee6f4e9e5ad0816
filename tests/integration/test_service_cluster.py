"""`ubert precompute` and two `ubert-serve` over a Redis Cluster under load: slots migrate, a primary fails over."""

import time
from contextlib import closing
from pathlib import Path

from typer.testing import CliRunner

from support.failover_load import CODEC, FailoverLoad, kill_primary, lost_reviews, rebuild, wrong_answers
from support.redis_cluster import redis_cluster
from support.running_app import wait_until_ready
from support.serve_process import ServeProcess
from support.small_corpus import small_table
from support.tiny_bundle import TinyBundle
from ubert_model.review import Side
from ubert_model.states import check_namespace, open_store
from ubert_model.states.keys import RedisKeys
from ubert_training.cli import make_app

SECONDS_TO_RECOVER = 30.0
ALLOWED_FAILURES = {
    (503, "urn:u-bert:problem:store-unavailable"),
    (503, "urn:u-bert:problem:write-unconfirmed"),
    (429, "urn:u-bert:problem:overloaded"),
}


def test_slot_migration_and_failover_lose_no_acknowledged_review_and_give_no_wrong_rating(
    tiny: TinyBundle, tmp_path: Path
) -> None:
    table = small_table(users=12)
    table.save(tmp_path / "reviews.parquet")
    namespace = tiny.bundle.codec(CODEC).namespace
    keys = RedisKeys(namespace.version)
    with redis_cluster(primaries=3, replicas=1) as cluster:
        bundle = ["--bundle", str(tiny.bundle.path), "--codec", CODEC, "--device", "cpu", "--threads", "1"]
        confirmed = ["--store", f"{cluster.url}?wait_replicas=1"]
        written = CliRunner().invoke(
            make_app(["precompute"]), ["precompute", "--reviews", str(tmp_path), *bundle, *confirmed]
        )
        assert written.exit_code == 0, written.output
        serving = [*bundle, *confirmed, "--queue-wait-ms", "0"]  # on a busy machine any bound would refuse requests
        with ServeProcess(*serving) as one, ServeProcess(*serving) as other:
            for service in (one, other):
                wait_until_ready(service.client)
            items = [f"item-{number:02}" for number in range(8)]
            with FailoverLoad(
                writing=one.address, reading=other.address, authors=3, predicted_item="i3", user="user-03", items=items
            ) as load:
                load.wait_until_quiet(for_s=0.5, within_s=SECONDS_TO_RECOVER)
                for key in (keys.changes, keys.reviews(Side.USER, load.authors[0].name)):
                    target = next(server for server in cluster.owners() if server is not cluster.primary_of(key))
                    source = cluster.begin_move(key, target)
                    cluster.migrate_keys(key, source, target)
                    time.sleep(0.3)
                    cluster.finish_move(key, source, target)
                load.wait_until_quiet(for_s=0.5, within_s=SECONDS_TO_RECOVER)
                moved = load.failed()
                killed_at = kill_primary(cluster, keys.changes, load, within_s=SECONDS_TO_RECOVER + 10)
                recovered_s = load.last_failure_s(killed_at)
            log = "".join([*one.log, *other.log])
            assert "Traceback" not in log, log[log.index("Traceback") :]
        assert moved == []
        assert {(failure.status, failure.problem) for failure in load.failed()} <= ALLOWED_FAILURES
        assert 0 < recovered_s < SECONDS_TO_RECOVER
        assert wrong_answers(load, rebuild(tiny, table, tmp_path / "plain", load)) == []
        with closing(open_store(cluster.url)) as store:
            assert lost_reviews(load, store, namespace.version) == []
            assert check_namespace(store, namespace).problems == 0
