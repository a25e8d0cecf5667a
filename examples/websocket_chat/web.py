"""The page, beside the gateway whose WebSocket it talks to."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

import ropeway
from examples.websocket_chat.settings import ECHO, QUEUE, TASK, ChatSettings
from examples.websocket_chat.tasks import build
from ropeway import GatewayOptions, QueueChange, WorkerOptions
from ropeway.engines.base import Engine

__all__ = ["ChatWeb"]

PAGE = Path(__file__).with_name("page")
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?", re.IGNORECASE)


class PageConfig(msgspec.Struct, frozen=True):
    """What the page must know: what to submit, what answers, and at which other gateways it may go on."""

    task: str
    model: str
    is_echo: bool
    peers: tuple[str, ...]


class ChatWeb:
    """The application on an open engine, which stays its owner's: the page, and all of Ropeway's own API beside it.

    `worker` runs the tasks in this process too. `peers` are the origins of the other gateways on the same engine, to
    which the page turns when this one is gone.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ChatSettings,
        options: GatewayOptions,
        *,
        peers: tuple[str, ...] = (),
        worker: WorkerOptions | None = None,
    ) -> None:
        self.options = options
        self._engine = engine
        self._settings = settings
        self._peers = peers
        self._gateway = ropeway.asgi(build(settings), engine, worker=worker or False, options=options)
        config = PageConfig(TASK, settings.model, settings.model == ECHO and not settings.upstream, peers)
        files = {f"/{file.name}": _file(file) for file in PAGE.iterdir() if file.suffix in KINDS}
        self._app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/config.json", _answer(msgspec.json.encode(config), "application/json")),
                *(Route(path, endpoint) for path, endpoint in files.items() if path != "/index.html"),
                Mount("/", self._gateway),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def start(self) -> None:
        """Set the line's limit, and start the gateway, and the worker if there is one."""
        await self._engine.set_queue([QueueChange(QUEUE, max_depth=self._settings.max_queued)])
        await self._gateway.start()

    async def drain(self, grace_s: float = 10.0) -> bool:
        """Ask every socket to go on elsewhere, and finish what is being answered."""
        await self.stop()
        return True

    async def stop(self) -> None:
        await self._gateway.stop()

    async def _page(self, request: Request) -> Response:
        host = request.headers.get("host", "")
        if not HOST.fullmatch(host):
            return PlainTextResponse("that is no host", 400)
        sockets = [f"ws://{host}", f"wss://{host}", *(peer.replace("http", "ws", 1) for peer in self._peers)]
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            f"connect-src 'self' {' '.join(sockets)}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        headers = {"content-security-policy": policy, "referrer-policy": "no-referrer"}
        return _response((PAGE / "index.html").read_bytes(), "text/html", headers)


def _file(path: Path) -> Callable[[Request], Awaitable[Response]]:
    return _answer(path.read_bytes(), KINDS[path.suffix])


def _answer(body: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        return _response(body, kind)

    return endpoint


def _response(body: bytes, kind: str, headers: dict[str, str] | None = None) -> Response:
    always = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
    return Response(body, media_type=kind, headers={**always, **(headers or {})})
