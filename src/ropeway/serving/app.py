"""The gateway: an ASGI application over an engine, to be served by itself or mounted in another application.

1. `POST /v1/jobs` goes past the router: it is the hot path.
2. The lifespan may never come (an application that mounts this one need not pass it on), so nothing depends on it: an
   engine that the gateway owns is opened by the first request then.
3. Whatever goes wrong ends here, as a problem; what nobody foresaw is logged and answered 500, without its details.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.routing import Route as PathRoute
from starlette.routing import Router
from starlette.types import ASGIApp

from ropeway.domain.caller import Caller
from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.errors import (
    EngineUnavailable,
    InvalidRequest,
    PayloadTooLarge,
    QueueFull,
    RopewayError,
    TooManyQueued,
)
from ropeway.domain.ids import RandomBytes, system_random
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.engines.base import Engine, EngineBroken
from ropeway.serving.about import AboutRoutes
from ropeway.serving.callers import CALLER
from ropeway.serving.catalogue import Catalogue, Check
from ropeway.serving.deadlines import Deadlines
from ropeway.serving.feed import Feeds
from ropeway.serving.fleet import FleetRoutes
from ropeway.serving.guard import Guard
from ropeway.serving.jobs import JobRoutes
from ropeway.serving.lifecycle import FeedRoutes
from ropeway.serving.options import GatewayOptions
from ropeway.serving.parts import Parts
from ropeway.serving.problems import (
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    TooManyStreams,
    problem_of,
    problem_reply,
)
from ropeway.serving.rates import Rates
from ropeway.serving.replies import Receive, Reply, Scope, Send
from ropeway.serving.requests import ClientGone, header_map
from ropeway.serving.routes import ROUTES, Route
from ropeway.serving.submit import Submit
from ropeway.serving.watches import Watches

__all__ = ["Gateway"]

Handler = Callable[[Request], Awaitable[ASGIApp]]

SUBMIT_PATH = "/v1/jobs"
REPLY = "ropeway.reply"  # where the router leaves the answer that it found
PROBES = frozenset({"/livez", "/healthz", "/readyz"})  # balancers ask by address, and the answers tell nothing

_AGAIN_S = ((EngineUnavailable, 1.0), (TooManyStreams, 5.0))  # told when nothing better is known

_log = logging.getLogger("ropeway.serving")


class Gateway:
    """Jobs over HTTP, of one engine.

    Args:
        engine: opened and shut here only when `owns_engine`; else its owner has it open while this serves.
        options: limits and names.
        checks: by task name, what an input must pass besides the announced schema: an application in the same process
            hands over its tasks' own type checks.
        tenant: who owns the jobs that come in here.

    `broken` is the engine's fault after which it must be opened anew, None as long as there is none; whoever runs the
    gateway's process should end it then, and `when_broken` is called to have it so.
    """

    def __init__(
        self,
        engine: Engine,
        options: GatewayOptions | None = None,
        checks: Mapping[str, Check] | None = None,
        *,
        owns_engine: bool = False,
        tenant: str = DEFAULT_TENANT,
        clock: Clock | None = None,
        random: RandomBytes = system_random,
    ) -> None:
        clock = clock or SystemClock()
        self.options = options or GatewayOptions()
        self._engine = engine
        self._watches = Watches(engine, self.options.max_streams)
        self._rates = Rates(engine, clock)
        self._feeds = Feeds(engine, clock)
        self._caller = Caller(tenant)
        self._guard = Guard(self.options)
        parts = Parts(
            engine=engine,
            options=self.options,
            catalogue=Catalogue(engine, clock, self.options.catalogue_ttl_s, checks or {}),
            rates=self._rates,
            watches=self._watches,
            deadlines=Deadlines(),
            clock=clock,
            random=random,
            noticed=self._notice,
        )
        self._submit = Submit(parts)
        self._router = _router((JobRoutes(parts), FeedRoutes(parts, self._feeds), FleetRoutes(parts), AboutRoutes()))
        self.broken: EngineBroken | None = None
        self.when_broken: Callable[[], None] | None = None
        self._must_open = owns_engine
        self._owns_engine = owns_engine
        self._opening = asyncio.Lock()
        self._active = 0
        self._idle = asyncio.Event()  # told at the drain only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:  # no WebSocket yet: refuse the handshake
            await send({"type": "websocket.close", "code": 1002})

    # -- a life

    async def start(self) -> None:
        """Open the engine, when it is ours to open."""
        async with self._opening:
            if self._must_open:
                await self._engine.open()
                self._must_open = False

    async def drain(self, grace_s: float = 10.0) -> bool:
        """Take no new work, ask streams to come back elsewhere, and finish what is being answered.

        Whether all was answered within `grace_s` seconds.
        """
        self._watches.drain()
        if not self._active:
            return True
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Drain, and shut the engine, when it is ours."""
        await self.drain()
        self._rates.close()
        self._feeds.close()
        if self._owns_engine and not self._must_open:
            await self._engine.shut()
            self._must_open = True

    @property
    def is_draining(self) -> bool:
        return self._watches.draining

    @property
    def waiting(self) -> int:
        """Open streams and long-polls."""
        return len(self._watches)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            step = self.start if message["type"] == "lifespan.startup" else self.stop
            try:
                await step()
            except Exception as error:
                _log.exception("%s failed", message["type"])
                await send({"type": f"{message['type']}.failed", "message": str(error)})
                return
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    # -- a request

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._active += 1
        try:
            reply = await self._reply(scope, receive, send)
            await reply(scope, receive, send)
        except ClientGone:
            pass
        except RopewayError as error:
            self._notice(error)
            await self._refusal(error, scope)(scope, receive, send)
        except Exception as error:
            problem = problem_of(error)
            _log.exception("%s: %s %s failed", problem.instance, scope["method"], scope["path"])
            await problem_reply(problem)(scope, receive, send)
        finally:
            self._active -= 1
            if not self._active and self._watches.draining:
                self._idle.set()

    async def _reply(self, scope: Scope, receive: Receive, send: Send) -> ASGIApp:
        """The answer, not yet sent: a stream may go on for hours, and every frame below it would stay in memory."""
        headers = header_map(scope)
        path = _path_in(scope)
        if path not in PROBES:
            self._guard.check(headers)
        if self._must_open:
            await self.start()
        scope[CALLER] = self._caller
        if path == SUBMIT_PATH and scope["method"] == "POST":
            return await self._submit(scope, receive, headers)
        await self._router(scope, receive, send)
        reply: ASGIApp = scope[REPLY]
        return reply

    def _notice(self, error: RopewayError) -> None:
        """An engine that must be opened anew ends the process that it is in, once what is being answered is."""
        if isinstance(error, EngineBroken) and self.broken is None:
            self.broken = error
            _log.critical("this gateway must start again: %s", error)
            if self.when_broken is not None:
                self.when_broken()

    def _refusal(self, error: RopewayError, scope: Scope) -> Reply:
        """The error as an answer, with when to try again where there is a point in that."""
        detail = None
        after_s = error.retry_after_s
        if isinstance(error, QueueFull | TooManyQueued):
            after_s = self._rates.retry_after_s(error.queue, error.depth)
            detail = f"{error.detail} (about {after_s:.0f} s)"
        elif after_s is None:
            after_s = next((wait_s for kind, wait_s in _AGAIN_S if isinstance(error, kind)), None)
        return problem_reply(problem_of(error, detail), _refusal_headers(error, scope), after_s)


