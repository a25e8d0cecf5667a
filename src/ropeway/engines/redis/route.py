"""The way to the server that holds a partition: found, connected, proved safe; and found again when it is lost."""

from __future__ import annotations

import asyncio
import binascii
import logging
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from ropeway.domain.errors import EngineUnavailable
from ropeway.engines.redis.address import Address, Node
from ropeway.engines.redis.link import Link, LinkDown, Push, Refused

__all__ = ["Route", "Unsafe", "root_of", "slot_of"]

log = logging.getLogger("ropeway.engine")

SLOTS = 16_384
FIRST_WAIT_S, LAST_WAIT_S = 0.01, 1.0


class Unsafe(EngineUnavailable):
    """The server was reached, and must not be used as it is."""


def slot_of(tag: str) -> int:
    """A cluster's slot of the keys with this hash tag."""
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS


def root_of(address: Address, partition: int) -> str:
    """What every key of a partition begins with; its tag lies in the partition's own share of the slots."""
    wanted = range(partition * SLOTS // address.partitions, (partition + 1) * SLOTS // address.partitions)
    salt = 0
    while address.partitions > 1 and slot_of(_tag(partition, salt)) not in wanted:
        salt += 1
    return f"{address.prefix}:{{{_tag(partition, salt)}}}"


def _tag(partition: int, salt: int) -> str:
    return f"{partition}.{salt}" if salt else str(partition)


class Route:
    """Leads to one partition's server. `prove` looks at each new link before it is used, and may raise Unsafe."""

    def __init__(
        self,
        address: Address,
        tls: ssl.SSLContext | None,
        root: str,
        prove: Callable[[Link], Awaitable[None]] | None = None,
        on_push: Push | None = None,
    ) -> None:
        self.connects = 0
        self.lost_at_s = float("-inf")
        self._address = address
        self._tls = tls
        self._slot = slot_of(root[root.index("{") + 1 : root.index("}")])
        self._prove = prove
        self._on_push = on_push
        self._link: Link | None = None
        self._lock = asyncio.Lock()
        self._reason = "not connected yet"
        self._shut = False
        self._nodes = list(address.nodes)  # of a cluster: those that were met, too

    async def link(self, deadline_s: float) -> Link:
        """The live link, made anew if need be. Raises EngineUnavailable when there is none by then (loop time)."""
        link = self._link
        if link is not None and link.is_open:
            return link
        try:
            async with asyncio.timeout_at(deadline_s), self._lock:
                return await self._reconnect()
        except TimeoutError:
            raise EngineUnavailable(f"{self._address.masked} is not to be reached: {self._reason}") from None

    async def extra(self, on_push: Push | None = None) -> Link:
        """Another link to the same server, for calls that block. Raises LinkDown or Refused."""
        return await Link.connect(await self._find(), self._address, self._tls, on_push)

    def lost(self, link: Link, reason: str) -> None:
        """This link leads to a server that is not the right one any more."""
        link.close(reason)

    async def shut(self) -> None:
        self._shut = True
        if self._link is not None:
            self._link.close("the engine is shut")

    async def _reconnect(self) -> Link:
        """Try until there is a link: the caller's deadline ends it."""
        if self._link is not None and self._link.is_open:
            return self._link  # another caller made it while we waited
        if self._link is not None:
            self.lost_at_s = asyncio.get_running_loop().time()
        wait_s = FIRST_WAIT_S
        while not self._shut:
            try:
                return await self._connect()
            except (LinkDown, Refused) as error:
                self._reason = str(error)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - to come apart, not to be secret
            wait_s = min(wait_s * 2, LAST_WAIT_S)
        raise EngineUnavailable("the engine is shut")

    async def _connect(self) -> Link:
        link = await Link.connect(await self._find(), self._address, self._tls, self._on_push)
        try:
            if self._prove is not None:
                await self._prove(link)
        except BaseException:
            link.close("not used")
            raise
        self._link = link
        self.connects += 1
        return link

    async def _find(self) -> Node:
        """The server that is to be used now."""
        if self._address.topology == "one":
            return self._address.nodes[0]
        for node in tuple(self._nodes):
            try:
                link = await Link.connect(node, self._address, self._tls, bare=self._address.topology == "sentinel")
            except (LinkDown, Refused) as error:
                self._reason = str(error)
                continue
            try:
                found = await self._ask(link)
            finally:
                link.close()
            if found is not None:
                return found
        raise LinkDown(f"none of {', '.join(map(str, self._nodes))} knows the server: {self._reason}", sent=False)

    async def _ask(self, link: Link) -> Node | None:
        if self._address.topology == "sentinel":
            named = await link.do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.service)
            if named is None or isinstance(named, Refused):
                self._reason = f"{link.node} knows no service {self._address.service!r}"
                return None
            return Node(named[0], int(named[1]))
        shards: list[Any] | Refused = await link.do("CLUSTER", "SLOTS")
        if isinstance(shards, Refused):
            self._reason = f"{link.node}: {shards}"
            return None
        owners = [(first, last, Node(owner[0] or link.node.host, owner[1])) for first, last, owner, *_ in shards]
        self._nodes = list(dict.fromkeys([*(node for _, _, node in owners), *self._address.nodes]))
        return next((node for first, last, node in owners if first <= self._slot <= last), None)
