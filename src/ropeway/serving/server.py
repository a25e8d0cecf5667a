"""The HTTP server of a gateway: granian, embedded in the loop that runs the rest.

Measured on 2 cores, one process, 64 connections, a 1 KiB echo (granian 2.8 embedded, HTTP/1 only | uvicorn 0.54 with
httptools): 14-18k | 12-15k requests/s at 84 | 77 us of CPU, 27 | 44 us a streamed chunk, 17 | 10 KiB an open stream.
Both hold a slow reader back and see a client leave within 1 ms; granian alone drops a trickled header and a huge one.

1. HTTP/1 only: telling the versions apart costs 13 KiB a connection, and waits for a silent client without end.
2. The socket is ours: so its port is known, it may be a Unix one, and the kernel itself drops a peer that takes nothing
   for the write deadline (TCP_USER_TIMEOUT), which no server does for a response that it has buffered.
3. The deadline for a header is also that for the next request on a kept-alive connection. Behind a balancer that keeps
   connections longer than 10 s, raise it above the balancer's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.embed import Server as EmbeddedServer

from ropeway.serving.app import Gateway

__all__ = ["Server", "ServerOptions", "serve"]

_ROOM_BESIDE_STREAMS = 1_024  # requests in flight besides the streams that a gateway may have open


class ServerOptions(msgspec.Struct, frozen=True):
    """How a server treats its peers.

    Attributes:
        header_deadline_s: for a request's whole head to arrive, and for the next on a connection.
        max_header_bytes: of a request's head; 8,192 at the least.
        stall_deadline_s: a peer that acknowledges nothing for so long is dropped by the kernel (Linux).
        drain_grace_s: at a stop, for what is being answered.
        backlog: connections that the kernel holds until they are accepted.
    """

    header_deadline_s: float = 10.0
    max_header_bytes: int = 16_384
    stall_deadline_s: float = 30.0
    drain_grace_s: float = 10.0
    backlog: int = 1_024


class Server:
    """A gateway on a socket. `async with` it: it listens inside, and has drained after.

    Args:
        gateway: started and stopped here.
        host, port: where to listen; port 0 takes a free one, which `port` tells.
        uds: a Unix socket's path to listen on instead; only this user may connect.

    Raises OSError when the address cannot be had.
    """

    def __init__(
        self,
        gateway: Gateway,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        uds: Path | None = None,
        options: ServerOptions | None = None,
    ) -> None:
        self._gateway = gateway
        self._host = host
        self._port = port
        self._uds = uds
        self._options = options or ServerOptions()
        self._embedded: _Embedded | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that it listens on; 0 on a Unix socket."""
        return self._port

    @property
    def url(self) -> str:
        """Where a client finds it."""
        if self._uds is not None:
            return f"unix:{self._uds}"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Listen."""
        listening = self._listen()
        await self._gateway.start()
        self._embedded = _Embedded(self._gateway, listening, self._options)
        self._running = asyncio.get_running_loop().create_task(self._embedded.serve())

    async def stop(self) -> None:
        """Drain, and listen no more."""
        await self._gateway.drain(self._options.drain_grace_s)
        if self._embedded is not None and self._running is not None:
            self._embedded.stop()  # type: ignore[no-untyped-call]
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
            self._embedded = self._running = None
        await self._gateway.stop()
        if self._uds is not None:
            self._uds.unlink(missing_ok=True)

    async def failed(self) -> None:
        """Until the server ends by itself, which it does not unless something is wrong."""
        if self._running is not None:
            await asyncio.wait([self._running])
            self._running.result()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _listen(self) -> socket.socket:
        if self._uds is not None:
            return _unix_socket(self._uds, self._options)
        listening = _tcp_socket(self._host, self._port, self._options)
        self._port = listening.getsockname()[1]
        return listening


async def serve(
    gateway: Gateway,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    uds: Path | None = None,
    options: ServerOptions | None = None,
    stopping: asyncio.Event | None = None,
    on_ready: Callable[[Server], None] | None = None,
) -> None:
    """Serve a gateway until `stopping` is set; without one, until SIGTERM or SIGINT.

    `on_ready` is called once it listens, with the server, which knows its port and URL. At the end streams are asked
    to come back elsewhere and what is being answered is finished; a second signal ends the process as it would without
    us. Raises OSError when the address cannot be had.
    """
    with _signals(stopping) as stop:
        async with Server(gateway, host, port, uds=uds, options=options) as server:
            if on_ready is not None:
                on_ready(server)
            waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(server.failed())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if waits[1].done():
                    waits[1].result()
            finally:
                for wait in waits:
                    wait.cancel()


class _Embedded(EmbeddedServer):
    """granian's embedded server on a socket that is open already."""

    _shd: Any

    def __init__(self, gateway: Gateway, listening: socket.socket, options: ServerOptions) -> None:
        super().__init__(
            gateway,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=options.backlog,
            backpressure=gateway.options.max_streams + _ROOM_BESIDE_STREAMS,
            http1_settings=HTTP1Settings(
                header_read_timeout=round(options.header_deadline_s * 1000),
                max_buffer_size=options.max_header_bytes,
            ),
            log_enabled=False,
        )
        self._listening = listening

    def _init_shared_socket(self) -> None:
        is_unix = self._listening.family == socket.AF_UNIX
        self._ssp = None
        self._shd = SocketHolder(self._listening.detach(), is_unix, self.backlog)  # type: ignore[call-arg]


class _signals(contextlib.AbstractContextManager[asyncio.Event]):  # noqa: N801 - used as a word
    """The event to stop at: the one given, or one that the first SIGTERM or SIGINT sets."""

    def __init__(self, stopping: asyncio.Event | None) -> None:
        self._event = stopping or asyncio.Event()
        self._watched = () if stopping is not None else (signal.SIGTERM, signal.SIGINT)

    def __enter__(self) -> asyncio.Event:
        loop = asyncio.get_running_loop()
        for number in self._watched:
            with contextlib.suppress(NotImplementedError, RuntimeError):  # not on Windows, not beside the main thread
                loop.add_signal_handler(number, self._stop)
        return self._event

    def __exit__(self, *_: object) -> None:
        self._let_go()

    def _stop(self) -> None:
        self._event.set()
        self._let_go()

    def _let_go(self) -> None:
        loop = asyncio.get_running_loop()
        for number in self._watched:
            with contextlib.suppress(NotImplementedError, RuntimeError):
                loop.remove_signal_handler(number)


def _tcp_socket(host: str, port: int, options: ServerOptions) -> socket.socket:
    """A listening socket whose connections inherit what is set here (Linux)."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            stall_ms = round(options.stall_deadline_s * 1000)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stall_ms)
        listening.bind(address)
        listening.listen(options.backlog)
    except OSError:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


def _unix_socket(path: Path, options: ServerOptions) -> socket.socket:
    """A listening Unix socket for this user only. A file that nobody listens behind any more is replaced."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and not _answers(path):
            path.unlink()
        before = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        listening.listen(options.backlog)
    except OSError:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True
