"""An answer that is on its way: a provider's stream as pieces, held to its limits of size and time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

import httpx2

from ropeway.domain.chat import ChatDelta
from ropeway.domain.clock import Clock
from ropeway.models.events import EventReader, LineTooLong
from ropeway.models.options import UpstreamOptions
from ropeway.models.refusals import Refused, in_stream_refusal
from ropeway.models.wire import Garbled, pieces_of, read_chunk

__all__ = ["ERROR_READ_BYTES", "Answer", "read_whole"]

ERROR_READ_BYTES = 16 * 1024  # read of a refusal, to find its message in; far less is told
USAGE_S = 5.0  # after an answer's end its counts follow at once, or never

_DONE = b"[DONE]"
_EVENT_STREAM = "text/event-stream"


class Answer:
    """The stream of one chat call. `used` is what it took, as far as the provider has said so.

    Every fault is a Refused: before the first piece another try may follow, after it the job has failed.
    """

    def __init__(self, response: httpx2.Response, options: UpstreamOptions, clock: Clock) -> None:
        self.used: dict[str, int] = {}
        self._chunks = response.aiter_raw()
        self._kind = _media_type(response)
        self._encoding = response.headers.get("content-encoding", "identity")
        self._options = options
        self._clock = clock
        self._ends_at_s = clock.monotonic_s() + options.total_s
        self._events = EventReader(options.max_line_bytes)
        self._ready: deque[str | ChatDelta] = deque()
        self._bytes = 0
        self._finished = False
        self._closed = False
        self._fault: Refused | None = None

    async def begin(self) -> None:
        """Until the first piece is here, or the answer ended without one; its caller holds the time. Raises Refused."""
        if self._kind != _EVENT_STREAM or self._encoding != "identity":
            raise Refused(
                f"the provider answered {self._kind[:80]!r}, and was asked for a plain event stream", again=False
            )
        while not (self._ready or self._finished or self._closed):
            await self._advance()
        if self._fault is not None:  # nobody has seen what came before it
            raise self._fault

    async def pieces(self) -> AsyncGenerator[str | ChatDelta, None]:
        """The answer from its first piece on. Raises Refused, after the last piece that came."""
        while True:
            while self._ready:
                yield self._ready.popleft()
            if self._fault is not None:
                raise self._fault
            if self._closed:
                return
            await self._advance_in_time()

    async def _advance_in_time(self) -> None:
        if self._clock.monotonic_s() > self._ends_at_s:
            self._close(Refused(f"the provider's answer took longer than {self._options.total_s:g} s"))
            return
        limit_s = min(self._options.idle_s, USAGE_S) if self._finished else self._options.idle_s
        try:
            async with asyncio.timeout(limit_s):
                await self._advance()
        except TimeoutError:
            self._cut(f"nothing came for {limit_s:g} s")

    async def _advance(self) -> None:
        """Read once, and take in what came."""
        try:
            chunk = await anext(self._chunks, b"")
            if not chunk:
                self._cut("it ended early")
            for data in self._events.feed(self._counted(chunk)):
                self._take(data)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            self._cut(type(error).__name__)
        except (LineTooLong, Garbled) as error:
            self._close(Refused(str(error)))
        except Refused as refused:
            self._close(refused)

    def _take(self, data: bytes) -> None:
        if self._closed:
            return
        if data == _DONE:
            self._cut("it ended early")
            return
        chunk = read_chunk(data)
        if chunk.error is not None:
            raise in_stream_refusal(chunk.error)
        if chunk.usage is not None:
            self.used = chunk.usage.amounts()
        self._ready.extend(pieces_of(chunk))
        self._finished = self._finished or chunk.finished

    def _counted(self, chunk: bytes) -> bytes:
        self._bytes += len(chunk)
        if self._bytes > self._options.max_answer_bytes:
            raise Refused(f"the provider's answer is larger than {self._options.max_answer_bytes} bytes")
        return chunk

    def _cut(self, how: str) -> None:
        """The stream is over. One that did not say before that its answer was at an end is at fault."""
        self._close(None if self._finished else Refused(f"the provider's answer was cut off: {how}"))

    def _close(self, fault: Refused | None) -> None:
        self._fault, self._closed = self._fault or fault, True


async def read_whole(response: httpx2.Response, limit_bytes: int, *, whole: bool = True) -> bytes:
    """The body, up to a limit: beyond it Refused is raised, or the rest is left out when it need not be `whole`."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Refused("the provider compressed its answer, and was asked not to", again=False)
    body = bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > limit_bytes:
                if whole:
                    raise Refused(f"the provider's answer is larger than {limit_bytes} bytes")
                break
    except (httpx2.HTTPError, httpx2.StreamError) as error:
        if whole:
            raise Refused(f"the provider's answer was cut off: {type(error).__name__}") from None
    return bytes(body[:limit_bytes])


def _media_type(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()
