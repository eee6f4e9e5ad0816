"""The Redis store while its server is down, full, damaged or misconfigured. Every test breaks a server of its own."""

import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from support.redis_server import RedisServer
from support.store_contents import (
    VERSION,
    contents,
    item_reviews,
    namespace_of,
    numbered_reviews,
    review_of,
    state_of,
    user_reviews,
)
from support.waiting import wait_until
from ubert_model.errors import (
    ConfigError,
    CorruptStateError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UnconfirmedWriteError,
)
from ubert_model.review import Side
from ubert_model.states import FinishedShard, copy_namespace, open_store, redis_store
from ubert_model.states.redis_errors import Command
from ubert_model.states.redis_pipelines import RedisPipelines
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


def assert_unavailable(store: RedisStore) -> None:
    """Check that every kind of call raises, and asks the server no more once it has failed."""
    calls: list[Callable[[], object]] = [
        store.ping,
        store.namespaces,
        lambda: store.open_namespace(namespace_of()),
        lambda: store.put(VERSION, numbered_reviews(3)),
        lambda: store.states(VERSION, ["r"]),
        lambda: user_reviews(store, VERSION, ["u"]),
        lambda: store.entities(VERSION, Side.USER),
        lambda: store.drop_namespace(VERSION),
    ]
    client_of, asked = vars(RedisPipelines)["_client"].fget, list[str]()

    def counted_client(pipelines: RedisPipelines) -> Any:
        asked.append("once")
        return client_of(pipelines)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RedisPipelines, "_client", property(counted_client))
        for call in calls:
            asked.clear()
            with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:\d+"):
                call()
            assert asked == ["once"]


@contextmanager
def restarted_after(server: RedisServer, seconds: float) -> Iterator[None]:
    """While entered, the server is stopped, and starts again in a thread after so many seconds."""
    server.stop()
    restart = threading.Timer(seconds, server.start)
    restart.start()
    try:
        yield
    finally:
        restart.join()


def make_replica(admin: redis.Redis) -> None:
    """Make the server a read-only replica of a primary that does not exist."""
    admin.config_set("replica-read-only", "yes")
    admin.replicaof("127.0.0.1", "1")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_store_raises_while_its_server_is_down_and_works_again_afterwards(
    server: RedisServer, store: RedisStore, end: str
) -> None:
    store.put(VERSION, numbered_reviews(3))
    getattr(server, end)()
    assert_unavailable(store)
    server.start()
    store.put(VERSION, numbered_reviews(3))
    assert store.states(VERSION, ["r1"]) == [state_of("r1")]


def test_a_store_may_be_created_before_its_server_runs() -> None:
    with RedisServer() as server:
        server.stop()
        store = RedisStore(server.url)
        with pytest.raises(StoreUnavailableError):
            store.ping()
        server.start()
        store.ping()
        store.close()


def test_an_outage_shorter_than_the_retries_raises_nothing(server: RedisServer) -> None:
    with closing(RedisStore(server.url, retries=20)) as store:
        store.ping()
        with restarted_after(server, 0.1):
            assert store.states(VERSION, ["r"]) == [None]


def test_a_late_reply_is_never_taken_for_that_of_the_next_command(server: RedisServer, store: RedisStore) -> None:
    store.put(VERSION, numbered_reviews(3))
    server.pause()
    for call in (store.ping, store.namespaces, lambda: store.states(VERSION, ["r1"])):
        with pytest.raises(StoreUnavailableError):
            call()
    server.resume()
    time.sleep(0.1)  # in which the server replies to those commands
    store.put(VERSION, numbered_reviews(3))
    assert store.states(VERSION, ["r2"]) == [state_of("r2")]
    assert store.states(VERSION, ["r0"]) == [state_of("r0")]


def test_a_connection_that_the_server_closed_is_replaced(store: RedisStore, admin: redis.Redis) -> None:
    store.put(VERSION, numbered_reviews(3))
    admin.client_kill_filter(_type="normal", skipme=True)
    assert store.states(VERSION, ["r1"]) == [state_of("r1")]


