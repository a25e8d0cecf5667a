"""Ropeway inside an application that stands already: one ASGI application with the gateway, and a worker if wanted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec
from starlette.types import ASGIApp

from ropeway.blobs import BlobStore
from ropeway.client import Client
from ropeway.domain.caller import Scope as Right
from ropeway.domain.errors import EngineUnavailable, RopewayError
from ropeway.domain.targets import AllowList
from ropeway.engines.base import Engine
from ropeway.engines.connect import connect
from ropeway.operations.webhooks import with_deliveries, with_webhooks
from ropeway.runtime import App, Worker, WorkerOptions
from ropeway.serving import MOUNTED, Gateway, GatewayOptions

__all__ = ["Mounted", "asgi"]


class Mounted:
    """The gateway of an application, to be mounted in another.

    FastAPI and Starlette do not start what is mounted in them. Give them `lifespan`, or enter it in your own: it opens
    the engine, publishes the tasks, and runs the worker; at the end it drains all three. Without it, the first request
    opens the gateway; a worker then starts too, but nobody drains it: its jobs are rescued when its session expires.
    """

    def __init__(
        self,
        app: App,
        engine: Engine,
        *,
        owns_engine: bool,
        worker: Worker | None,
        options: GatewayOptions,
        blobs: BlobStore | str | None = None,
    ) -> None:
        self.engine = engine
        self._blobs = blobs
        self._app = app
        self._owns_engine = owns_engine
        self._worker = worker
        self._gateway = Gateway(engine, options, {name: task.check for name, task in app.tasks.items()}, blobs=blobs)
        self._starting = asyncio.Lock()
        self._started = False
        self._stopped = False
        self._working: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if not self._stopped:  # who comes after is told so by the gateway, and starts nothing anew
            await self.start()
        await self._gateway(scope, receive, send)

    @contextlib.asynccontextmanager
    async def lifespan(self, _host: object = None) -> AsyncIterator[None]:
        """A lifespan as FastAPI and Starlette take it: `FastAPI(lifespan=mounted.lifespan)`."""
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    async def start(self) -> None:
        """Open what is ours; a second call does nothing. Raises EngineUnavailable, and what a worker's start raises."""
        async with self._starting:
            if self._started:
                return
            if self._owns_engine:
                await self.engine.open()
            await self.engine.publish(self._app.cards)
            await self._gateway.start()
            self._started = True
            if self._worker is not None:
                self._working = asyncio.create_task(self._worker.run(), name="ropeway-worker")
                await self._worker.started()
            could_not_start = self._working is not None and self._working.done()
        if could_not_start:  # a gateway alone would only let its jobs wait
            await self.stop()

    async def stop(self) -> None:
        """Drain the gateway, then the worker, and shut the engine if it is ours. Raises what the worker ended with."""
        self._stopped = True
        async with self._starting:
            if not self._started:
                return
            self._started = False
            await self._gateway.stop()
            try:
                if self._worker is not None and self._working is not None:
                    self._worker.drain()
                    await self._working
            finally:
                if self._owns_engine:
                    await self.engine.shut()

    def client(self) -> Client:
        """A client of the same engine, for the host's own routes. The engine must be open: enter `lifespan` first."""
        return Client(self.engine, blobs=self._blobs)

    async def client_for(self, scope: Any, right: Literal["jobs:read", "jobs:write", "jobs:cancel"]) -> Client:
        """A client for who makes this request to a route of the host's own: it sees its tenant's jobs alone.

        Asks for a key as the gateway does: for none until there is one. The key's rates count; see `Gateway.admit` for
        what is raised, and `refusal` for how to answer that. `scope` is that of the request.
        """
        caller = await self._gateway.admit(scope, Right(right))
        return Client(self.engine, tenant=caller.tenant, blobs=self._blobs)

    def refusal(self, error: RopewayError, scope: Any) -> ASGIApp:
        """The answer of the gateway to a refusal, for the host's own routes: its status, a problem, when to come again.

        `scope` is that of the request; what is given back is an ASGI application, as every response is.
        """
        return self._gateway.refusal(error, scope)

    async def _live(self, receive: Any, send: Any) -> None:
        """The ASGI lifespan, when this is served by itself."""
        while True:
            message = await receive()
            try:
                await (self.start() if message["type"] == "lifespan.startup" else self.stop())
            except EngineUnavailable as error:
                await send({"type": f"{message['type']}.failed", "message": str(error)})
                return
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return


def _worker(
    app: App, engine: Engine, worker: bool | WorkerOptions, options: GatewayOptions, blobs: BlobStore | str | None
) -> Worker:
    """A worker of the application that delivers webhooks too."""
    settings = worker if isinstance(worker, WorkerOptions) else WorkerOptions()
    settings = msgspec.structs.replace(settings, queues=with_deliveries(settings.queues))
    return Worker(with_webhooks(app, engine, AllowList(options.webhook_allow)), engine, settings, blobs=blobs)


def asgi(
    app: App,
    engine: str | Engine,
    *,
    worker: bool | WorkerOptions = False,
    options: GatewayOptions = MOUNTED,
    blobs: BlobStore | str | None = None,
) -> Mounted:
    """The gateway of `app` as an ASGI application: `fastapi_app.mount("/ai", ropeway.asgi(app, "sqlite:ropeway.db"))`.

    Args:
        engine: a URL, opened and shut here, or an engine that its owner has open.
        worker: run the tasks in this process too, with these options. Otherwise start `ropeway worker` elsewhere.
        options: of the gateway. Mounted in an application, it leaves Host and Origin to that.
        blobs: the store of files, or its URL; None: beside the file of a SQLite engine, and with others no files.

    Raises InvalidRequest for a URL that leads nowhere.
    """
    opened = connect(engine) if isinstance(engine, str) else engine
    runs = _worker(app, opened, worker, options, blobs) if worker else None
    return Mounted(app, opened, owns_engine=isinstance(engine, str), worker=runs, options=options, blobs=blobs)
