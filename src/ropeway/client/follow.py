"""Following a job's log over HTTP: server-sent events, resumed by the last id for as long as it takes."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing

import httpx
import msgspec

from ropeway.client.patience import Sleep
from ropeway.client.problems import error_of
from ropeway.client.sse import Block, SseReader
from ropeway.client.wire import EventBody
from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.event import TERMINAL_TYPES
from ropeway.domain.retry import Retry, backoff_s

__all__ = ["WAIT_PERSISTENCE", "Connect", "follow"]

WAIT_PERSISTENCE = Retry(max_attempts=15, base_s=0.1, cap_s=5.0)
"""For who waits anyway: about half a minute without any contact, long enough for a deploy."""

Connect = Callable[[str | None], AbstractAsyncContextManager[httpx.Response]]
"""Opens the stream strictly after an event id."""


class _Reconnect(Exception):
    """The stream is to be opened again, not before so many seconds from now."""

    def __init__(self, after_s: float | None = None) -> None:
        self.after_s = after_s


async def follow(connect: Connect, after: str | None, sleep: Sleep) -> AsyncIterator[EventBody]:
    """Events strictly after `after`, each once, up to and with the terminal one.

    Raises what the gateway refuses the stream with, and EngineUnavailable when it stays out of reach.
    """
    failures = 0
    while True:
        try:
            async with aclosing(_one_stream(connect, after)) as events:
                async for event in events:
                    yield event
                    after, failures = event.id, 0
                    if event.type in TERMINAL_TYPES:
                        return
            return
        except _Reconnect as asked:
            wait_s = asked.after_s
        except (httpx.TransportError, EngineUnavailable) as error:
            if failures + 1 >= WAIT_PERSISTENCE.max_attempts:
                raise EngineUnavailable(f"lost the event stream, and it does not come back: {error}") from error
            wait_s = getattr(error, "retry_after_s", None)
        failures += 1
        await sleep(backoff_s(WAIT_PERSISTENCE, failures, random.random(), wait_s))  # noqa: S311 - jitter only


async def _one_stream(connect: Connect, after: str | None) -> AsyncGenerator[EventBody, None]:
    """The events of one connection. Ends when the log has; raises _Reconnect when only the connection has."""
    async with connect(after) as response:
        if response.status_code == httpx.codes.NO_CONTENT:
            return
        if response.status_code != httpx.codes.OK:
            raise error_of(response.status_code, response.headers, await response.aread())
        reader = SseReader()
        async for chunk in response.aiter_bytes():
            for block in reader.feed(chunk):
                yield _event(block)
    raise _Reconnect


def _event(block: Block) -> EventBody:
    if block.event == "reconnect":
        raise _Reconnect(msgspec.json.decode(block.data).get("after_ms", 0) / 1000)
    return msgspec.json.decode(block.data, type=EventBody)
