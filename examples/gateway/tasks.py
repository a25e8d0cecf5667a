"""The work: ask a model. The same task runs in the gateway's own process or on any worker, as its engine is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec

from examples.gateway.settings import GatewaySettings, settings
from ropeway import App, ChatRequest, Context, ModelCard, RetryAfter, given
from ropeway.models import LocalOptions, UpstreamOptions, local, upstream

__all__ = ["TASK", "app", "build"]

TASK = "chat"
SIMULATED = "http://127.0.0.1:8003/v1"  # where `python -m examples.gateway.upstream` listens


def build(own: GatewaySettings) -> App:
    """The application with one task, `chat`, on a queue of the same name."""
    app = App()
    url = own.upstream or SIMULATED
    if own.code == "local":
        local(app, chat=own.models[0], embedding=None, options=LocalOptions(slots=min(own.in_flight, 4)))
    elif own.code == "blocking":
        _declare_blocking(app, url, own)
    else:
        upstream(
            app,
            url,
            key=own.key or None,
            models=own.models,
            options=UpstreamOptions(concurrency=own.in_flight),
        )
    return app


def _declare_blocking(app: App, url: str, own: GatewaySettings) -> None:
    """The same in plain blocking code, as somebody has it who knows no asyncio: each request has a thread."""

    @app.resource
    def provider() -> Iterator[httpx2.Client]:
        limits = httpx2.Limits(max_connections=own.in_flight, max_keepalive_connections=own.in_flight)
        with httpx2.Client(base_url=url, limits=limits, timeout=60, trust_env=False) as client:
            yield client

    @app.task(name=TASK, queue=TASK, models=[ModelCard(model, "chat") for model in own.models])
    def chat(request: ChatRequest, *, ctx: Context = given, provider: httpx2.Client = given) -> Iterator[str]:
        """Go on with a conversation."""
        body = {"model": request.model, "messages": request.messages, "stream": True}
        with provider.stream("POST", "/chat/completions", json=body) as answer:
            if answer.status_code != httpx2.codes.OK:
                wait_s = answer.headers.get("retry-after", "1")
                raise RetryAfter(float(wait_s) if wait_s.isdecimal() else 1.0, f"provider: {answer.status_code}")
            for line in answer.iter_lines():
                ctx.check_cancelled()
                if line.startswith("data: {"):
                    yield from _words(msgspec.json.decode(line.removeprefix("data: ")))


def _words(chunk: dict[str, Any]) -> Iterator[str]:
    for choice in chunk["choices"]:
        if content := choice["delta"].get("content"):
            yield content


app = build(settings())