class Loading(socketserver.StreamRequestHandler):
    """Replies as a server that is loading its snapshot; a real one cannot be kept in that state."""

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
        for call in (store.ping, lambda: store.states(VERSION, ["r"]), lambda: store.entities(VERSION, Side.USER)):
            with pytest.raises(StoreUnavailableError, match="loading"):
                call()
        store.close()
        loading.shutdown()


def test_a_put_cut_short_by_a_full_server_lists_no_review(store: RedisStore, admin: redis.Redis) -> None:
    admin.config_set("maxmemory", admin.info("memory")["used_memory"] + 2_000_000)
    reviews = numbered_reviews(100, size=100_000)
    with pytest.raises(StoreError, match="raise its maxmemory") as refusal:
        store.put(VERSION, reviews)
    assert not isinstance(refusal.value, StoreUnavailableError)
    assert any(store.states(VERSION, [entry.review_id for entry, _ in reviews]))
    assert store.entities(VERSION, Side.USER) == []
    admin.config_set("maxmemory", 0)
    store.put(VERSION, reviews)
    assert not any(store.missing(VERSION, [entry for entry, _ in reviews]))


def test_a_replica_refuses_writes_and_serves_reads(store: RedisStore, admin: redis.Redis) -> None:
    store.put(VERSION, numbered_reviews(1))
    make_replica(admin)
    with pytest.raises(StoreError, match="put the primary in the store URL"):
        store.put(VERSION, numbered_reviews(1))
    assert store.states(VERSION, ["r0"]) == [state_of("r0")]


def test_once_a_failover_gives_the_address_to_another_server_only_the_first_write_fails(tmp_path: Path) -> None:
    address = tmp_path / "redis.sock"
    options = ("--unixsocketperm", "700", "--unixsocket")
    with RedisServer(*options, str(tmp_path / "old.sock")) as old, RedisServer(*options, str(tmp_path / "new.sock")):
        address.symlink_to("old.sock")
        with closing(RedisStore(f"unix://{address}")) as store, redis.Redis.from_url(old.url) as admin:
            store.put(VERSION, numbered_reviews(1))
            make_replica(admin)
            address.unlink()
            address.symlink_to("new.sock")  # connections to the old one stay open
            with pytest.raises(StoreError, match="read-only replica"):
                store.put(VERSION, numbered_reviews(1))
            store.put(VERSION, numbered_reviews(1))


