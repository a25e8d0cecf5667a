"""What an HTTP/2 connection needs so that one stopped call neither goes on at the provider nor harms the others.

1. httpx2 forgets a stream whose reader leaves, and says nothing: the provider goes on generating, which somebody pays
   for, and what it still sends fills the window that all streams of the connection share. The streams that the pool has
   forgotten are reset here.
2. A task that is cancelled while it writes leaves half a TLS record, and with it a broken connection for everybody on
   it. Reading tasks write too, acknowledgements, so that is no rare thing. Here a write that has begun is finished.

Both take a look at httpx2's inside. A version that looks otherwise there is told of in the log; calls work with it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpcore2
import httpx2
from h2.errors import ErrorCodes

__all__ = ["keep_writes_whole", "reset_abandoned"]

WRITE_S = 5.0

_log = logging.getLogger("ropeway.models")


def keep_writes_whole(transport: httpx2.AsyncHTTPTransport) -> None:
    """Let no cancel come between the halves of a write, on all connections of this pool."""
    if hasattr(transport._pool, "_network_backend"):
        transport._pool._network_backend = _WholeWrites()
    else:
        _log.warning("a stopped call may break others of its connection: this httpx2 has its connections elsewhere")


async def reset_abandoned(transport: httpx2.AsyncHTTPTransport) -> None:
    """Reset the streams of this pool that nobody reads and that have not ended. Never raises."""
    try:
        for connection in _http2_connections(transport):
            abandoned = _abandoned(connection)
            for stream_id in abandoned:
                connection._h2_state.reset_stream(stream_id, ErrorCodes.CANCEL)
            if abandoned:
                await connection._write_outgoing_data(SimpleNamespace(extensions={"timeout": {"write": WRITE_S}}))
    except AttributeError as error:
        _log.warning("stopped calls go on at the provider: this httpx2 cannot be told to reset them (%s)", error)
    except Exception as error:  # the connection is gone, and with it what was to be reset
        _log.debug("a stream was not reset: %s", error)


def _http2_connections(transport: httpx2.AsyncHTTPTransport) -> Iterator[Any]:
    for held in transport._pool.connections:
        connection = getattr(held, "_connection", None)
        if hasattr(connection, "_h2_state"):
            yield connection


def _abandoned(connection: Any) -> list[int]:
    streams = connection._h2_state.streams
    return [id_ for id_, stream in streams.items() if not stream.closed and id_ not in connection._events]


class _WholeWrites(httpcore2.AnyIOBackend):
    """The usual network, over `_Stream`."""

    async def connect_tcp(self, *args: Any, **settings: Any) -> httpcore2.AsyncNetworkStream:
        return _Stream(await super().connect_tcp(*args, **settings))


class _Stream(httpcore2.AsyncNetworkStream):
    """A connection on which a write, once begun, is finished before its task may be cancelled."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        writing = asyncio.ensure_future(self._inner.write(buffer, timeout))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        return _Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
