"""The HTTP server of a gateway: uvicorn, in the loop that runs the rest, with connections of our own kind.

Measured on 2 cores in one process, this | granian 2.8 embedded, HTTP/1 only: an echo to 64 connections 12-15k | 14-18k
requests/s at 77 | 84 us of CPU; 1,000 streams of 20 tokens/s 4.7-5.4 | 3.9-5.8 s of CPU in 5 s, 20 | 30 KiB a stream
with its reader. Both hold a slow reader back and see a client leave within 1 ms. What decided: granian's threads
outlive its stop and abort the interpreter as it ends (exit -6, about every other time), and its embedded form is
declared experimental; deadlines for a head, which uvicorn lacks, took fifty lines.

1. The socket is ours: so its port is known before anyone connects, it may be a Unix one, and the kernel itself drops a
   peer that takes nothing for the stall deadline (TCP_USER_TIMEOUT), also when what it does not take is buffered.
2. uvicorn's own signal handling is off: whoever runs the loop decides what a signal means.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import uvicorn

from ropeway.serving.app import Gateway
from ropeway.serving.connection import connection_class
from ropeway.serving.websocket.connection import websocket_class

__all__ = ["Server", "ServerOptions", "serve"]


class ServerOptions(msgspec.Struct, frozen=True):
    """How a server treats its peers.

    Attributes:
        header_deadline_s: for a request's whole head to arrive.
        max_header_bytes: of a request's head.
        idle_s: how long a connection is kept between two requests; above what balancers keep (60 s or so), since one
            that we close as they send is an error to them.
        stall_deadline_s: a peer that acknowledges nothing for so long is dropped by the kernel (Linux).
        ping_s: a WebSocket that is quiet for so long is pinged; one that does not answer is dropped as much later.
        drain_grace_s: at a stop, for what is being answered.
        backlog: connections that the kernel holds until they are accepted.
    """

    header_deadline_s: float = 10.0
    max_header_bytes: int = 16_384
    idle_s: float = 75.0
    stall_deadline_s: float = 30.0
    ping_s: float = 20.0  # proxies that drop quiet connections wait 60 s or so; a page cannot ping by itself
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
        self._running = asyncio.get_running_loop().create_task(self._embedded.go())

    async def stop(self) -> None:
        """Drain, and listen no more."""
        await self._gateway.drain(self._options.drain_grace_s)
        if self._embedded is not None and self._running is not None:
            self._embedded.stop()
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


class _Embedded(uvicorn.Server):
    """uvicorn on a socket that is open already, in a loop whose signals are not its own."""

    def __init__(self, gateway: Gateway, listening: socket.socket, options: ServerOptions) -> None:
        kind: Any = connection_class(options.header_deadline_s, options.max_header_bytes)
        socket_kind: Any = websocket_class(gateway.options.max_body_bytes, options.ping_s)
        super().__init__(
            uvicorn.Config(
                gateway,
                http=kind,
                ws=socket_kind,
                interface="asgi3",
                lifespan="off",
                log_config=None,
                log_level=logging.CRITICAL,  # it warns of every malformed request and of every reader let go
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=options.backlog,
                timeout_keep_alive=round(options.idle_s),
                timeout_graceful_shutdown=1,  # the gateway has drained: what is left has had its time
            )
        )
        self._listening = listening

    async def go(self) -> None:
        await self.serve(sockets=[self._listening])

    def stop(self) -> None:
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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
