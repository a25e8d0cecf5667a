"""The example over HTTP: requirements C's routes, with the whole of Ropeway's own API below the same root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

import ropeway
from examples.rag.asking import ask
from examples.rag.settings import ANSWER, FIND, INGEST, RagSettings
from examples.rag.shapes import Accepted, ChatBody, IngestBody, status_of
from examples.rag.tasks import build
from ropeway import (
    App,
    Client,
    GatewayOptions,
    InvalidRequest,
    JobHandle,
    JobNotFound,
    PayloadTooLarge,
    QueueChange,
    RopewayError,
    WorkerOptions,
)
from ropeway.engines.base import Engine
from ropeway.mount import Mounted

__all__ = ["RagWeb"]

T = TypeVar("T")

BODY_LIMIT_BYTES = 64 * 1024

_encode = msgspec.json.encode


class RagWeb:
    """The application on an open engine, which stays its owner's. `worker` runs the tasks in this process too;
    `tasks` are others than those of the settings.

    Once there is a key, these routes ask for one as Ropeway's own do, and each tenant has documents, questions and
    answers of its own.
    """

    def __init__(
        self,
        engine: Engine,
        own: RagSettings,
        options: GatewayOptions,
        *,
        worker: WorkerOptions | None = None,
        tasks: App | None = None,
    ) -> None:
        self.options = options
        self._engine = engine
        self._own = own
        tasks = tasks or build(own)
        self._tasks = tasks.tasks
        self._gateway = ropeway.asgi(tasks, engine, worker=worker or False, options=options)
        self._app = Starlette(
            routes=[
                Route("/chat", _Endpoint(self._chat, self._gateway, "POST")),
                Route("/ingest", _Endpoint(self._ingest, self._gateway, "POST")),
                Route("/job-status", _Endpoint(self._job_status, self._gateway, "GET")),
                Mount("/", self._gateway),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def start(self) -> None:
        """Set the line's limit, and start the gateway, and the worker if there is one."""
        await self._engine.set_queue([QueueChange(queue, max_depth=self._own.max_queued) for queue in (FIND, ANSWER)])
        await self._gateway.start()

    async def drain(self, grace_s: float = 10.0) -> bool:
        """Stop, while the server still listens: what is asked now is answered, or told that this is closing."""
        await self.stop()
        return True

    async def stop(self) -> None:
        await self._gateway.stop()

    async def _chat(self, request: Request) -> Response:
        """Store a question, and answer with its job's id. `Idempotency-Key`: sent again, it is the same job."""
        client = await self._client(request, "jobs:write")
        body = await _body(request, ChatBody)
        return _accepted(await ask(client, body.query, request.headers.get("idempotency-key")))

    async def _ingest(self, request: Request) -> Response:
        """Have a folder read."""
        client = await self._client(request, "jobs:write")
        body = await _body(request, IngestBody)
        key = request.headers.get("idempotency-key")
        submit = client.with_options(idempotency_key=key).submit if key else client.submit
        return _accepted(await submit(INGEST, folder=body.folder))

    async def _job_status(self, request: Request) -> Response:
        """`?job_id=`: its state, and what it came to."""
        client = await self._client(request, "jobs:read")
        job_id = request.query_params.get("job_id", "")
        if not job_id:
            raise InvalidRequest("say which job: /job-status?job_id=job_…", param="job_id")
        job = await client.get(job_id)
        if job.task not in (ANSWER, INGEST):
            raise JobNotFound(f"no question and no folder {job_id[:128]!r}")
        return Response(_encode(status_of(job)), media_type="application/json")

    async def _client(self, request: Request, right: Literal["jobs:read", "jobs:write"]) -> Client:
        return await self._gateway.client_for(request.scope, right)


class _Endpoint:
    """A handler's answer, or the refusal that it raised as Ropeway itself would answer it."""

    def __init__(self, handler: Callable[[Request], Awaitable[Response]], gateway: Mounted, method: str) -> None:
        self._handler = handler
        self._gateway = gateway
        self._method = method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp
        if scope["method"] != self._method:
            answer = PlainTextResponse(f"{scope['path']} takes {self._method}\n", 405, {"allow": self._method})
        else:
            try:
                answer = await self._handler(Request(scope, receive))
            except ClientDisconnect:
                return
            except RopewayError as error:
                answer = self._gateway.refusal(error, scope)
        await answer(scope, receive, send)


def _accepted(job: JobHandle[object]) -> Response:
    urls = (f"/job-status?job_id={job.id}", f"/v1/jobs/{job.id}/events")
    return Response(_encode(Accepted(job.id, "queued", *urls)), 202, media_type="application/json")


async def _body(request: Request, shape: type[T]) -> T:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            raise PayloadTooLarge(f"the body is larger than {BODY_LIMIT_BYTES} bytes")
    try:
        return msgspec.json.decode(body or b"{}", type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not what {request.url.path} takes: {error}") from error
