"""How long callers see errors after a primary of a Redis Cluster is killed, and what a confirmed write costs.

    python tests/benchmarks/cluster_failover.py [--node-timeout-ms 1000] [--authors 3]

Runs six real Redis processes and two real ``ubert-serve`` with a tiny random bundle, so that the cluster is timed and
not the model. The same load runs twice, with ``?wait_replicas=1`` and without. Each time the primary that owns the
change feed, which every write needs, is killed, and restarted as a replica of its successor.
"""

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.failover_load import CODEC, FailoverLoad, kill_primary, lost_reviews, rebuild, wrong_answers
from support.redis_cluster import ClusterServers, redis_cluster
from support.running_app import wait_until_ready
from support.serve_process import ServeProcess
from support.small_corpus import small_table
from support.store_contents import VERSION, namespace_of, numbered_reviews
from support.tiny_bundle import TinyBundle, write_tiny_bundle
from ubert_model.states import check_namespace, open_store
from ubert_model.states.keys import RedisKeys
from ubert_training.reviews.table import ReviewTable
from ubert_training.states.precompute import precompute

CONFIRMED, PLAIN = "?wait_replicas=1", ""
WRITES = 300
SECONDS_OF_LOAD = 3.0


def fail_over(
    cluster: ClusterServers, tiny: TinyBundle, table: ReviewTable, options: str, authors: int, within_s: float
) -> str:
    """Kill a primary under load; returns a line on when errors stopped, and on what was lost or wrong."""
    cluster.empty()
    namespace = tiny.bundle.codec(CODEC).namespace
    with closing(open_store(cluster.url + options)) as store:
        precompute(table, np.arange(len(table)), tiny.bundle, store, codec=CODEC)
    command = ["--bundle", str(tiny.bundle.path), "--codec", CODEC, "--device", "cpu", "--threads", "1"]
    command += ["--store", cluster.url + options]
    with ServeProcess(*command) as writing, ServeProcess(*command) as reading:
        for service in (writing, reading):
            wait_until_ready(service.client)
        items = [f"item-{number:02}" for number in range(8)]
        with FailoverLoad(
            writing=writing.address,
            reading=reading.address,
            authors=authors,
            predicted_item="i3",
            user="user-03",
            items=items,
        ) as load:
            load.wait_until_quiet(for_s=SECONDS_OF_LOAD, within_s=within_s)
            killed_at = kill_primary(cluster, RedisKeys(namespace.version).changes, load, within_s=within_s)
    with tempfile.TemporaryDirectory() as plain, closing(open_store(cluster.url)) as store:
        wrong = wrong_answers(load, rebuild(tiny, table, Path(plain), load))
        lost = lost_reviews(load, store, namespace.version)
        problems = check_namespace(store, namespace).problems
    return (
        f"errors stop {load.last_failure_s(killed_at, '/predict'):4.1f} s (predict), "
        f"{load.last_failure_s(killed_at, '/rank'):4.1f} s (rank), {load.last_failure_s(killed_at, '/reviews'):4.1f} s "
        f"(writes) after the kill; {len(load.failed())} of {len(load.answers)} answers were problems, "
        f"{len(wrong)} were wrong; {len(lost)} of {sum(author.acknowledged for author in load.authors)} acknowledged "
        f"reviews lost; {problems} problems in the store"
    )


def write_milliseconds(cluster: ClusterServers) -> tuple[float, float]:
    """Median milliseconds to write one review, with and without confirmation, alternating."""
    times: dict[str, list[float]] = {CONFIRMED: [], PLAIN: []}
    with closing(open_store(cluster.url + CONFIRMED)) as confirmed, closing(open_store(cluster.url)) as plain:
        confirmed.open_namespace(namespace_of())
        for review in numbered_reviews(WRITES, size=500):
            for options, store in ((CONFIRMED, confirmed), (PLAIN, plain)):
                began = time.perf_counter()
                store.put(VERSION, [review])
                times[options].append(1000 * (time.perf_counter() - began))
    return statistics.median(times[CONFIRMED]), statistics.median(times[PLAIN])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node-timeout-ms", type=int, default=1_000, help="cluster-node-timeout; Redis' own is 15000")
    parser.add_argument("--authors", type=int, default=3)
    options = parser.parse_args()
    within_s = 30.0 + 3 * options.node_timeout_ms / 1000
    table = small_table(users=12)
    with tempfile.TemporaryDirectory() as directory:
        tiny = write_tiny_bundle(Path(directory) / "bundle")
        with redis_cluster(primaries=3, replicas=1, node_timeout_ms=options.node_timeout_ms) as cluster:
            confirmed, plain = write_milliseconds(cluster)
            print(
                f"one review written: {confirmed:.2f} ms confirmed by a replica, {plain:.2f} ms not: "
                f"{confirmed / plain:.2f} times as long"
            )
            for name, url_options in (("confirmed", CONFIRMED), ("not confirmed", PLAIN)):
                result = fail_over(cluster, tiny, table, url_options, options.authors, within_s)
                print(f"{name}: {result}", flush=True)
                cluster.wait_until_replicated()


if __name__ == "__main__":
    main()
