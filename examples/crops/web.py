"""Crop analysis over HTTP: system E's routes and the page, with the whole of Ropeway's own below the same root."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

import ropeway
from examples.crops.gauge import Gauge
from examples.crops.images import EXTENSIONS
from examples.crops.intake import Intake
from examples.crops.maps import COLOURS
from examples.crops.samples import SAMPLES, sample
from examples.crops.settings import GPU_QUEUE, QUEUE, CropsSettings
from examples.crops.tasks import MODELS, build
from examples.crops.views import ended, running
from examples.crops.work import STEPS
from ropeway import Forbidden, GatewayOptions, JobEnded, JobNotFound, QueueChange, RopewayError, WorkerOptions
from ropeway.blobs import BlobStore
from ropeway.blobs.connect import files_of
from ropeway.domain.file import FilesNotKept
from ropeway.domain.job import DEFAULT_TENANT, Job
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Engine
from ropeway.serving.requests import ClientGone

__all__ = ["CropsWeb"]

PAGE = Path(__file__).with_name("page")
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
LIVE = (State.queued, State.scheduled, State.running)

_UNCACHED = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_PAGE = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HOST = re.compile(r"(.*?)(?::\d{1,5})?")


class PageConfig(msgspec.Struct, frozen=True):
    """What the page must know."""

    min_bytes: int
    max_bytes: int
    types: tuple[str, ...]
    steps: tuple[str, ...]
    samples: dict[str, str]
    colours: dict[str, tuple[int, int, int]]
    models: tuple[str, ...]


class CropsWeb:
    """The application on an open engine, which stays its owner's.

    `worker` runs the tasks in this process too. An ASGI application without a lifespan of its own: who serves it starts
    it, and stops it at the end. Raises FilesNotKept for an engine without a store of files, when none is named.
    """

    def __init__(
        self,
        engine: Engine,
        own: CropsSettings,
        options: GatewayOptions,
        *,
        worker: WorkerOptions | None = None,
        blobs: BlobStore | str | None = None,
    ) -> None:
        self.options = options
        self._engine = engine
        self._own = own
        self._gateway = ropeway.asgi(build(own), engine, worker=worker or False, options=options, blobs=blobs)
        files = files_of(engine, blobs)
        if files is None:
            raise FilesNotKept(
                "images need a store of files: --blobs file:PATH, which all processes see, or s3://BUCKET"
            )
        self._client = self._gateway.client()
        self._gauge = Gauge(engine, own)
        self._intake = Intake(self._client, files, self._gauge, own, options)
        self._app = Starlette(routes=[*self._routes(), Mount("/", self._gateway)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def start(self) -> None:
        """Set the lines' limits, and start the gateway, and the worker if there is one."""
        await asyncio.to_thread(import_module, "rasterio")  # half a second that no upload should wait for
        await self._engine.set_queue([QueueChange(name, max_depth=self._own.max_queued) for name in (QUEUE, GPU_QUEUE)])
        await self._gateway.start()

    async def drain(self, grace_s: float = 10.0) -> bool:
        """Stop, while the server still listens: what is asked now is answered, or told that this is closing."""
        await self.stop()
        return True

    async def stop(self) -> None:
        await self._gateway.stop()

    # -- the routes

    def _routes(self) -> list[Route]:
        config = PageConfig(
            self._own.min_bytes,
            self._own.max_bytes,
            tuple(EXTENSIONS),
            tuple(step for step in STEPS if step != "done"),
            SAMPLES,
            COLOURS,
            MODELS,
        )
        shown = {f"/{file.name}": file for file in PAGE.iterdir() if file.suffix in KINDS and file.name != "index.html"}
        return [
            Route("/", self._answering(self._page)),
            Route("/config.json", self._answering(_fixed(msgspec.json.encode(config), "application/json"))),
            Route("/samples/{name}", self._answering(self._sample)),
            *(Route(at, self._answering(_fixed(file.read_bytes(), KINDS[file.suffix]))) for at, file in shown.items()),
            Route("/api/crops/{crop_id}/analyze", self._answering(self._analyze), methods=["POST"]),
            Route("/api/results/{job_id}", self._answering(self._result)),
            Route("/api/jobs/{job_id}", self._answering(self._cancel), methods=["DELETE"]),
            Route("/api/queue/stats", self._answering(self._stats)),
        ]

    async def _page(self, _: Request) -> Response:
        headers = {**_PAGE, "content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
        return Response((PAGE / "index.html").read_bytes(), media_type="text/html", headers=headers)

    async def _sample(self, request: Request) -> Response:
        """An image to try things out with."""
        name = request.path_params["name"]
        if name not in SAMPLES:
            raise JobNotFound(f"no sample {name[:100]!r}")
        return Response(await sample(name), media_type="image/tiff", headers=_PAGE)

    async def _analyze(self, request: Request) -> Response:
        """202 with the job; 200 when the same image was analysed for the same crop within a day."""
        accepted = await self._intake.take(request.path_params["crop_id"], request)
        return _json(accepted, 200 if accepted.status == "succeeded" else 202)

    async def _result(self, request: Request) -> Response:
        """202 with how far it is, 200 with what came of it."""
        job = await self._job(request)
        if job.state in LIVE:
            position = await self._engine.position(DEFAULT_TENANT, job.id) if job.state is State.queued else None
            return _json(running(job, position), 202)
        return _json(ended(job))

    async def _cancel(self, request: Request) -> Response:
        """200 when it is cancelled, 202 when it runs and is asked to stop; 409 when it has ended."""
        job = await self._job(request)
        if job.state not in LIVE:
            raise JobEnded(f"{job.id} has {job.state.value} already")
        await self._client.cancel(job.id, "cancelled by its sender")
        job = await self._job(request)
        return _json(running(job, None), 202) if job.state in LIVE else _json(ended(job))

    async def _stats(self, _: Request) -> Response:
        return _json(await self._gauge.stats())

    async def _job(self, request: Request) -> Job:
        """Raises JobNotFound, for a job of another kind too."""
        id_ = request.path_params["job_id"]
        (job,) = await self._engine.get(DEFAULT_TENANT, [id_])
        if job is None or job.queue not in (QUEUE, GPU_QUEUE):
            raise JobNotFound(f"no analysis {id_[:100]!r}")
        return job

    # -- what all of them share

    def _answering(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[ASGIApp]]:
        async def endpoint(request: Request) -> ASGIApp:
            try:
                self._check_host(request)
                return await handler(request)
            except (ClientDisconnect, ClientGone):
                return Response(status_code=400)  # nobody hears it
            except RopewayError as error:
                return self._gateway.refusal(error, request.scope)

        return endpoint

    def _check_host(self, request: Request) -> None:
        """Raises Forbidden for a Host that is none of ours: a page may have its own name resolve to this machine."""
        named = _HOST.fullmatch(request.headers.get("host", "").lower())
        allowed = self.options.allowed_hosts
        if allowed is not None and (named is None or named[1] not in allowed):
            raise Forbidden("this server does not answer to that host")


def _fixed(body: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        return Response(body, media_type=kind, headers=_PAGE)

    return endpoint


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, _UNCACHED, "application/json")
