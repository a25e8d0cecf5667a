"""Readers of event streams: many in one process, each counting its tokens and how late they come.

A token says when it was made, on the clock that all processes of a machine share: `t<monotonic ns>;`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Any

import uvloop

from benchmarks.driver import Spec, emit, main, stopped
from benchmarks.measure import cpu_s, quantile, raise_file_limit
from benchmarks.web.load import request_bytes

__all__: list[str] = []

_HOST = "127.0.0.1"
_TOKEN = re.compile(rb"t(\d+);")
_END = re.compile(rb"event: job\.(succeeded|failed|cancelled)")
_OPENING_AT_ONCE = 100  # connections under way together: a listening socket's backlog is finite


class Reader(asyncio.Protocol):
    """One reader: sends its request, then counts what comes until the terminal event."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._rest = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.sent_at = 0.0
        self.tokens = self.bytes = 0
        self.lags_ms: list[float] = []

    def connection_made(self, transport: Any) -> None:
        self.sent_at = time.monotonic()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.bytes += len(data)
        if not self.opened.done():
            self.opened.set_result(None)
        text = _unchunked(self._rest + data)
        cut = text.rfind(b"\n\n") + 2  # events that are whole; the rest waits for what comes next
        if cut < 2:
            self._rest = text
            return
        whole, self._rest = text[:cut], text[cut:]
        last = _END.search(whole)
        made = _TOKEN.findall(whole, 0, last.start() if last else len(whole))  # the last event repeats all of them
        self.tokens += len(made)
        self.lags_ms += [(now - int(at)) / 1e6 for at in made]
        if last is not None and not self.ended.done():
            self.ended.set_result(last[0].decode())

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionError("closed before an answer"))
        if not self.ended.done():
            self.ended.set_result(f"lost: {error}")


def _unchunked(data: bytes) -> bytes:
    """The text without the frames of chunked transfer: a size in hexadecimal on a line of its own."""
    return _FRAME.sub(b"", data)


_FRAME = re.compile(rb"\r\n[0-9a-fA-F]+\r\n|^[0-9a-fA-F]+\r\n")


async def _read(spec: Spec) -> Mapping[str, Any]:
    """Submit and read `streams` streams to their end."""
    begin_cpu_s = cpu_s()
    readers = await _open(spec)
    emit("ready")
    ends = await asyncio.gather(*(reader.ended for reader in readers))
    end_at = time.monotonic()
    lags = sorted(lag for reader in readers for lag in reader.lags_ms)
    slowest = max((max(reader.lags_ms[-20:], default=0.0) for reader in readers), default=0.0)
    return {
        "tokens": sum(reader.tokens for reader in readers),
        "least": min(reader.tokens for reader in readers),
        "wall_s": end_at - min(reader.sent_at for reader in readers),  # a short stream may end before all are open
        "cpu_s": cpu_s() - begin_cpu_s,
        "bytes": sum(reader.bytes for reader in readers),
        "lag_p50_ms": quantile(lags, 0.5) if lags else 0.0,
        "lag_p99_ms": quantile(lags, 0.99) if lags else 0.0,
        "last_lag_ms": slowest,
        "ends": sorted(set(ends)),
    }


async def _hold(spec: Spec) -> Mapping[str, Any]:
    """Open `streams` streams and keep them until told to stop."""
    readers = await _open(spec)
    emit("ready")
    await asyncio.to_thread(stopped.wait)
    return {"open": sum(not reader.ended.done() for reader in readers)}


async def _open(spec: Spec) -> list[Reader]:
    raise_file_limit()
    request = request_bytes(spec["path"], spec["body"], "text/event-stream")
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(_OPENING_AT_ONCE)

    async def one() -> Reader:
        async with gate:
            _, reader = await loop.create_connection(lambda: Reader(request), _HOST, spec["port"])
            await reader.opened
        return reader

    return list(await asyncio.gather(*(one() for _ in range(spec["streams"]))))


def read(spec: Spec) -> Mapping[str, Any]:
    """As `_read`."""
    return uvloop.run(_read(spec))


def hold(spec: Spec) -> Mapping[str, Any]:
    """As `_hold`."""
    return uvloop.run(_hold(spec))


if __name__ == "__main__":
    main({"read": read, "hold": hold})
