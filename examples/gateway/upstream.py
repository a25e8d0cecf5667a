"""A provider that is none: OpenAI's chat API with a rhythm, failures and a rate limit of one's choosing.

`python -m examples.gateway.upstream` serves it by itself. Each word carries the instant at which it was sent, so that a
reader on the same machine can tell how long it was on its way.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Annotated, Any

import msgspec
import typer
import uvicorn

from ropeway.cli.loops import run_loop

__all__ = ["Rhythm", "Simulated", "simulated"]


class Rhythm(msgspec.Struct, frozen=True):
    """How it behaves.

    Attributes:
        words: of an answer. first_s: until its first word. word_s: between two words.
        fail: the share of requests that get a 500 at once. cut: the share of answers that break in their midst.
        per_minute: requests that are let in; beyond it 429 with Retry-After. 0: any number.
        key: that it wants to see; with another, or none, it answers 401. Empty: it lets in everybody.
    """

    words: int = 40
    first_s: float = 0.2
    word_s: float = 0.02
    fail: float = 0.0
    cut: float = 0.0
    per_minute: int = 0
    key: str = ""


class Simulated:
    """The provider, as an ASGI application. `calls` counts requests, `in_flight` those that are being answered."""

    def __init__(self, rhythm: Rhythm) -> None:
        self.rhythm = rhythm
        self.calls = self.in_flight = self.peak = 0
        self._random = random.Random(7)
        self._window: list[float] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while (message := await receive()).get("more_body") or message.get("body"):
            body += message["body"]
            if not message.get("more_body"):
                break
        self.calls += 1
        wait_s = self._limited()
        if self.rhythm.key and dict(scope["headers"]).get(b"authorization") != f"Bearer {self.rhythm.key}".encode():
            await self._refuse(send, 401, "invalid_api_key")
        elif wait_s is not None:
            await self._refuse(send, 429, "rate_limit_exceeded", retry_after=wait_s)
        elif self._random.random() < self.rhythm.fail:
            await self._refuse(send, 500, "server_error")
        else:
            await self._answer(receive, send, msgspec.json.decode(body or b"{}"))

    def _limited(self) -> float | None:
        """Seconds until there is room in this minute's budget; None when there is now."""
        if not self.rhythm.per_minute:
            return None
        now_s = time.monotonic()
        self._window = [at_s for at_s in self._window if at_s > now_s - 60]
        if len(self._window) >= self.rhythm.per_minute:
            return self._window[0] + 60 - now_s
        self._window.append(now_s)
        return None

    async def _refuse(self, send: Any, status: int, code: str, retry_after: float = 0) -> None:
        headers = [(b"content-type", b"application/json")]
        if retry_after:
            headers.append((b"retry-after", b"%d" % (retry_after + 1)))
        body = msgspec.json.encode({"error": {"message": f"simulated {status}", "type": code, "code": code}})
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, receive: Any, send: Any, asked: dict[str, Any]) -> None:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        speaking = asyncio.ensure_future(self._speak(send, min(asked.get("max_tokens") or 10**9, self.rhythm.words)))
        leaving = asyncio.ensure_future(receive())  # the body is read: what comes next is that the client has left
        try:
            await asyncio.wait({speaking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.in_flight -= 1
            leaving.cancel()
            speaking.cancel()
        if speaking.done() and not speaking.cancelled() and speaking.exception():
            raise ConnectionResetError("cut, as it was told to")

    async def _speak(self, send: Any, words: int) -> None:
        cut_at = self._random.randrange(words) if self._random.random() < self.rhythm.cut else None
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await asyncio.sleep(self.rhythm.first_s)
        for number in range(words):
            if number == cut_at:
                raise ConnectionResetError
            if number:
                await asyncio.sleep(self.rhythm.word_s)
            await _say(send, {"choices": [_choice(f"{time.monotonic():.6f} ")]})
        await _say(send, {"choices": [_choice(None, "stop")]})
        await _say(send, {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": words}})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def _choice(content: str | None, finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": finish}


async def _say(send: Any, chunk: dict[str, Any]) -> None:
    await send({"type": "http.response.body", "body": b"data: %b\n\n" % msgspec.json.encode(chunk), "more_body": True})


@asynccontextmanager
async def simulated(rhythm: Rhythm, port: int = 0) -> AsyncIterator[tuple[str, Simulated]]:
    """The provider on a port of the loopback, in this loop: its base URL, and itself."""
    listening = socket.create_server(("127.0.0.1", port), backlog=2048)
    provider = Simulated(rhythm)
    config = uvicorn.Config(provider, lifespan="off", log_level="critical", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]  # they are its owner's
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1", provider
    finally:
        server.should_exit = True
        await serving


def main(
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8003,
    words: int = 40,
    first: Annotated[float, typer.Option(help="Seconds to the first word.")] = 0.2,
    word: Annotated[float, typer.Option(help="Seconds between words.")] = 0.02,
    fail: Annotated[float, typer.Option(help="Share of requests that get a 500.")] = 0.0,
    cut: Annotated[float, typer.Option(help="Share of answers that break.")] = 0.0,
    per_minute: Annotated[int, typer.Option(help="Requests a minute; 0 is any number.")] = 0,
) -> None:
    """Serve the simulated provider until it is stopped."""

    async def serve() -> None:
        async with simulated(Rhythm(words, first, word, fail, cut, per_minute), port) as (url, _):
            typer.echo(url)
            await asyncio.Event().wait()  # until it is ended

    run_loop(serve())


if __name__ == "__main__":
    typer.run(main)
