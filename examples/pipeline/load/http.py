"""A small HTTP/1.1 client for load: keep-alive connections, one request at a time on each, no frills.

httpx spends about a millisecond of CPU a request, which on a small machine would measure the client. This one spends
a few dozen microseconds. It knows what the pipeline's server sends: a length, or chunks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

__all__ = ["Answer", "Pool"]

HEAD_END = b"\r\n\r\n"
HEAD_LIMIT = 64 * 1024


class Answer(NamedTuple):
    """A response: `headers` by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        return msgspec.json.decode(self.body, type=dict[str, object])


class Pool:
    """At most `size` connections to one server, made when first needed and again when the server closed them."""

    def __init__(self, url: str, size: int) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// URL with a host")
        self.url = url
        self._host, self._port = parts.hostname, parts.port or 80
        self._base = parts.path.rstrip("/")
        self._authority = parts.netloc.rpartition("@")[2]
        self._free: list[_Connection] = []
        self._turn = asyncio.Semaphore(size)

    async def request(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Answer:
        """Send a request and read its answer. Raises OSError when the server cannot be reached or breaks off."""
        head = f"{method} {self._base}{path} HTTP/1.1\r\nHost: {self._authority}\r\n"
        if body:
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        async with self._connection() as connection:
            return await connection.exchange(f"{head}\r\n".encode() + body)

    async def get(self, path: str) -> Answer:
        return await self.request("GET", path)

    def close(self) -> None:
        for connection in self._free:
            connection.close()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        async with self._turn:
            while self._free and self._free[-1].closed:
                self._free.pop()
            connection = self._free.pop() if self._free else await self._connect()
            try:
                yield connection
            except BaseException:
                connection.close()  # what it would read next belongs to the request that was given up
                raise
            self._free.append(connection)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port)
        return connection


class _Connection(asyncio.Protocol):
    """One socket: what comes in is collected until the answer is whole."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._inbox = bytearray()
        self._waiter: asyncio.Future[Answer] | None = None

    async def exchange(self, message: bytes) -> Answer:
        if self.closed or self._transport is None:
            raise ConnectionError("the connection is closed")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return await self._waiter

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._inbox += data
        try:
            answer = _parse(self._inbox)
        except ValueError as error:
            self._settle(ConnectionError(f"not an HTTP answer: {error}"))
            self.close()
            return
        if answer is None:
            return
        self._inbox.clear()
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        self._settle(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._settle(ConnectionError(f"the server closed the connection{f': {exc}' if exc else ''}"))

    def _settle(self, outcome: Answer | ConnectionError) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if isinstance(outcome, Answer):
            waiter.set_result(outcome)
        else:
            waiter.set_exception(outcome)


def _parse(inbox: bytearray) -> Answer | None:
    """The answer in `inbox`, or None while it is not whole. Raises ValueError for what is no answer."""
    end = inbox.find(HEAD_END)
    if end < 0:
        if len(inbox) > HEAD_LIMIT:
            raise ValueError("its head does not end")
        return None
    first, *lines = inbox[:end].decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(first.split(" ", 2)[1])
    start = end + len(HEAD_END)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _unchunked(inbox, start)
    else:
        length = 0 if status in (204, 304) else int(headers.get("content-length", "missing"))
        body = bytes(inbox[start : start + length]) if len(inbox) >= start + length else None
    return None if body is None else Answer(status, headers, body)


def _unchunked(inbox: bytearray, start: int) -> bytes | None:
    body = bytearray()
    while True:
        line_end = inbox.find(b"\r\n", start)
        if line_end < 0:
            return None
        size = int(inbox[start:line_end].split(b";")[0], 16)
        start = line_end + 2
        if len(inbox) < start + size + 2:
            return None
        if size == 0:
            return bytes(body)
        body += inbox[start : start + size]
        start += size + 2
