"""A real Redis Cluster for tests, whose processes a test may kill and whose slots it may move."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import redis
from redis.crc import key_slot

from support.redis_server import RedisServer

_SLOTS = 16_384
_SECONDS_TO_AGREE = 60.0
_KEYS_A_STEP = 100


@dataclass(frozen=True, kw_only=True)
class ClusterServers:
    """Processes of one cluster."""

    servers: list[RedisServer]
    settings: Sequence[str]
    clients: dict[RedisServer, redis.Redis] = field(repr=False)

    @property
    def url(self) -> str:
        """Names all of them, so that any may be away."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{server.port}' for server in self.servers)}"

    def primary_of(self, key: str | bytes) -> RedisServer:
        """Who owns a key's slot, as a server that runs sees it."""
        return self._server(self._owner(key_slot(_bytes(key))))

    def owners(self) -> list[RedisServer]:
        """All primaries that own slots."""
        return [self._server(port) for port in {int(owner[1]) for _, _, owner, *_ in self._anyone().cluster("SLOTS")}]

    def replicas_of(self, primary: RedisServer) -> list[RedisServer]:
        """Who runs and follows it."""
        running = [server for server in self.servers if server.running]
        told = [self.clients[server].info("replication") for server in running]
        return [one for one, state in zip(running, told, strict=True) if state.get("master_port") == primary.port]

    def wait_for_failover(self, gone: RedisServer, key: str | bytes) -> RedisServer:
        """Who owns the slot of a key after its primary is gone."""
        _wait_until(lambda: self.primary_of(key) is not gone and self._ok(), "no replica was promoted")
        return self.primary_of(key)

    def begin_move(self, key: str | bytes, target: RedisServer) -> RedisServer:
        """Open the key's slot for its way to another primary; the one that owns it until ``finish_move``."""
        slot, source = key_slot(_bytes(key)), self.primary_of(key)
        self.clients[target].cluster("SETSLOT", slot, "IMPORTING", self.clients[source].cluster("MYID"))
        self.clients[source].cluster("SETSLOT", slot, "MIGRATING", self.clients[target].cluster("MYID"))
        return source

    def migrate_keys(self, key: str | bytes, source: RedisServer, target: RedisServer) -> int:
        """Send all keys of the slot; how many there were."""
        slot, moved = key_slot(_bytes(key)), 0
        while keys := self.clients[source].cluster("GETKEYSINSLOT", slot, _KEYS_A_STEP):
            self.clients[source].migrate("127.0.0.1", target.port, keys, 0, 5_000)
            moved += len(keys)
        return moved

    def finish_move(self, key: str | bytes, source: RedisServer, target: RedisServer) -> None:
        """Give the slot to the target."""
        slot, name = key_slot(_bytes(key)), self.clients[target].cluster("MYID")
        for server in (target, source):
            self.clients[server].cluster("SETSLOT", slot, "NODE", name)

    def cut_off_replicas(self, primary: RedisServer) -> None:
        """Let nothing more reach them, though they run and will take the primary's place."""
        client = self.clients[primary]
        client.acl_setuser("default", enabled=True, commands=["-psync", "-sync"])
        client.client_kill_filter(_type="replica", skipme=True)

    def empty(self) -> None:
        """Remove every key."""
        for server in self.owners():
            self.clients[server].flushall()

    @contextmanager
    def newcomer(self) -> Iterator[RedisServer]:
        """Another process, which owns no slot when it comes; where it goes, what it owns is lost."""
        with RedisServer(*self.settings) as server, redis.Redis(port=server.port) as client:
            self.clients[server] = client
            self.servers.append(server)
            _meet(self.clients)
            _wait_until(lambda: _agrees(client), "the newcomer did not learn who owns the slots")
            yield server

    def wait_until_whole(self) -> None:
        """Until every primary has a replica again that is in step."""

        def whole() -> bool:
            for server in self.servers:
                state = self.clients[server].info("replication")
                if state["role"] == "slave" and state["master_link_status"] != "up":
                    return False
                if state["role"] == "master" and not state["connected_slaves"]:
                    return False
            return self._ok()

        _wait_until(whole, "the cluster did not become whole")

    def _ok(self) -> bool:
        return all(_agrees(client) for server, client in self.clients.items() if server.running)

    def _owner(self, slot: int) -> int:
        ranges = self._anyone().cluster("SLOTS")
        return next(int(owner[1]) for first, last, owner, *_ in ranges if first <= slot <= last)

    def _server(self, port: int) -> RedisServer:
        return next(server for server in self.servers if server.port == port)

    def _anyone(self) -> redis.Redis:
        return next(self.clients[server] for server in self.servers if server.running)


@contextmanager
def redis_cluster(*, primaries: int = 2, replicas: int = 0, node_timeout_ms: int = 2_000) -> Iterator[ClusterServers]:
    """So many primaries, and so many replicas of each, which replace a primary that is silent for so long: for longer
    than a busy machine keeps a process waiting.
    """
    with ExitStack() as stack:
        settings = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms))
        settings += ("--repl-diskless-sync", "yes")
        servers = [stack.enter_context(RedisServer(*settings)) for _ in range(primaries * (1 + replicas))]
        clients = [stack.enter_context(redis.Redis(port=server.port)) for server in servers]
        cluster = ClusterServers(servers=servers, settings=settings, clients=dict(zip(servers, clients, strict=True)))
        for number, client in enumerate(clients):
            client.cluster("SET-CONFIG-EPOCH", number + 1)
        _meet(cluster.clients)
        for number, client in enumerate(clients[:primaries]):
            client.cluster("ADDSLOTS", *range(number * _SLOTS // primaries, (number + 1) * _SLOTS // primaries))
        for number, client in enumerate(clients[primaries:]):
            client.cluster("REPLICATE", clients[number % primaries].cluster("MYID"))
        _wait_until(lambda: all(map(_agrees, clients)), "the cluster did not form")
        if replicas:
            cluster.wait_until_whole()
        yield cluster


def _meet(clients: Mapping[RedisServer, redis.Redis]) -> None:
    for client in clients.values():  # each with each: quicker than what they hear of others
        for other in clients:
            client.cluster("MEET", "127.0.0.1", other.port)

    def has_met_all(client: redis.Redis) -> bool:
        known = client.cluster("INFO")["cluster_known_nodes"] == str(len(clients))
        return known and "handshake" not in str(client.cluster("NODES"))

    _wait_until(lambda: all(map(has_met_all, clients.values())), "the nodes did not meet")


def _agrees(client: redis.Redis) -> bool:
    state = client.cluster("INFO")
    return bool(state["cluster_state"] == "ok" and state["cluster_slots_assigned"] == str(_SLOTS))


def _bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


def _wait_until(happens: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _SECONDS_TO_AGREE
    while not happens():
        if time.monotonic() > deadline:
            raise RuntimeError(otherwise)
        time.sleep(0.02)
