"""What a gateway's routes are compared with, on the same server: applications that store nothing.

`bare` is ASGI and nothing else: it reads a submit's body, decodes it and answers 202 with it, and it streams tokens
straight from a generator in its own process. `framework` is a plain FastAPI route with a pydantic model, `streaming`
one that returns a StreamingResponse, as FastAPI's own documents do it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from benchmarks.work import tokens

__all__ = ["bare", "framework", "streaming"]

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON = [(b"content-type", b"application/json")]
_SSE = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache, no-transform")]


class Body(msgspec.Struct):
    """A submit as the bare application reads it."""

    task: str
    input: dict[str, Any]


class Submit(BaseModel):
    """A submit as the FastAPI route reads it."""

    task: str
    input: dict[str, Any]


_decode = msgspec.json.Decoder(Body).decode
_encode = msgspec.json.Encoder().encode


async def bare(scope: Message, receive: Receive, send: Send) -> None:
    """Echo a POST; stream where the request accepts an event stream."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    body = _decode(await _body(receive))
    if (b"accept", b"text/event-stream") in scope["headers"]:
        await _stream(body, send)
        return
    answer = _encode(body)
    headers = [*_JSON, (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


framework = FastAPI()


@framework.post("/v1/jobs", status_code=202)
async def submit(body: Submit) -> Submit:
    return body


streaming = FastAPI()


@streaming.post("/v1/jobs")
async def stream(body: Submit) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        async for token in tokens(**body.input):
            yield f"event: output.delta\ndata: {token}\n\n"
        yield "event: job.succeeded\ndata: {}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def _stream(body: Body, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _SSE})
    source: AsyncIterator[str] = tokens(**body.input)
    number = 0
    async for token in source:
        number += 1
        data = _encode({"index": number, "delta": token})
        await send(_part(b"id: %d\nevent: output.delta\ndata: %b\n\n" % (number, data)))
    await send(_part(b"event: job.succeeded\ndata: {}\n\n"))
    await send({"type": "http.response.body", "body": b""})


def _part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def _body(receive: Receive) -> bytes:
    parts = bytearray()
    while True:
        message = await receive()
        parts += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(parts)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
