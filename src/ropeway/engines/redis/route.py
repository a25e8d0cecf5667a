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

__all__ = ["Route", "Unreachable", "Unsafe", "root_of", "slot_of"]

log = logging.getLogger("ropeway.engine")

SLOTS = 16_384
_NO_ENTRY = ("NOAUTH", "NOPERM", "WRONGPASS")  # to ask again would not help
FIRST_WAIT_S, LAST_WAIT_S = 0.01, 0.5  # between two tries to connect


class Unreachable(EngineUnavailable):
    """No server was reached in time; nothing was sent."""


class Unsafe(Unreachable):
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
    """Leads to one partition's server.

    `prove` looks at each new link before it is used, and may raise Unsafe. A link that was lost is made again by one
    task for all who wait, which goes on when they have given up. `lost_at_s`: when a server was last found to be lost.
    """

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
        self._away_at_s = 0.0
        self._address = address
        self._tls = tls
        self._slot = slot_of(root[root.index("{") + 1 : root.index("}")])
        self._prove = prove
        self._on_push = on_push
        self._link: Link | None = None
        self._making: asyncio.Task[Link] | None = None
        self._reason = "not connected yet"
        self._shut = False
        self._nodes = list(address.nodes)  # of a cluster: those that were met, too

    async def link(self, deadline_s: float) -> Link:
        """The live link, made anew if need be. Raises EngineUnavailable when there is none by then (loop time)."""
        link = self._link
        if link is not None and link.is_open:
            return link
        if self._shut:
            raise EngineUnavailable("the engine is shut")
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._make())
            self._making.add_done_callback(_look_at)
            self._away_at_s = asyncio.get_running_loop().time()
        making = self._making
        await asyncio.wait({making}, timeout=max(deadline_s - asyncio.get_running_loop().time(), 0))
        if not making.done():
            raise Unreachable(f"{self._address.masked} is not to be reached: {self._reason}")
        if making.cancelled():
            raise EngineUnavailable("the engine is shut")
        error = making.exception()
        if isinstance(error, EngineUnavailable):
            raise type(error)(error.detail) from error  # one for each caller: a traceback belongs to one
        return making.result()

    @property
    def away_for_s(self) -> float:
        """For how long a link has been looked for; 0 when there is one, or nobody looks."""
        if self._making is None or self._making.done():
            return 0.0
        return asyncio.get_running_loop().time() - self._away_at_s

    @property
    def timeout_s(self) -> float:
        """How long a reply may take."""
        return self._address.timeout_s

    @property
    def current(self) -> Link | None:
        """The link that was used last; it may be closed."""
        return self._link

    @property
    def node(self) -> Node | None:
        """The server that the last link led to."""
        return None if self._link is None else self._link.node

    async def extra(self, on_push: Push | None = None) -> Link:
        """Another link to the same server, for calls that block. Raises LinkDown or Refused."""
        return await Link.connect(await self._find(), self._address, self._tls, on_push)

    def lost(self, link: Link, reason: str) -> None:
        """This link leads to a server that is not the right one any more."""
        link.close(reason)

    def stalled(self) -> None:
        """The server was found to have stood still: for those who count from its last loss, it was away."""
        self.lost_at_s = asyncio.get_running_loop().time()

    async def shut(self) -> None:
        self._shut = True
        if self._making is not None:
            self._making.cancel()
            await asyncio.wait({self._making})
        if self._link is not None:
            self._link.close("the engine is shut")

    async def _make(self) -> Link:
        """Try until there is a link, or a server that must not be used."""
        if self._link is not None:
            self._reason = self._link.reason
            self.stalled()
        wait_s = FIRST_WAIT_S
        while True:
            try:
                return await self._connect()
            except (LinkDown, Refused) as error:
                self._reason = str(error)
                if self._reason.startswith(_NO_ENTRY):
                    raise Unsafe(f"{self._address.masked} lets us not in: {self._reason}") from error
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - to come apart, not to be secret
            wait_s = min(wait_s * 2, LAST_WAIT_S)

    async def _connect(self) -> Link:
        link = await Link.connect(await self._find(), self._address, self._tls, self._on_push)
        try:
            if self._prove is not None:
                await self._prove(link)
        except BaseException:
            link.close("not used")
            raise
        if self._link is not None:
            self.stalled()  # it was away until now
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


def _look_at(making: asyncio.Task[Link]) -> None:
    """Who waited may have given up: what went wrong is known all the same."""
    if not making.cancelled():
        making.exception()
