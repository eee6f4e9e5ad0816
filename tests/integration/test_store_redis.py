"""What a Redis store does when its server misbehaves. Every test breaks a real server of its own."""

import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from support.redis_server import RedisServer
from support.store_contents import VERSION, namespace_of, numbered_reviews, review_of, state_of
from ubert_model.errors import (
    ConfigError,
    CorruptStateError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UnconfirmedWriteError,
)
from ubert_model.states import copy_namespace, open_store
from ubert_model.states.redis_store import RedisStore

TIMEOUT_S = 1.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as own:
        yield own


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    opened = RedisStore(server.url, timeout_s=TIMEOUT_S, retries=1)
    yield opened
    opened.close()


@pytest.fixture
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


def assert_unavailable_soon(store: RedisStore) -> None:
    asks: list[Callable[[], object]] = [
        store.ping,
        store.namespaces,
        lambda: store.open_namespace(namespace_of()),
        lambda: store.put(VERSION, numbered_reviews(3)),
        lambda: store.states(VERSION, ["r"]),
        lambda: store.user_reviews(VERSION, ["u"]),
        lambda: store.users(VERSION),
        lambda: store.drop_namespace(VERSION),
    ]
    for ask in asks:
        asked = time.monotonic()
        with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:\d+"):
            ask()
        assert time.monotonic() - asked < 2.0


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_store_outlives_its_server(server: RedisServer, store: RedisStore, end: str) -> None:
    store.put(VERSION, numbered_reviews(3))
    getattr(server, end)()
    assert_unavailable_soon(store)
    server.start()
    store.put(VERSION, numbered_reviews(3))
    assert store.states(VERSION, ["r1"]) == [state_of("r1")]


def test_a_store_may_be_made_before_its_server() -> None:
    with RedisServer() as server:
        server.stop()
        store = RedisStore(server.url)
        with pytest.raises(StoreUnavailableError):
            store.ping()
        server.start()
        store.ping()
        store.close()


def test_an_outage_shorter_than_the_retries_is_never_seen(server: RedisServer) -> None:
    store = RedisStore(server.url, retries=20)
    store.ping()
    server.stop()
    back = threading.Timer(0.1, server.start)
    back.start()
    assert store.states(VERSION, ["r"]) == [None]
    back.join()
    store.close()


def test_a_late_answer_is_never_taken_for_the_next_one(server: RedisServer, store: RedisStore) -> None:
    store.put(VERSION, numbered_reviews(3))
    server.pause()
    for ask in (store.ping, store.namespaces, lambda: store.states(VERSION, ["r1"])):
        with pytest.raises(StoreUnavailableError):
            ask()
    server.resume()
    time.sleep(0.1)  # lets the paused server answer what it was asked
    store.put(VERSION, numbered_reviews(3))
    assert store.states(VERSION, ["r2"]) == [state_of("r2")]
    assert store.states(VERSION, ["r0"]) == [state_of("r0")]


def test_a_connection_that_the_server_closed_is_made_again_unseen(store: RedisStore, admin: redis.Redis) -> None:
    store.put(VERSION, numbered_reviews(3))
    admin.client_kill_filter(_type="normal", skipme=True)
    assert store.states(VERSION, ["r1"]) == [state_of("r1")]


class Loading(socketserver.StreamRequestHandler):
    """Answers as a server that reads its snapshot; a real one finishes too soon, or too late, to be tested."""

    def handle(self) -> None:
        while header := self.rfile.readline():
            for _ in range(2 * int(header[1:])):  # each argument: its length, then itself
                self.rfile.readline()
            self.wfile.write(b"-LOADING Redis is loading the dataset in memory\r\n")


def test_a_loading_server_is_unavailable() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Loading) as loading:
        loading.daemon_threads = True
        threading.Thread(target=loading.serve_forever, daemon=True).start()
        store = RedisStore(f"redis://127.0.0.1:{loading.server_address[1]}/0", retries=0)
        for ask in (store.ping, lambda: store.states(VERSION, ["r"]), lambda: store.users(VERSION)):
            with pytest.raises(StoreUnavailableError, match="loading"):
                ask()
        store.close()
        loading.shutdown()


