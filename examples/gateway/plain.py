"""What one writes without Ropeway: FastAPI that passes a provider's stream on. The peer in `compare`."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx2
import typer
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

__all__ = ["plain"]


def plain(upstream: str, in_flight: int) -> FastAPI:
    """`POST /ai`, straight from the provider: no id, no line, no retry, nothing kept."""
    limits = httpx2.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    http = httpx2.AsyncClient(base_url=upstream, timeout=60, limits=limits, trust_env=False)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with http:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/ai")
    async def ask(request: Request) -> StreamingResponse:
        asked: dict[str, Any] = await request.json()
        body = {"model": "simulated", **asked, "stream": True}

        async def words() -> AsyncIterator[bytes]:
            async with http.stream("POST", "/chat/completions", json=body) as answer:
                async for chunk in answer.aiter_raw():
                    yield chunk

        return StreamingResponse(words(), media_type="text/event-stream")

    return app


def main(upstream: Annotated[str, typer.Option()], in_flight: int = 400) -> None:
    """Serve it on a free port, which is told."""
    with socket.create_server(("127.0.0.1", 0), backlog=2_048) as listening:
        typer.echo(f'{{"url": "http://127.0.0.1:{listening.getsockname()[1]}"}}')
        config = uvicorn.Config(plain(upstream, in_flight), log_level="warning", ws="none")
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    typer.run(main)
