"""The gateway over HTTP: `POST /ai` and its stream, with the whole of Ropeway's own API below the same root."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

import ropeway
from examples.gateway.settings import GatewaySettings
from examples.gateway.stream import AnswerStream
from examples.gateway.tasks import TASK, build
from ropeway import (
    ChatRequest,
    Client,
    InvalidRequest,
    JobHandle,
    PayloadTooLarge,
    QueueChange,
    RopewayError,
    WorkerOptions,
)

__all__ = ["Ask", "application"]

BODY_LIMIT_BYTES = 1024**2


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /ai`. `model` is the first that is served when it is left out."""

    messages: list[dict[str, Any]]
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None


def application(own: GatewaySettings, engine: str, *, worker: bool = True) -> Starlette:
    """The application on an engine: `memory:` is direct, in this process alone; any other is queued.

    `worker` runs the requests in this process too; without it, workers elsewhere do.
    """
    tasks = build(own)
    options = WorkerOptions(concurrency=max(own.in_flight, 1_000), threads=max(own.in_flight, 256))
    mounted = ropeway.asgi(tasks, engine, worker=options if worker else False)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with mounted.lifespan():
            await mounted.engine.set_queue([QueueChange(TASK, max_depth=own.max_waiting)])
            yield

    async def ask(request: Request) -> ASGIApp:
        """Submit a conversation, and stream its answer."""
        client = await mounted.client_for(request.scope, "jobs:write")
        chat = _checked(await _body(request), own)
        key = request.headers.get("idempotency-key")
        submit = client.with_options(idempotency_key=key).submit if key else client.submit
        return _stream(client, await submit(tasks.tasks[TASK], request=chat), None, own)

    async def follow(request: Request) -> ASGIApp:
        """A request's stream again, from strictly after `Last-Event-ID`."""
        client = await mounted.client_for(request.scope, "jobs:read")
        job = client.job(request.path_params["request_id"])
        await job.get()
        return _stream(client, job, request.headers.get("last-event-id"), own)

    def route(path: str, handler: Callable[[Request], Awaitable[ASGIApp]], method: str) -> Route:
        return Route(path, _Endpoint(handler, mounted, method))

    return Starlette(
        routes=[route("/ai", ask, "POST"), route("/ai/{request_id}", follow, "GET"), Mount("/", mounted)],
        lifespan=lifespan,
    )


class _Endpoint:
    """A handler's answer, or the refusal that it raised as Ropeway itself would answer it."""

    def __init__(self, handler: Callable[[Request], Awaitable[ASGIApp]], mounted: Any, method: str) -> None:
        self._handler = handler
        self._mounted = mounted
        self._method = method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != self._method:
            told = PlainTextResponse(f"{scope['path']} takes {self._method}\n", 405, {"allow": self._method})
            await told(scope, receive, send)
            return
        try:
            answer = await self._handler(Request(scope, receive))
        except RopewayError as error:
            answer = self._mounted.refusal(error, scope)
        await answer(scope, receive, send)


def _stream(client: Client, job: JobHandle[Any], after: str | None, own: GatewaySettings) -> AnswerStream:
    async def left() -> None:
        if own.on_disconnect == "cancel":
            await client.cancel(job.id, "the client left")

    return AnswerStream(job.id, job.events(after), left)


async def _body(request: Request) -> Ask:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            raise PayloadTooLarge(f"the body is larger than {BODY_LIMIT_BYTES} bytes")
    try:
        return msgspec.json.decode(body, type=Ask)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not {{messages, model}}: {error}") from error


def _checked(ask: Ask, own: GatewaySettings) -> ChatRequest:
    model = ask.model or own.models[0]
    if model not in own.models:
        raise InvalidRequest(f"there is no model {model[:100]!r}: {', '.join(own.models)}", param="model")
    if not ask.messages:
        raise InvalidRequest("there is no message to answer", param="messages")
    return ChatRequest(model=model, messages=ask.messages, temperature=ask.temperature, max_tokens=ask.max_tokens)