def test_a_full_server_refuses_with_the_remedy_and_lists_no_state_that_it_lacks(
    store: RedisStore, admin: redis.Redis
) -> None:
    admin.config_set("maxmemory", admin.info("memory")["used_memory"] + 2_000_000)
    reviews = numbered_reviews(100, size=100_000)
    with pytest.raises(StoreError, match="raise its maxmemory") as refusal:
        store.put(VERSION, reviews)
    assert not isinstance(refusal.value, StoreUnavailableError)
    assert any(store.states(VERSION, [entry.review_id for entry, _ in reviews]))
    assert store.users(VERSION) == []
    admin.config_set("maxmemory", 0)
    store.put(VERSION, reviews)
    assert not any(store.missing(VERSION, [entry for entry, _ in reviews]))


def test_a_replica_refuses_writes_and_serves_reads(store: RedisStore, admin: redis.Redis) -> None:
    store.put(VERSION, numbered_reviews(1))
    admin.config_set("replica-read-only", "yes")
    admin.replicaof("127.0.0.1", "1")
    with pytest.raises(StoreError, match="put the primary in the store URL"):
        store.put(VERSION, numbered_reviews(1))
    assert store.states(VERSION, ["r0"]) == [state_of("r0")]


def test_a_replica_is_copied_though_it_cannot_be_told_so(store: RedisStore, admin: redis.Redis, tmp_path: Path) -> None:
    store.open_namespace(namespace_of())
    store.put(VERSION, numbered_reviews(3))
    admin.config_set("replica-read-only", "yes")
    admin.replicaof("127.0.0.1", "1")
    with closing(open_store(f"lmdb:{tmp_path / 'copy'}")) as target:
        assert copy_namespace(store, target, VERSION) == 3


def test_a_key_of_another_program_is_named(store: RedisStore, admin: redis.Redis) -> None:
    key = f"ubert:{VERSION}:user:u0"
    admin.set(key, "not a list")
    with pytest.raises(StoreError, match=rf"refused HVALS {key}: WRONGTYPE"):
        store.user_reviews(VERSION, ["u0"])
    with pytest.raises(StoreError, match=rf"refused HSET {key}: WRONGTYPE"):
        store.put(VERSION, numbered_reviews(1))


def test_a_damaged_line_is_refused_and_never_half_read(store: RedisStore, admin: redis.Redis) -> None:
    store.put(VERSION, numbered_reviews(1))
    admin.hset(f"ubert:{VERSION}:user:u0", "r0", b"junk")
    with pytest.raises(CorruptStateError, match="user 'u0'"):
        store.user_reviews(VERSION, ["u0"])
    admin.hset("ubert:namespaces", VERSION, b'{"version": 1}')
    with pytest.raises(CorruptStateError, match="namespace"):
        store.namespaces()


def test_lists_of_many_entities_cost_one_round_trip(store: RedisStore, admin: redis.Redis) -> None:
    store.put(VERSION, numbered_reviews(200, reviews_a_user=2))
    users = [f"u{number}" for number in range(100)]

    def reads_of_the_server() -> int:
        reads: int = admin.info("stats")["total_reads_processed"]
        return reads

    before = reads_of_the_server()
    store.user_reviews(VERSION, users)
    # The second count is itself read; a busy machine may split what was sent at once.
    assert reads_of_the_server() - before - 1 <= 3


def test_an_evicted_state_is_missing_and_its_line_still_reads(store: RedisStore, admin: redis.Redis) -> None:
    ((entry, state),) = numbered_reviews(1)
    store.put(VERSION, [(entry, state)])
    admin.delete(f"ubert:{VERSION}:state:r0")
    assert store.missing(VERSION, [entry]) == [True]
    assert store.states(VERSION, ["r0"]) == [None]
    assert store.user_reviews(VERSION, ["u0"]) == [[entry]]


