"""Several servers as one store: a cluster, and a master with its replica under sentinels."""

from __future__ import annotations

import atexit
from functools import cache

from servers import HOST, Server, free_port, until, valkey_binary

__all__ = ["SERVICE", "Cluster", "Sentinel", "Watched", "follows", "shared_cluster"]

SLOTS = 16_384
SERVICE = "ropeway-test"
WINDOW = ("--appendonly", "yes", "--appendfsync", "everysec")
DOWN_MS = 1000  # a silence that a busy machine makes by itself is not to be a failover


class Cluster:
    """Masters without replicas, the slots shared out evenly among them."""

    def __init__(self, size: int = 3, binary: str | None = None) -> None:
        self.nodes = [
            Server(*WINDOW, "--cluster-enabled", "yes", "--cluster-port", str(free_port()), binary=binary)
            for _ in range(size)
        ]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in self.nodes)}"

    def start(self) -> Cluster:
        """Start and join the nodes, and wait until the cluster is whole."""
        for node in self.nodes:
            node.start()
        size = len(self.nodes)
        for place, node in enumerate(self.nodes):
            node.do("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
            node.do("CLUSTER", "ADDSLOTSRANGE", place * SLOTS // size, (place + 1) * SLOTS // size - 1)
        bus = self.nodes[0].do("CONFIG", "GET", "cluster-port")[1]
        for node in self.nodes[1:]:
            node.do("CLUSTER", "MEET", HOST, self.nodes[0].port, bus)
        self.until_whole()
        return self

    def until_whole(self) -> None:
        """Until every node serves its slots and knows who serves the others."""
        until(lambda: all(map(self._is_whole, self.nodes)), "every node of the cluster sees it whole")

    def delete(self) -> None:
        for node in self.nodes:
            node.delete()

    def _is_whole(self, node: Server) -> bool:
        told = node.do("CLUSTER", "INFO")
        return "cluster_state:ok" in told and f"cluster_known_nodes:{len(self.nodes)}" in told


class Sentinel(Server):
    """One sentinel: it keeps what it learns in the file that it is started with."""

    def __init__(self, master: Server, quorum: int) -> None:
        super().__init__("--sentinel")
        self._rules = (
            f"port {self.port}",
            f"bind {HOST}",
            f"dir {self.folder}",
            f"sentinel monitor {SERVICE} {HOST} {master.port} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_MS}",
            f"sentinel failover-timeout {SERVICE} 5000",
        )

    def command(self) -> list[str]:
        rules = self.folder / "sentinel.conf"
        if not rules.exists():
            rules.write_text("\n".join(self._rules) + "\n")
        return [valkey_binary(), str(rules), "--sentinel"]

    def master_port(self) -> int:
        """Of the server that it tells clients to use."""
        return int(self.do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def sees(self, *, replicas: int, sentinels: int) -> bool:
        """Whether it knows so many replicas, and so many sentinels beside itself."""
        known = len(self.do("SENTINEL", "REPLICAS", SERVICE)), len(self.do("SENTINEL", "SENTINELS", SERVICE))
        return known == (replicas, sentinels)


class Watched:
    """A master, one replica, and sentinels that agree by majority when the master is to be replaced."""

    def __init__(self, sentinels: int = 3) -> None:
        options = (*WINDOW, "--repl-diskless-sync-delay", "0")
        self.master = Server(*options)
        self.replica = Server(*options)
        self.sentinels = [Sentinel(self.master, sentinels // 2 + 1) for _ in range(sentinels)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    def start(self) -> Watched:
        """Start them all, and wait until the replica follows and the sentinels know it and each other."""
        for server in (self.master, self.replica):
            server.start()
        self.replica.do("REPLICAOF", HOST, self.master.port)
        for sentinel in self.sentinels:
            sentinel.start()
        others = len(self.sentinels) - 1
        until(lambda: follows(self.replica, self.master), "the replica has what the master has")
        until(
            lambda: all(sentinel.sees(replicas=1, sentinels=others) for sentinel in self.sentinels),
            "every sentinel knows the replica and the other sentinels",
        )
        return self

    def fail_over(self) -> None:
        """Kill the master, wait until every sentinel names the replica instead, and call the two what they are then."""
        self.master.kill()
        until(lambda: self._is_master(self.replica), "the replica was promoted", within_s=60)
        self.master, self.replica = self.replica, self.master

    def bring_back(self) -> None:
        """Start the server that was killed, as a replica, and wait until it has it all."""
        self.replica.start()
        self.replica.do(
            "REPLICAOF", HOST, self.master.port
        )  # the sentinels would come to it, a quarter of a minute later
        until(lambda: follows(self.replica, self.master), "the old master follows the new one", within_s=60)

    def delete(self) -> None:
        for server in (*self.sentinels, self.replica, self.master):
            server.delete()

    def _is_master(self, server: Server) -> bool:
        told = {sentinel.master_port() for sentinel in self.sentinels}
        return told == {server.port} and server.do("ROLE")[0] == "master"


def follows(replica: Server, master: Server) -> bool:
    """Whether this is a replica of that server, and has all that it wrote."""
    told = replica.do("ROLE")
    if told[0] != "slave" or told[2] != master.port or told[3] != "connected":
        return False
    return bool(told[4] == master.do("ROLE")[1])


@cache
def shared_cluster() -> Cluster:
    """A cluster for all tests of this process that keep apart by prefix."""
    cluster = Cluster().start()
    atexit.register(cluster.delete)
    return cluster