class _Path:
    """All methods of one path, as an ASGI application that leaves its answer in the scope."""

    def __init__(self, routes: list[Route], handlers: Mapping[str, Handler]) -> None:
        self._routes = {route.method: (route, handlers[route.operation]) for route in routes}
        self._known = {route.method: {p.name for p in route.params if p.where == "query"} for route in routes}
        self._has_head = "GET" in self._routes and not _streams(self._routes["GET"][0])
        self._allowed = (*self._routes, *(("HEAD",) if self._has_head else ()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" and self._has_head else scope["method"]
        if method not in self._routes:
            raise MethodNotAllowed(scope["method"], self._allowed)
        request = Request(scope, receive)
        self._check_query(method, request)
        scope[REPLY] = await self._routes[method][1](request)

    def _check_query(self, method: str, request: Request) -> None:
        for name in request.query_params:
            if name not in self._known[method]:
                known = ", ".join(sorted(self._known[method])) or "none here"
                raise InvalidRequest(f"unknown query parameter {name[:40]!r}; known: {known}", param=name[:40])


def _refusal_headers(error: RopewayError, scope: Scope) -> list[tuple[bytes, bytes]]:
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", ", ".join(error.allowed).encode())]
    leaves_body_unread = isinstance(error, RequestTimeout | PayloadTooLarge)
    if leaves_body_unread and scope.get("http_version", "1.1").startswith("1"):
        return [(b"connection", b"close")]
    return []


def _streams(route: Route) -> bool:
    return any(media == "text/event-stream" for answer in route.answers for media, _ in answer.content)


def _router(rooms: tuple[Any, ...]) -> Router:
    handlers = {name: getattr(room, name) for room in rooms for name in dir(room) if not name.startswith("_")}
    handlers["submit_job"] = _not_here
    by_path: dict[str, list[Route]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, []).append(route)
    paths = [PathRoute(path, _Path(routes, handlers)) for path, routes in by_path.items()]
    return Router(paths, redirect_slashes=False, default=_no_route)


async def _not_here(request: Request) -> ASGIApp:
    raise AssertionError("submits go past the router")


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFound(f"there is nothing at {_path_in(scope)[:200]}; the routes are in /openapi.json")


def _path_in(scope: Scope) -> str:
    """The path below the mount point, which servers and frameworks either leave in `path` or take off."""
    path: str = scope["path"]
    base: str = scope.get("root_path", "")
    return path.removeprefix(base) if base and path.startswith(base + "/") else path