def test_a_password_never_stands_in_a_message() -> None:
    with RedisServer("--requirepass", "right-secret") as server:
        right = RedisStore(server.url.replace("//", "//:right-secret@"))
        right.ping()
        right.close()
        for credentials in ("", ":wrong-secret@", "someone:wrong-secret@"):
            store = RedisStore(server.url.replace("//", f"//{credentials}"))
            with pytest.raises(StoreError, match="credentials") as refusal:
                store.namespaces()
            store.close()
            assert not isinstance(refusal.value, StoreUnavailableError)
            assert "secret" not in f"{refusal.value!r} {refusal.value.__cause__!r} {store!r}"
        server.stop()
        store = RedisStore(server.url.replace("//", "//someone:wrong-secret@"))
        with pytest.raises(StoreUnavailableError) as outage:
            store.ping()
        assert "secret" not in f"{outage.value!r} {outage.value.__cause__!r}"


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:pass/secret@host:6379/0",
        "redis://:secret@host:port/0",
        "redis://:secret@host:6379/0?no_such_option=1",
        "redis://:secret@host:6379/0?socket_timeout=soon",
        "redis+cluster://:secret@host:port",
    ],
)
def test_a_malformed_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="store URL") as refusal:
        RedisStore(url)
    assert "secret" not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_a_cluster_that_does_not_answer_is_unavailable() -> None:
    with RedisServer() as server:
        server.stop()
        store = RedisStore(f"redis+cluster://:secret@127.0.0.1:{server.port}", timeout_s=TIMEOUT_S)
        for ask in (store.ping, store.namespaces):
            with pytest.raises(StoreUnavailableError, match=str(server.port)) as outage:
                ask()
            assert "secret" not in str(outage.value)


def test_writes_are_refused_for_now_while_fewer_replicas_follow_than_the_server_wants(
    store: RedisStore, admin: redis.Redis
) -> None:
    admin.config_set("min-replicas-to-write", 1)
    with pytest.raises(StoreUnavailableError, match="while replicas are away"):
        store.put(VERSION, numbered_reviews(1))
    admin.config_set("min-replicas-to-write", 0)
    store.put(VERSION, numbered_reviews(1))


def test_a_write_that_no_replica_confirms_is_told_though_it_was_done(server: RedisServer) -> None:
    store = RedisStore(f"{server.url}?wait_replicas=1", timeout_s=TIMEOUT_S)
    with pytest.raises(UnconfirmedWriteError, match="0 of the 1 replicas"):
        store.put_candidates("spring", ["a"])
    assert store.candidates("spring") == ["a"]
    with (
        RedisServer("--replicaof", "127.0.0.1", str(server.port)) as replica,
        redis.Redis(port=replica.port) as follower,
    ):
        while follower.info("replication")["master_link_status"] != "up":
            time.sleep(0.02)
        store.put_candidates("spring", ["b"])
        assert follower.hlen("ubert:candidates") == 1
    store.close()


def test_a_patient_call_outlasts_an_outage(server: RedisServer) -> None:
    store = RedisStore(f"{server.url}?patience=20", retries=0)
    store.put(VERSION, numbered_reviews(3))
    server.stop()
    back = threading.Timer(0.5, server.start)
    back.start()
    store.put(VERSION, numbered_reviews(3))
    assert store.states(VERSION, ["r1"]) == [state_of("r1")]
    back.join()
    store.close()


@pytest.mark.parametrize("patience", [0, 20])
def test_a_scan_never_passes_over_keys_because_the_server_was_restarted(
    server: RedisServer, admin: redis.Redis, patience: int
) -> None:
    reviews = numbered_reviews(5_000)
    with closing(RedisStore(f"{server.url}?patience={patience}")) as store:
        store.put(VERSION, reviews)
        admin.save()
        sizes = store.state_sizes(VERSION)
        found = [next(sizes)]
        server.kill()
        server.start()
        if patience:
            found += sizes
            assert {name for name, _ in found} == {entry.review_id for entry, _ in reviews}
        else:
            with pytest.raises(StoreUnavailableError, match="failed over or resharded while its keys were listed"):
                found += sizes


def test_a_patient_scan_outlasts_an_outage(server: RedisServer, admin: redis.Redis) -> None:
    with closing(RedisStore(f"{server.url}?patience=20", retries=0)) as store:
        store.put(VERSION, numbered_reviews(3))
        admin.save()
        server.stop()
        back = threading.Timer(0.5, server.start)
        back.start()
        assert store.items(VERSION) == ["i0", "i1", "i2"]
        back.join()