def test_a_drop_leaves_no_key_although_a_follower_starts_a_feed_meanwhile(
    store: RedisStore, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RedisPipelines.write

    def followed_write(pipelines: RedisPipelines, commands: Iterable[Command]) -> list[Any]:
        commands = list(commands)
        if commands and commands[0][0] == "HDEL":
            assert store.changes(VERSION, None).revision is not None
        return write(pipelines, commands)

    store.open_namespace(namespace_of())
    store.put(VERSION, numbered_reviews(2))
    monkeypatch.setattr(RedisPipelines, "write", followed_write)
    store.drop_namespace(VERSION)
    assert admin.keys("*") == []


def test_a_pipeline_asks_for_a_bounded_number_of_states(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    read = RedisPipelines.read

    def noted_read(pipelines: RedisPipelines, commands: Iterable[Command]) -> list[Any]:
        commands = list(commands)
        asked.append([len(keys) for _, *keys in commands])
        return read(pipelines, commands)

    store.put(VERSION, numbered_reviews(9))
    monkeypatch.setattr(redis_store, "_STATES_PER_COMMAND", 2)
    monkeypatch.setattr(redis_store, "_STATE_COMMANDS_PER_PIPELINE", 3)
    monkeypatch.setattr(RedisPipelines, "read", noted_read)
    names = [entry.review_id for entry, _ in numbered_reviews(9)]
    assert store.states(VERSION, names) == [state_of(name) for name in names]
    assert asked == [[2, 2, 2], [2, 1]]


def test_a_replica_is_copied_although_it_takes_no_lease(store: RedisStore, admin: redis.Redis, tmp_path: Path) -> None:
    store.open_namespace(namespace_of())
    store.put(VERSION, numbered_reviews(3))
    make_replica(admin)
    with closing(open_store(f"lmdb:{tmp_path / 'copy'}")) as target:
        assert copy_namespace(store, target, VERSION) == 3


def test_a_key_of_another_type_is_named_in_the_error(store: RedisStore, admin: redis.Redis) -> None:
    key = f"ubert:{VERSION}:user:u0"
    admin.set(key, "not a list")
    with pytest.raises(StoreError, match=rf"refused HVALS {key}: WRONGTYPE"):
        user_reviews(store, VERSION, ["u0"])
    with pytest.raises(StoreError, match=rf"refused HSET {key}: WRONGTYPE"):
        store.put(VERSION, numbered_reviews(1))


def test_damaged_lines_and_namespace_descriptions_are_refused(store: RedisStore, admin: redis.Redis) -> None:
    store.put(VERSION, numbered_reviews(1))
    admin.hset(f"ubert:{VERSION}:user:u0", "r0", b"junk")
    with pytest.raises(CorruptStateError, match="user 'u0'"):
        user_reviews(store, VERSION, ["u0"])
    admin.hset("ubert:namespaces", VERSION, b'{"version": 1}')
    with pytest.raises(CorruptStateError, match="namespace"):
        store.namespaces()


def test_lists_of_many_entities_cost_one_round_trip(store: RedisStore, admin: redis.Redis) -> None:
    store.put(VERSION, numbered_reviews(200, reviews_a_user=2))
    users = [f"u{number}" for number in range(100)]

    def reads_by_the_server() -> int:
        reads: int = admin.info("stats")["total_reads_processed"]
        return reads

    before = reads_by_the_server()
    user_reviews(store, VERSION, users)
    # Less one for the command that asks for the count; on a busy machine one pipeline may arrive in pieces.
    assert reads_by_the_server() - before - 1 <= 3


def test_an_evicted_state_is_missing_and_its_line_is_kept(store: RedisStore, admin: redis.Redis) -> None:
    ((entry, state),) = numbered_reviews(1)
    store.put(VERSION, [(entry, state)])
    admin.delete(f"ubert:{VERSION}:state:r0")
    assert store.missing(VERSION, [entry]) == [True]
    assert store.states(VERSION, ["r0"]) == [None]
    assert user_reviews(store, VERSION, ["u0"]) == [[entry]]


def test_no_error_message_contains_a_password() -> None:
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
        "redis://:secret@host:6379/0?decode_responses=1",
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
        for call in (store.ping, store.namespaces):
            with pytest.raises(StoreUnavailableError, match=str(server.port)) as outage:
                call()
            assert "secret" not in str(outage.value)


def test_writes_raise_unavailable_while_the_server_has_too_few_replicas(store: RedisStore, admin: redis.Redis) -> None:
    admin.config_set("min-replicas-to-write", 1)
    with pytest.raises(StoreUnavailableError, match="while replicas are away"):
        store.put(VERSION, numbered_reviews(1))
    admin.config_set("min-replicas-to-write", 0)
    store.put(VERSION, numbered_reviews(1))


def test_a_write_that_no_replica_confirms_raises_although_the_server_has_it(server: RedisServer) -> None:
    store = RedisStore(f"{server.url}?wait_replicas=1", timeout_s=TIMEOUT_S)
    with pytest.raises(UnconfirmedWriteError, match="0 of the 1 replicas"):
        store.put_candidates("spring", ["a"])
    assert store.candidates("spring") == ["a"]
    with (
        RedisServer("--replicaof", "127.0.0.1", str(server.port)) as replica,
        redis.Redis(port=replica.port) as follower,
    ):
        wait_until(lambda: follower.info("replication")["master_link_status"] == "up")
        store.put_candidates("spring", ["b"])
        assert follower.hlen("ubert:candidates") == 1
    store.close()


def test_a_patient_call_waits_out_an_outage(server: RedisServer) -> None:
    with closing(RedisStore(f"{server.url}?patience=20", retries=0)) as store:
        store.put(VERSION, numbered_reviews(3))
        with restarted_after(server, 0.5):
            store.put(VERSION, numbered_reviews(3))
            assert store.states(VERSION, ["r1"]) == [state_of("r1")]


@pytest.mark.parametrize("patience", [0, 20])
def test_a_scan_never_skips_keys_when_the_server_restarts(
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


def test_a_patient_scan_waits_out_an_outage(server: RedisServer, admin: redis.Redis) -> None:
    with closing(RedisStore(f"{server.url}?patience=20", retries=0)) as store:
        store.put(VERSION, numbered_reviews(3))
        admin.save()
        with restarted_after(server, 0.5):
            assert store.entities(VERSION, Side.ITEM) == ["i0", "i1", "i2"]


def test_the_history_changes_when_the_server_restarts(server: RedisServer, store: RedisStore) -> None:
    store.open_namespace(namespace_of())
    before = store.changes(VERSION, None).history
    assert store.changes(VERSION, None).history == before != ""
    server.kill()
    server.start()
    assert store.changes(VERSION, None).history != before


def test_the_history_is_empty_without_permission_for_info(store: RedisStore, admin: redis.Redis) -> None:
    store.open_namespace(namespace_of())
    admin.acl_setuser("default", enabled=True, commands=["-info"])
    assert store.changes(VERSION, None).history == ""


def test_a_user_who_may_read_and_write_the_stores_own_keys_may_do_all_that_it_does(
    server: RedisServer, admin: redis.Redis, tmp_path: Path
) -> None:
    rights = "~ubert:* +@read +@write +@connection -@dangerous +info"
    admin.execute_command("ACL", "SETUSER", "ubert", "reset", "on", ">secret", *rights.split())
    reviews = numbered_reviews(3)
    with (
        closing(RedisStore(server.url.replace("//", "//ubert:secret@"))) as store,
        closing(open_store(f"lmdb:{tmp_path}")) as other,
    ):
        store.ping()
        store.open_namespace(namespace_of())
        before = store.changes(VERSION, None)
        assert before.history
        store.put(VERSION, reviews, [("r0", "text")])
        store.finish_shard(VERSION, FinishedShard(corpus="c", shards=1, number=1, reviews=3))
        assert store.changes(VERSION, before.revision).marks
        assert len(list(store.list_lengths(VERSION))) == 4
        assert copy_namespace(store, other, VERSION) == 3
        assert contents(store, VERSION) == contents(other, VERSION)
        store.put_new(VERSION, review_of("r9"), b"s")
        store.delete(VERSION, [review_of("r9")])
        for _ in range(2):
            store.hold(VERSION, "holder", 60.0)
        assert store.holders(VERSION) == ["holder"]
        store.put_candidates("set", ["i0"])
        assert store.candidate_sets() == ["set"]
        assert store.candidates("set") == ["i0"]
        assert store.delete_candidates("set")
        store.delete(VERSION, [entry for entry, _ in reviews[1:]])
        assert store.drop_namespace(VERSION) == 1


def test_a_command_that_the_user_may_not_run_is_named_with_the_remedy(store: RedisStore, admin: redis.Redis) -> None:
    admin.acl_setuser("default", enabled=True, commands=["-hvals"])
    with pytest.raises(StoreError, match=r"'hvals' command.*check its credentials and permissions") as refusal:
        item_reviews(store, VERSION, ["i0"])
    assert not isinstance(refusal.value, StoreUnavailableError)


def test_a_store_works_over_a_unix_socket() -> None:
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


def test_a_server_out_of_memory_renews_leases_and_grants_none(store: RedisStore, admin: redis.Redis) -> None:
    store.hold(VERSION, "shop-1/7", 60.0)
    (key,) = admin.scan_iter("*held*")
    admin.config_set("maxmemory", 1)
    store.hold(VERSION, "shop-1/7", 600.0)
    assert admin.pttl(key) > 60_000
    with pytest.raises(StoreError, match="out of memory"):
        store.hold(VERSION, "shop-2/7", 60.0)
    assert store.holders(VERSION) == ["shop-1/7"]


def test_a_server_that_cannot_save_to_its_disk_refuses_writes_and_serves_reads(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    with (
        RedisServer("--dir", str(folder)) as server,
        closing(RedisStore(server.url)) as store,
        redis.Redis.from_url(server.url) as admin,
    ):
        store.put_candidates("before", ["i"])
        folder.rmdir()
        admin.config_set("save", "3600 1")
        admin.bgsave()
        wait_until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] != "ok")
        with pytest.raises(StoreFullError, match="cannot save to its disk: make room"):
            store.put_candidates("after", ["i"])
        assert store.candidates("before") == ["i"]
        admin.config_set("save", "")  # otherwise it would refuse to stop
        store.put_candidates("after", ["i"])


def test_a_shard_that_is_finished_while_its_namespace_is_dropped_is_dropped_too(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record would say that a namespace of that version, filled later, is complete."""
    store.open_namespace(namespace_of())
    write = RedisPipelines.write

    def finish_before_the_last(pipelines: RedisPipelines, commands: Iterable[Command]) -> list[object]:
        sent = list(commands)
        if sent and sent[0][0] == "HDEL":
            monkeypatch.undo()
            store.finish_shard(VERSION, FinishedShard(corpus="c", shards=1, number=1, reviews=1))
        return write(pipelines, sent)

    monkeypatch.setattr(RedisPipelines, "write", finish_before_the_last)
    store.drop_namespace(VERSION)
    assert store.finished_shards(VERSION) == []


def test_every_write_is_announced_last(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a follower might read, and keep, what the write is about to change."""
    written: list[str] = []
    write = RedisPipelines.write

    def recorded(pipelines: RedisPipelines, commands: Iterable[Command]) -> list[object]:
        sent = list(commands)
        written.extend(str(name) for name, *_ in sent)
        return write(pipelines, sent)

    monkeypatch.setattr(RedisPipelines, "write", recorded)
    entry = review_of("r")
    writes: list[tuple[list[str], Callable[[], object]]] = [
        (["SET", "SET", "HSET", "HSET"], lambda: store.put(VERSION, [(entry, b"s")], [("r", "text")])),
        (["HSET", "HSET"], lambda: store.put_lines(VERSION, [entry])),
        (["HDEL"], lambda: store.remove_lines(VERSION, Side.USER, "u", [b"r"])),
        (["SET", "HDEL", "HDEL", "UNLINK", "UNLINK", "UNLINK"], lambda: store.delete(VERSION, [entry])),
        (["UNLINK"], lambda: store.delete_states(VERSION, ["r"])),
    ]
    for changes, make in writes:
        written.clear()
        make()
        assert written == [*changes, "XADD"]


def test_a_server_out_of_memory_still_deletes_and_then_anything_may_have_changed(
    server: RedisServer, store: RedisStore, admin: redis.Redis
) -> None:
    store.open_namespace(namespace_of())
    written = store.put(VERSION, numbered_reviews(3))
    admin.config_set("maxmemory-policy", "noeviction")
    admin.config_set("maxmemory", 1)
    with pytest.raises(StoreError, match="out of memory"):
        store.put(VERSION, [(review_of("new"), b"s")])
    deleted = store.delete(VERSION, [numbered_reviews(1)[0][0]])
    assert deleted > written
    assert store.states(VERSION, ["r0", "r1", "new"]) == [None, state_of("r1"), None]
    changes = store.changes(VERSION, written)
    assert (changes.marks, changes.revision) == (None, None)  # no memory to begin a feed
    admin.config_set("maxmemory", 0)
    changes = store.changes(VERSION, written)
    assert changes.marks is None
    assert changes.revision is not None
    assert changes.revision >= deleted


def test_anything_may_have_changed_since_a_revision_that_the_server_has_lost(
    server: RedisServer, store: RedisStore
) -> None:
    store.open_namespace(namespace_of())
    written = store.put(VERSION, numbered_reviews(3))
    server.kill()
    server.start()
    changes = store.changes(VERSION, written)
    assert (changes.marks, changes.revision) == (None, None)  # no feed is begun for a namespace that is gone, too
    store.open_namespace(namespace_of())
    store.put(VERSION, numbered_reviews(3))
    assert store.changes(VERSION, written).marks is None
