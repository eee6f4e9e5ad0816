"""A real Redis Cluster for tests, which may kill its processes and move its slots."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import redis
from redis.crc import key_slot

from support.redis_server import RedisServer
from support.waiting import wait_until

_SLOTS = 16_384
_KEYS_A_STEP = 100


@dataclass(frozen=True, kw_only=True)
class ClusterServers:
    """The server processes of one cluster."""

    servers: list[RedisServer]
    settings: Sequence[str]
    clients: dict[RedisServer, redis.Redis] = field(repr=False)

    @property
    def url(self) -> str:
        """Names all servers, so that any may be down."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{server.port}' for server in self.servers)}"

    def primary_of(self, key: str | bytes) -> RedisServer:
        """The owner of a key's slot, as a running server sees it."""
        return self._server(self._owner(key_slot(_bytes(key))))

    def owners(self) -> list[RedisServer]:
        """All primaries that own slots."""
        slots = self._running_client().cluster("SLOTS")
        return [self._server(port) for port in {int(owner[1]) for _, _, owner, *_ in slots}]

    def replicas_of(self, primary: RedisServer) -> list[RedisServer]:
        """Its running replicas."""
        running = [server for server in self.servers if server.running]
        states = [self.clients[server].info("replication") for server in running]
        found = zip(running, states, strict=True)
        return [server for server, state in found if state.get("master_port") == primary.port]

    def wait_for_failover(self, former: RedisServer, key: str | bytes) -> RedisServer:
        """Wait until another primary owns the slot of a key, and return it."""
        wait_until(lambda: self.primary_of(key) is not former and self._is_ok(), or_fail="no replica was promoted")
        return self.primary_of(key)

    def begin_move(self, key: str | bytes, target: RedisServer) -> RedisServer:
        """Start to migrate the key's slot to another primary; returns its owner until ``finish_move``."""
        slot, source = key_slot(_bytes(key)), self.primary_of(key)
        self.clients[target].cluster("SETSLOT", slot, "IMPORTING", self.clients[source].cluster("MYID"))
        self.clients[source].cluster("SETSLOT", slot, "MIGRATING", self.clients[target].cluster("MYID"))
        return source

    def migrate_keys(self, key: str | bytes, source: RedisServer, target: RedisServer) -> int:
        """Move all keys of the slot; returns how many there were."""
        slot, moved = key_slot(_bytes(key)), 0
        while keys := self.clients[source].cluster("GETKEYSINSLOT", slot, _KEYS_A_STEP):
            self.clients[source].migrate("127.0.0.1", target.port, keys, 0, 5_000)
            moved += len(keys)
        return moved

    def finish_move(self, key: str | bytes, source: RedisServer, target: RedisServer) -> None:
        """Make the target the slot's owner."""
        slot, name = key_slot(_bytes(key)), self.clients[target].cluster("MYID")
        for server in (target, source):
            self.clients[server].cluster("SETSLOT", slot, "NODE", name)

    def cut_off_replicas(self, primary: RedisServer) -> None:
        """Stop replication to them; they still run, and may be promoted."""
        client = self.clients[primary]
        client.acl_setuser("default", enabled=True, commands=["-psync", "-sync"])
        client.client_kill_filter(_type="replica", skipme=True)

    def empty(self) -> None:
        """Remove every key."""
        for server in self.owners():
            self.clients[server].flushall()

    @contextmanager
    def extra_server(self) -> Iterator[RedisServer]:
        """While entered, one more server, which owns no slot at first. On exit whatever it owns is lost."""
        with RedisServer(*self.settings) as server, redis.Redis(port=server.port) as client:
            self.clients[server] = client
            self.servers.append(server)
            _meet(self.clients)
            wait_until(lambda: _is_ok(client), or_fail="the extra server did not learn who owns the slots")
            yield server

    def wait_until_replicated(self) -> None:
        """Wait until every primary has a replica that is in sync."""

        def replicated() -> bool:
            for server in self.servers:
                state = self.clients[server].info("replication")
                if state["role"] == "slave" and state["master_link_status"] != "up":
                    return False
                if state["role"] == "master" and not state["connected_slaves"]:
                    return False
            return self._is_ok()

        wait_until(replicated, or_fail="a primary is without a replica in sync")

    def _is_ok(self) -> bool:
        return all(_is_ok(client) for server, client in self.clients.items() if server.running)

    def _owner(self, slot: int) -> int:
        ranges = self._running_client().cluster("SLOTS")
        return next(int(owner[1]) for first, last, owner, *_ in ranges if first <= slot <= last)

    def _server(self, port: int) -> RedisServer:
        return next(server for server in self.servers if server.port == port)

    def _running_client(self) -> redis.Redis:
        return next(self.clients[server] for server in self.servers if server.running)


@contextmanager
def redis_cluster(*, primaries: int = 2, replicas: int = 0, node_timeout_ms: int = 2_000) -> Iterator[ClusterServers]:
    """A cluster of ``primaries``, each with so many ``replicas``. One replaces a primary that is silent for
    ``node_timeout_ms``, which must be longer than a busy machine may stall a process.
    """
    with ExitStack() as stack:
        settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms)]
        settings += ["--repl-diskless-sync", "yes"]
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
        wait_until(lambda: all(map(_is_ok, clients)), or_fail="the cluster did not form")
        if replicas:
            cluster.wait_until_replicated()
        yield cluster


def _meet(clients: Mapping[RedisServer, redis.Redis]) -> None:
    for client in clients.values():  # all pairs: quicker than gossip
        for other in clients:
            client.cluster("MEET", "127.0.0.1", other.port)

    def has_met_all(client: redis.Redis) -> bool:
        known = client.cluster("INFO")["cluster_known_nodes"] == str(len(clients))
        return known and "handshake" not in str(client.cluster("NODES"))

    wait_until(lambda: all(map(has_met_all, clients.values())), or_fail="the nodes did not meet")


def _is_ok(client: redis.Redis) -> bool:
    state = client.cluster("INFO")
    return bool(state["cluster_state"] == "ok" and state["cluster_slots_assigned"] == str(_SLOTS))


def _bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key