def test_a_server_that_was_restarted_has_another_history(server: RedisServer, store: RedisStore) -> None:
    store.open_namespace(namespace_of())
    before = store.changes(VERSION, None).history
    assert store.changes(VERSION, None).history == before != ""
    server.kill()
    server.start()
    assert store.changes(VERSION, None).history != before


def test_a_server_that_keeps_its_name_to_itself_can_be_followed_all_the_same(
    store: RedisStore, admin: redis.Redis
) -> None:
    store.open_namespace(namespace_of())
    admin.acl_setuser("default", enabled=True, commands=["-info"])
    assert store.changes(VERSION, None).history == ""


def test_a_unix_socket_serves() -> None:
    with RedisServer() as server:
        socket = f"{server.directory}/redis.sock"
        server.stop()
        server.start("--unixsocket", socket)
        store = RedisStore(f"unix://{socket}")
        store.put(VERSION, [(review_of("r"), b"s")])
        assert store.states(VERSION, ["r"]) == [b"s"]
        server.stop()
        with pytest.raises(StoreUnavailableError, match=r"redis\.sock"):
            store.ping()
        store.close()


def test_who_holds_a_namespace_goes_on_holding_it_while_the_server_has_no_memory(
    store: RedisStore, admin: redis.Redis
) -> None:
    store.hold(VERSION, "shop-1/7", 0.3)
    admin.config_set("maxmemory", 1)
    store.hold(VERSION, "shop-1/7", 60.0)
    (key,) = admin.scan_iter("*held*")
    assert admin.pttl(key) > 1_000
    with pytest.raises(StoreError, match="out of memory"):
        store.hold(VERSION, "shop-2/7", 60.0)
    assert store.holders(VERSION) == ["shop-1/7"]


def test_a_server_that_cannot_save_to_its_disk_is_full_and_serves_reads(
    server: RedisServer, store: RedisStore, admin: redis.Redis
) -> None:
    store.put_candidates("before", ["i"])
    folder = server.directory / "disk"
    folder.mkdir()
    admin.config_set("dir", str(folder))
    folder.rmdir()
    admin.config_set("save", "3600 1")
    admin.bgsave()
    while admin.info("persistence")["rdb_last_bgsave_status"] == "ok":
        time.sleep(0.01)
    with pytest.raises(StoreFullError, match="cannot save to its disk: make room"):
        store.put_candidates("after", ["i"])
    assert store.candidates("before") == ["i"]
    admin.config_set("save", "")  # else it would refuse to end
    store.put_candidates("after", ["i"])


def test_a_server_without_memory_still_deletes_and_its_followers_keep_nothing(
    server: RedisServer, store: RedisStore, admin: redis.Redis
) -> None:
    store.open_namespace(namespace_of())
    written = store.put(VERSION, numbered_reviews(3))
    admin.config_set("maxmemory-policy", "noeviction")
    admin.config_set("maxmemory", 1)
    with pytest.raises(StoreError, match="out of memory"):
        store.put(VERSION, [(review_of("new"), b"s")])
    removed = store.delete(VERSION, [numbered_reviews(1)[0][0]])
    assert removed > written
    assert store.states(VERSION, ["r0", "r1", "new"]) == [None, state_of("r1"), None]
    told = store.changes(VERSION, written)
    assert (told.marks, told.revision) == (None, None)  # no memory for a new feed
    admin.config_set("maxmemory", 0)
    told = store.changes(VERSION, written)
    assert told.marks is None
    assert told.revision is not None
    assert told.revision >= removed


def test_a_server_that_has_lost_everything_tells_its_followers_so(server: RedisServer, store: RedisStore) -> None:
    store.open_namespace(namespace_of())
    written = store.put(VERSION, numbered_reviews(3))
    server.kill()
    server.start()
    told = store.changes(VERSION, written)
    assert (told.marks, told.revision) == (None, None)  # the namespace is gone too, so nothing begins a feed
    store.open_namespace(namespace_of())
    store.put(VERSION, numbered_reviews(3))
    assert store.changes(VERSION, written).marks is None
