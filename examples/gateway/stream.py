"""A job's log as the example's own event stream: `token`, then `result` or `error`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
from starlette.types import Receive, Scope, Send

from ropeway import Event

__all__ = ["AnswerStream"]

HEARTBEAT_S = 15.0  # a comment now and then keeps proxies from dropping a request that waits in line

_encode = msgspec.json.encode


class AnswerStream:
    """An answer with status 200 whose body is what the events say.

    Args:
        request_id: in a header, and in every event.
        events: of the job, from where the reader is.
        left: called when the reader leaves before the end.
    """

    def __init__(self, request_id: str, events: AsyncIterator[Event], left: Callable[[], Awaitable[None]]) -> None:
        self._id = request_id
        self._events = events
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache, no-transform"),
            (b"x-accel-buffering", b"no"),
            (b"x-request-id", self._id.encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        writing = asyncio.ensure_future(self._write(send))
        leaving = asyncio.ensure_future(_gone(receive))
        beating = asyncio.ensure_future(_beat(send))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                await self._left()
                return
            beating.cancel()
            writing.result()
            await send({"type": "http.response.body", "body": b""})
        finally:
            for task in (writing, leaving, beating):
                task.cancel()

    async def _write(self, send: Send) -> None:
        async for event in self._events:
            if block := _block(self._id, event):
                await send({"type": "http.response.body", "body": block, "more_body": True})


def _block(request_id: str, event: Event) -> bytes | None:
    """The event as its readers get it; None for those that say nothing to them."""
    data = event.data
    match event.type:
        case "output.delta" if isinstance(data["delta"], str):
            name, told = "token", {"text": data["delta"]}
        case "output.reset":
            name, told = "reset", {"reason": data.get("reason")}
        case "job.succeeded":
            name, told = "result", {"output": data["output"], "usage": data["usage"], "timings": data["timings"]}
        case "job.failed":
            error = data["error"]
            name, told = "error", {"code": error["code"], "message": error["message"]}
        case "job.cancelled":
            name, told = "error", {"code": "cancelled", "message": data["cancel_reason"] or "it was cancelled"}
        case _:
            return None
    body = _encode({"request_id": request_id, **told})
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), name.encode(), body)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _beat(send: Send) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        await send({"type": "http.response.body", "body": b": hb\n", "more_body": True})
