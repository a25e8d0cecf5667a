"""All the partitions of an engine, each with its way, its lanes and its hints; opened and shut together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from ropeway.domain.bucket import Allowance, Spend
from ropeway.domain.clock import Clock
from ropeway.domain.errors import EngineUnavailable, LeaseLost
from ropeway.domain.job import NewJob, Receipt
from ropeway.domain.lease import Append, Appended, Commit
from ropeway.domain.lifecycle import State
from ropeway.domain.record import Record, RecordConflict, RecordKey
from ropeway.engines.base import Refusal
from ropeway.engines.redis import recording, submitting, working
from ropeway.engines.redis.address import Address, Node
from ropeway.engines.redis.hearing import Hearing, RedisBoard
from ropeway.engines.redis.lane import Lane
from ropeway.engines.redis.link import Link
from ropeway.engines.redis.partition import Partition
from ropeway.engines.redis.proof import Proof, prove
from ropeway.engines.redis.route import Route, Unsafe, root_of

__all__ = ["PROVE_S", "Failpoint", "Fleet", "Home"]

log = logging.getLogger("ropeway.engine")

Failpoint = Callable[[str, str], None]
"""Called with a point (`pre_script`, `post_script`) and a script's name; raises where a process is to die."""

OPEN_S = 10.0
PROVE_S = 30.0  # between two proofs of a server in use: its configuration may be changed under us
YOUNG_S = 10  # a server that has been up for less may have kept workers from renewing


class Home:
    """One partition: where some of the jobs live."""

    def __init__(self, fleet: Fleet, number: int, wait: tuple[int, int] | None) -> None:
        address = fleet.address
        self._fleet = fleet
        root = root_of(address, number)
        self.route = Route(address, fleet.tls, root, self._prove, self._push)
        self.partition = Partition(self.route, root, fleet.clock, fleet.failpoint, fleet.look_again)
        self.hearing = Hearing(fleet.board, self.route, root)
        partition = self.partition
        self.submits: Lane[NewJob, Receipt | Refusal] = Lane(
            lambda jobs: submitting.submit(partition, jobs, wait), submitting.size
        )
        self.appends: Lane[Append, Appended | LeaseLost] = Lane(
            lambda batch: working.append(partition, batch), working.append_size
        )
        self.commits: Lane[Commit, State | LeaseLost] = Lane(
            lambda batch: working.commit(partition, batch), working.commit_size
        )
        self.puts: Lane[recording.Marked, Record | RecordConflict] = Lane(
            lambda batch: recording.put(partition, batch, wait), recording.put_size
        )
        self.fetches: Lane[RecordKey, Record | None] = Lane(lambda keys: recording.fetch(partition, keys))
        self.spends: Lane[Sequence[Spend], list[Allowance]] = Lane(
            lambda calls: recording.spend(partition, calls), recording.spend_size
        )

    def _push(self, push: list[object]) -> None:
        self.hearing.on_push(push)

    async def _prove(self, link: Link) -> None:
        """Look at a server, and at the store that it holds, before its link is used."""
        await self._fleet.prove(link)
        await self.hearing.prove(link)
        await self.partition.meet(link)

    async def idle(self) -> None:
        """Until what was accepted has been answered."""
        for lane in (self.submits, self.appends, self.commits, self.puts, self.fetches, self.spends):
            await lane.idle()


class Fleet:
    """The partitions of one address."""

    def __init__(
        self, address: Address, clock: Clock | None, failpoint: Failpoint | None, prove_s: float = PROVE_S
    ) -> None:
        self.address = address
        self._prove_s = prove_s
        self.clock = clock
        self.failpoint = failpoint
        self.tls = address.ssl_context()
        self.board = RedisBoard()
        self.proof = Proof("redis", "", address.durability)  # that of the weakest server
        self._proofs: dict[Node | None, Proof] = {}
        self._young_until_s = float("-inf")
        wait = (address.wait_replicas, round(address.wait_timeout_s * 1000)) if address.wait_replicas else None
        self.homes = [Home(self, number, wait) for number in range(address.partitions)]
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises EngineUnavailable, and among these Unsafe, when a server cannot or must not be used."""
        try:
            deadline_s = asyncio.get_running_loop().time() + OPEN_S
            for home in self.homes:
                await home.route.link(deadline_s)
        except BaseException:
            await self.shut()
            raise
        self.board.joined = self._joined
        for home in self.homes:
            home.hearing.start()
        self._watch = asyncio.create_task(self._prove_again())
        proof = self.proof
        log.info("%s: %s %s, class %s", self.address.masked, proof.server, proof.version, proof.durability)

    async def shut(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(OPEN_S):
                await asyncio.gather(*(home.idle() for home in self.homes))
        if self._watch is not None:
            self._watch.cancel()
        for home in self.homes:
            await home.hearing.stop()
            await home.route.shut()

    async def prove(self, link: Link) -> None:
        """Look at a server before its link is used, and from time to time; what is new about it is told."""
        known, proof = self._proofs.get(link.node), await prove(link, self.address)
        self._proofs[link.node] = proof
        used = {link.node, *(home.route.node for home in self.homes)}
        self.proof = min((self._proofs[node] for node in used & self._proofs.keys()), key=lambda each: each.rank)
        if known is None or (known.durability, known.warnings) != (proof.durability, proof.warnings):
            log.info("%s is %s %s, class %s", link.node, proof.server, proof.version, proof.durability)
            for warning in proof.warnings:
                log.warning("%s: %s", link.node, warning)
        if proof.uptime_s < YOUNG_S and self.clock is None:
            self._young_until_s = asyncio.get_running_loop().time()

    @property
    def keep_bytes(self) -> int | None:
        """The most that the ended jobs of one partition may come to; None: as much as they like."""
        if self.address.keep_bytes is not None:
            return self.address.keep_bytes // len(self.homes)
        nodes = {home.route.node for home in self.homes}
        together = -(-len(self.homes) // len(nodes))  # partitions that share a server's memory
        return self.proof.maxmemory_bytes // 2 // together or None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should know of the servers."""
        lost = sum(home.partition.memory.rollbacks for home in self.homes)
        alarm = (
            (f"acked_data_may_be_lost: a server was set back to an older state ({lost} times seen)",) if lost else ()
        )
        return (*alarm, *self.proof.warnings)

    def look_again(self) -> None:
        """Tell all who listen that anything may have changed."""
        self.board.fire(self.board.topics())

    def steady_for_s(self) -> float:
        """Seconds since the last server was lost, or was met as one just started."""
        since_s = max(self._young_until_s, *(home.route.lost_at_s for home in self.homes))
        return asyncio.get_running_loop().time() - since_s

    def _joined(self, topic: str) -> None:
        for home in self.homes:
            home.hearing.joined(topic)

    async def _prove_again(self) -> None:
        """A server whose configuration has become unsafe is not used until it is safe again."""
        while True:
            await asyncio.sleep(self._prove_s)
            for home in self.homes:
                try:
                    link = await home.route.link(asyncio.get_running_loop().time() + self._prove_s)
                except EngineUnavailable as error:
                    log.warning("cannot look at a server: %s", error)
                else:
                    await self._look_again(home, link)

    async def _look_again(self, home: Home, link: Link) -> None:
        try:
            await self.prove(link)
        except Unsafe as error:
            log.error("%s", error)
            home.route.lost(link, str(error))
        except Exception as error:
            log.warning("cannot look at a server: %s", error)
