"""The pipeline over HTTP: system B's routes, with the whole of Ropeway's own below the same root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

import ropeway
from examples.pipeline.advice import sizing
from examples.pipeline.gauge import Gauge
from examples.pipeline.http import (
    Refused,
    check_host,
    is_ndjson,
    json_answer,
    lines_answer,
    read_json,
    read_lines,
    refusal,
)
from examples.pipeline.intake import Intake, job_id_of
from examples.pipeline.recorder import KEPT_S, Recorder
from examples.pipeline.settings import QUEUE, PipelineSettings
from examples.pipeline.shapes import ProcessRequest, Series
from examples.pipeline.tasks import app
from examples.pipeline.views import request_status
from ropeway import (
    InvalidRequest,
    JobNotFound,
    QueueChange,
    QueueFull,
    RopewayError,
    WorkerOptions,
)
from ropeway.domain.clock import SystemClock
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Engine
from ropeway.runtime.link import SupervisorLink
from ropeway.serving import GatewayOptions

__all__ = ["PipelineWeb"]

ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # the wrong ones are told so, with a 405
SERIES_LIMIT = 3_600  # points in one answer: an hour


class PipelineWeb:
    """The application on an open engine, which stays its owner's.

    `worker` runs the tasks in this process too; `link` is to the supervisor that started this process, if one did. An
    ASGI application without a lifespan of its own: who serves it starts it, and stops it at the end.
    """

    def __init__(
        self,
        engine: Engine,
        settings: PipelineSettings,
        options: GatewayOptions,
        worker: WorkerOptions | None = None,
        link: SupervisorLink | None = None,
    ) -> None:
        self.options = options
        self._engine = engine
        self._settings = settings
        self._gateway = ropeway.asgi(app, engine, worker=worker or False, options=options)
        gauge = Gauge(engine, settings)
        self._recorder = Recorder(engine, gauge, link)
        own = PipelineRoutes(engine, settings, options.allowed_hosts, gauge, self._recorder)
        self._app = Starlette(routes=[*own.routes(), Mount("/", self._gateway)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def start(self) -> None:
        """Set the line's limit, and start what runs beside the requests."""
        await self._engine.set_queue([QueueChange(QUEUE, max_depth=self._settings.max_queued)])
        await self._gateway.start()
        await self._recorder.start()

    async def drain(self, grace_s: float = 10.0) -> bool:
        """Stop, while the server still listens: what is asked now is answered, or told that this is closing."""
        await self.stop()
        return True

    async def stop(self) -> None:
        """Give the time series back to whoever is next, and drain. Harmless when repeated."""
        await self._recorder.stop()
        await self._gateway.stop()


class PipelineRoutes:
    """System B's routes. Whatever they refuse is a problem (RFC 9457), as in Ropeway's own."""

    def __init__(
        self,
        engine: Engine,
        settings: PipelineSettings,
        hosts: tuple[str, ...] | None,
        gauge: Gauge,
        recorder: Recorder,
    ) -> None:
        self._engine = engine
        self._hosts = hosts
        self._settings = settings
        self._intake = Intake(engine, settings.mode)
        self._gauge = gauge
        self._recorder = recorder
        self._clock = SystemClock()

    def routes(self) -> list[Route]:
        return [
            self._route("/process", self._process, "POST"),
            self._route("/status/{request_id}", self._status),
            self._route("/status/{request_id}/events", self._events),
            self._route("/queue-status", self._queue_status),
            self._route("/database/stats", self._database_stats),
            self._route("/thread-efficiency", self._thread_efficiency),
            self._route("/metrics/series", self._series),
            self._route("/sizing", self._sizing),
        ]

    # -- requests

    async def _process(self, request: Request) -> Response:
        """Store a request and answer 202; as NDJSON up to 1,000 of them, answered line by line."""
        if is_ndjson(request):
            return lines_answer(await self._intake.many(await read_lines(request, ProcessRequest)))
        return json_answer(await self._intake.one(await read_json(request, ProcessRequest)), 202)

    async def _status(self, request: Request) -> Response:
        given = request.path_params["request_id"]
        id_ = job_id_of(given)
        (job,) = await self._engine.get(DEFAULT_TENANT, [id_])
        if job is None or job.queue != QUEUE:
            raise JobNotFound(f"no request {given[:128]!r}")
        position = await self._engine.position(DEFAULT_TENANT, id_) if job.state is State.queued else None
        return json_answer(request_status(job, position))

    async def _events(self, request: Request) -> Response:
        """To the request's live log, which is Ropeway's own."""
        return RedirectResponse(f"/v1/jobs/{job_id_of(request.path_params['request_id'])}/events")

    # -- figures

    async def _queue_status(self, _: Request) -> Response:
        return json_answer(await self._gauge.queue())

    async def _database_stats(self, _: Request) -> Response:
        return json_answer(await self._gauge.database())

    async def _thread_efficiency(self, _: Request) -> Response:
        return json_answer(await self._gauge.efficiency())

    async def _series(self, request: Request) -> Response:
        """`?seconds=` back from now, 1 to 3,600; 600 when left out."""
        seconds = _seconds(request.query_params.get("seconds", "600"))
        points = await self._recorder.points(self._clock.now_ms() - seconds * 1000, SERIES_LIMIT)
        return json_answer(Series(tuple(points), KEPT_S))

    async def _sizing(self, _: Request) -> Response:
        return json_answer(await run_in_threadpool(sizing, self._settings))

    # -- what all of them share

    def _route(self, path: str, handler: Callable[[Request], Awaitable[Response]], method: str = "GET") -> Route:
        allowed = {method, "HEAD"} if method == "GET" else {method}

        async def endpoint(request: Request) -> Response:
            try:
                check_host(request, self._hosts)
                if request.method not in allowed:
                    raise Refused(405, "method_not_allowed", f"{path} takes {method}", {"allow": method})
                return await handler(request)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody hears it
            except QueueFull as error:
                return refusal(error, await self._gauge.drain_s(error.depth))
            except RopewayError as error:
                return refusal(error, 1.0 if error.retryable else None)

        return Route(path, endpoint, methods=ALL_METHODS)


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= SERIES_LIMIT):
        raise InvalidRequest(f"seconds is a number from 1 to {SERIES_LIMIT}, not {text[:40]!r}", param="seconds")
    return int(text)
