"""The gateway: an ASGI application over an engine, to be served by itself or mounted in another application.

1. `POST /v1/jobs` goes past the router: it is the hot path.
2. The lifespan may never come (an application that mounts this one need not pass it on), so nothing depends on it: an
   engine that the gateway owns is opened by the first request then.
3. Whatever goes wrong ends here, as a problem; what nobody foresaw is logged and answered 500, without its details.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from starlette.types import ASGIApp

from ropeway.blobs import BlobStore
from ropeway.blobs.connect import files_of
from ropeway.domain.caller import Caller
from ropeway.domain.caller import Scope as Right
from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.errors import (
    Forbidden,
    RopewayError,
    Unauthenticated,
)
from ropeway.domain.file import BlobMissing
from ropeway.domain.ids import RandomBytes, system_random
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.engines.base import Engine, EngineBroken
from ropeway.serving.about import AboutRoutes
from ropeway.serving.alarms import Alarms
from ropeway.serving.callers import CALLER
from ropeway.serving.catalogue import Catalogue, Check
from ropeway.serving.cors import Cors
from ropeway.serving.deadlines import Deadlines
from ropeway.serving.deliveries import DeliveryRoutes
from ropeway.serving.door import NOBODY, Door, challenge, require
from ropeway.serving.feed import Feeds
from ropeway.serving.files.desk import FileRoutes
from ropeway.serving.fleet import FleetRoutes
from ropeway.serving.guard import Guard
from ropeway.serving.jobs import JobRoutes
from ropeway.serving.keys.desk import KeyRoutes
from ropeway.serving.lifecycle import FeedRoutes
from ropeway.serving.limits import LimitRoutes
from ropeway.serving.openai import OpenAI
from ropeway.serving.options import GatewayOptions
from ropeway.serving.parts import Parts
from ropeway.serving.problems import (
    MethodNotAllowed,
    RangeNotSatisfiable,
    RequestTimeout,
    problem_of,
    problem_reply,
)
from ropeway.serving.rates import Rates
from ropeway.serving.refusals import refused
from ropeway.serving.replies import Receive, Reply, Scope, Send, telling
from ropeway.serving.requests import ClientGone, header_map
from ropeway.serving.rounds import Rounds
from ropeway.serving.router import OPEN_PATHS, REPLY, path_in, router_of
from ropeway.serving.schedules import ScheduleRoutes
from ropeway.serving.submit import Submit
from ropeway.serving.watches import Watches
from ropeway.serving.websocket.handshake import Sockets
from ropeway.serving.websocket.routes import SocketRoutes

__all__ = ["Gateway"]

SUBMIT_PATH = "/v1/jobs"
PROBES = frozenset({"/livez", "/healthz", "/readyz"})  # balancers ask by address, and the answers tell nothing

_log = logging.getLogger("ropeway.serving")


class Gateway:
    """Jobs over HTTP, of one engine.

    Args:
        engine: opened and shut here only when `owns_engine`; else its owner has it open while this serves.
        options: limits and names.
        checks: by task name, what an input must pass besides the announced schema: an application in the same process
            hands over its tasks' own type checks.
        tenant: who owns the jobs that come in here.
        blobs: the store of files, or its URL; None: beside the file of a SQLite engine, and with others no files.

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
        blobs: BlobStore | str | None = None,
        clock: Clock | None = None,
        random: RandomBytes = system_random,
    ) -> None:
        clock = clock or SystemClock()
        self.options = options or GatewayOptions()
        self._engine = engine
        self._door = Door(engine, clock, random, tenant=tenant, requires_key=self.options.requires_key)
        self._watches = Watches(engine, self.options.max_streams, self._door.stays, Alarms(self.options.tick_s))
        self._rates = Rates(engine, clock)
        self._feeds = Feeds(engine, clock)
        self._guard = Guard(self.options)
        self._cors = Cors(self.options.allowed_origins)
        parts = Parts(
            engine=engine,
            options=self.options,
            catalogue=Catalogue(engine, clock, self.options.catalogue_ttl_s, checks or {}),
            rates=self._rates,
            watches=self._watches,
            rounds=Rounds(engine),
            deadlines=Deadlines(),
            clock=clock,
            random=random,
            noticed=self._notice,
            door=self._door,
            files=files_of(engine, blobs, clock=clock, random=random),
        )
        self._submit = Submit(parts)
        self._sockets = Sockets(parts, self._guard, self._submit)
        self._openai = OpenAI(parts)
        rooms = (
            *self._openai.rooms,
            JobRoutes(parts, self._openai.calls),
            DeliveryRoutes(parts),
            FileRoutes(parts),
            FeedRoutes(parts, self._feeds),
            FleetRoutes(parts),
            KeyRoutes(parts),
            LimitRoutes(parts),
            ScheduleRoutes(parts),
            AboutRoutes(),
            SocketRoutes(parts),
        )
        self._router = router_of(rooms, passed_by=("submit_job",))
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
        else:
            await self._serve_socket(scope, receive, send)

    # -- a life

    async def start(self) -> None:
        """Open the engine, when it is ours to open, and begin what a gateway does without being asked."""
        async with self._opening:
            if self._must_open:
                await self._engine.open()
                self._must_open = False
            self._openai.start()

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
        await self._openai.close()
        self._door.close()
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
            await reply(scope, receive, telling(scope, send))
        except ClientGone:
            pass
        except RopewayError as error:
            self._notice(error)
            await self.refusal(error, scope)(scope, receive, telling(scope, send))
        except Exception as error:
            problem = problem_of(error)
            _log.exception("%s: %s %s failed", problem.instance, scope["method"], scope["path"])
            await problem_reply(problem)(scope, receive, telling(scope, send))
        finally:
            self._done()

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._active += 1
        try:
            if self._must_open:
                await self.start()
            await self._sockets(scope, receive, send)
        finally:
            self._done()

    def _done(self) -> None:
        self._active -= 1
        if not self._active and self._watches.draining:
            self._idle.set()

    async def _reply(self, scope: Scope, receive: Receive, send: Send) -> ASGIApp:
        """The answer, not yet sent: a stream may go on for hours, and every frame below it would stay in memory."""
        headers = header_map(scope)
        path = path_in(scope)
        if path not in PROBES:
            self._guard.check(headers)
        preflight = self._cors.welcome(scope, headers)
        if preflight is not None:
            return preflight
        if self._must_open:
            await self.start()
        caller = scope[CALLER] = NOBODY if path in OPEN_PATHS else await self._door.admit(scope, headers)
        if path == SUBMIT_PATH and scope["method"] == "POST":
            require(caller, Right.write)
            return await self._submit(scope, receive, headers)
        await self._router(scope, receive, send)
        reply: ASGIApp = scope[REPLY]
        return reply

    def _notice(self, error: RopewayError) -> None:
        """An engine that must be opened anew ends the process that it is in, once what is being answered is."""
        if isinstance(error, BlobMissing):
            _log.error("%s", error)
        if isinstance(error, EngineBroken) and self.broken is None:
            self.broken = error
            _log.critical("this gateway must start again: %s", error)
            if self.when_broken is not None:
                self.when_broken()

    async def admit(self, scope: Scope, right: Right) -> Caller:
        """Who makes this request to a route of the application that mounts this gateway.

        Raises Forbidden for a host or origin that is not welcome, a key without this right, and a pass, which is good
        for one job's own routes; Unauthenticated, RateLimited, EngineUnavailable.
        """
        headers = header_map(scope)
        self._guard.check(headers)
        caller = await self._door.admit(scope, headers)
        if caller.job_id is not None:
            raise Forbidden("a token is good for the routes of its one job: this needs a key")
        require(caller, right)
        return caller

    def refusal(self, error: RopewayError, scope: Scope) -> Reply:
        """The error as an answer, with when to try again where there is a point in that."""
        problem, after_s = refused(error, self._rates)
        return problem_reply(problem, _refusal_headers(error, scope), after_s)


def _refusal_headers(error: RopewayError, scope: Scope) -> list[tuple[bytes, bytes]]:
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", ", ".join(error.allowed).encode())]
    if isinstance(error, RangeNotSatisfiable):
        return [(b"content-range", b"bytes */%d" % error.size)]
    if isinstance(error, Unauthenticated | Forbidden):
        return challenge(error)
    # The rest of a body that is too large is thrown away (connection.py): its sender reads why. Not that of a slow one.
    if isinstance(error, RequestTimeout) and scope.get("http_version", "1.1").startswith("1"):
        return [(b"connection", b"close")]
    return []
