"""One connection to one server: commands go out in order, replies come back in order, hints come in between.

A reply belongs to the oldest command that has none: nobody can get another's. A caller that is cancelled leaves its
place in that order; a reply that is late, or that no command waits for, ends the connection. RESP3, so that hints come
over the same connection and a subscription stands before whatever is sent after it. The parser is hiredis'.

Ours rather than a client library's: a call through redis-py's asyncio client costs 75 us of CPU, through this 12, and a
job's way from submit to result is five of them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from ropeway.engines.redis.address import Address, Node

__all__ = ["Arg", "Link", "LinkDown", "Refused"]

_OF_SUBSCRIPTIONS = ("NOPERM", "MOVED", "ASK", "CLUSTERDOWN")  # what a server may say to one instead of a push
_CONFIRMED = frozenset({"ssubscribe", "sunsubscribe"})

Arg = str | bytes | int | float

Push = Callable[[list[Any]], None]

Refused = hiredis.ReplyError
"""The server's own error, given as a reply: it did not do what was asked."""


class LinkDown(Exception):
    """The connection is not there, or broke. `sent`: the command had gone out, and may have been carried out."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Link(asyncio.Protocol):
    """Made by `connect`. Everything in the loop that made it."""

    def __init__(self, node: Node, timeout_s: float, on_push: Push | None) -> None:
        self.node = node
        self.client_id = 0
        self.greeting: dict[str, Any] = {}
        self._timeout_s = timeout_s
        self._on_push = on_push
        self._reader = hiredis.Reader(encoding="utf-8", errors="surrogatepass")
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._transport: asyncio.Transport | None = None
        self._reason = "not connected"
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.TimerHandle | None = None
        self._unconfirmed = 0  # subscriptions asked for or given up whose push has not come
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @classmethod
    async def connect(
        cls,
        node: Node,
        address: Address,
        tls: ssl.SSLContext | None,
        on_push: Push | None = None,
        *,
        bare: bool = False,
    ) -> Link:
        """A link that has said hello. `bare`: to a sentinel, with its own credentials and no database.

        Raises LinkDown when there is no connection to be had, and Refused when the server refuses us.
        """
        link = cls(node, address.timeout_s, on_push)
        try:
            async with asyncio.timeout(address.timeout_s):
                await link._dial(tls)
                await link._say_hello(address, bare)
        except (OSError, TimeoutError, ssl.SSLError) as error:
            link.close(f"{node}: {error or 'no answer'}")
            raise LinkDown(f"{node}: {error or 'no answer in time'}", sent=False) from error
        except BaseException:
            link.close("hello failed")
            raise
        return link

    async def _dial(self, tls: ssl.SSLContext | None) -> None:
        if self.node.host.startswith("/"):
            await self._loop.create_unix_connection(lambda: self, self.node.host)
        else:
            await self._loop.create_connection(
                lambda: self, self.node.host, self.node.port, ssl=tls, server_hostname=self.node.host if tls else None
            )

    async def _say_hello(self, address: Address, bare: bool) -> None:
        user = address.sentinel_user if bare else address.user
        password = address.sentinel_password if bare else address.password
        auth: tuple[Arg, ...] = () if password is None else ("AUTH", user or "default", password)
        greeting = await self.do("HELLO", 3, *auth, "SETNAME", "ropeway")
        if isinstance(greeting, Refused):
            raise greeting
        self.greeting = greeting
        self.client_id = int(greeting["id"])
        if address.db and not bare:
            answer = await self.do("SELECT", address.db)
            if isinstance(answer, Refused):
                raise answer

    @property
    def reason(self) -> str:
        """Why it is closed."""
        return self._reason

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def do(self, *command: Arg, patience_s: float | None = None) -> asyncio.Future[Any]:
        """Send a command; its reply, a Refused among them. A reply later than the timeout ends the link.

        Raises LinkDown at once when the link is closed, and through the future when it breaks.
        """
        if self._transport is None or self._transport.is_closing():
            raise LinkDown(self._reason, sent=False)
        future: asyncio.Future[Any] = self._loop.create_future()
        due_s = self._loop.time() + (self._timeout_s if patience_s is None else patience_s)
        self._waiting.append((future, due_s))
        self._transport.write(_packed(command))
        if self._watch is None:
            self._watch = self._loop.call_at(due_s, self._look)
        return future

    def tell(self, *command: Arg) -> None:
        """Subscribe to one channel, or cease to: answered by a push. On a closed link: nothing."""
        if self._transport is not None and not self._transport.is_closing():
            self._unconfirmed += 1
            self._transport.write(_packed(command))

    def close(self, reason: str = "closed") -> None:
        """End the link. Commands without a reply fail with LinkDown, as sent."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()
        self._end()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                self._take(reply)
        except (hiredis.ProtocolError, LookupError) as error:
            self.close(f"the server broke the protocol: {error!r}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._reason = f"{self.node}: {exc or 'the server closed the connection'}" if self.is_ours else self._reason
        self._end()

    @property
    def is_ours(self) -> bool:
        """Whether nobody has closed the link from this side."""
        return self._reason == "not connected"

    def _take(self, reply: Any) -> None:
        if isinstance(reply, hiredis.PushNotification):
            if reply[0] in _CONFIRMED and self._unconfirmed > 0:
                self._unconfirmed -= 1
            elif reply[0] == "sunsubscribe":
                self.close(f"{self.node} holds the slot no more: it ended a subscription")  # and would let us wait
            elif self._on_push is not None:
                self._on_push(reply)
            return
        if self._unconfirmed > 0 and isinstance(reply, Refused) and str(reply).startswith(_OF_SUBSCRIPTIONS):
            # A refused subscription is told in the order of replies, where it would be taken for another call's.
            self.close(f"{self.node} refused a subscription, or a call beside it: {reply}")
            return
        future, _ = self._waiting.popleft()  # IndexError: a reply that nobody asked for
        if not future.done():
            future.set_result(reply)

    def _look(self) -> None:
        """End the link when its oldest command is overdue: the server hangs, or the line is half open."""
        self._watch = None
        if not self._waiting:
            return
        due_s = self._waiting[0][1]
        if due_s <= self._loop.time():
            self.close(f"{self.node} did not answer in {self._timeout_s:g} s")
        else:
            self._watch = self._loop.call_at(due_s, self._look)

    def _end(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        waiting, self._waiting = self._waiting, deque()
        for future, _ in waiting:
            if not future.done():
                future.set_exception(LinkDown(self._reason, sent=True))
                future.exception()  # the caller may be gone
        if not self.closed.done():
            self.closed.set_result(None)


def _packed(command: tuple[Arg, ...]) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means a tuple of one
    return packed
