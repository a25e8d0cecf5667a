"""From the table of routes to what serves each: the method that is asked for, the key's scope, the parameters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.routing import Route as PathRoute
from starlette.routing import Router
from starlette.types import ASGIApp

from ropeway.domain.caller import Caller
from ropeway.domain.caller import Scope as Right
from ropeway.domain.errors import Forbidden, InvalidRequest, JobNotFound
from ropeway.serving.callers import caller_of
from ropeway.serving.door import require
from ropeway.serving.problems import MethodNotAllowed, NotFound
from ropeway.serving.replies import Receive, Scope, Send
from ropeway.serving.routes import ROUTES, Route

__all__ = ["OPEN_PATHS", "REPLY", "path_in", "router_of"]

Handler = Callable[[Request], Awaitable[ASGIApp]]

REPLY = "ropeway.reply"  # where the router leaves the answer that it found
OPEN_PATHS = frozenset(route.path for route in ROUTES if route.scope is None)
FOR_PAGES = frozenset({"get_job", "get_result", "get_events", "cancel_job"})  # what a page's token may be good for


def router_of(rooms: tuple[Any, ...], passed_by: tuple[str, ...]) -> Router:
    """A router over the rooms' methods, each named as its route's operation; those in `passed_by` do not come here."""
    handlers = {name: getattr(room, name) for room in rooms for name in dir(room) if not name.startswith("_")}
    handlers |= dict.fromkeys(passed_by, _not_here)
    by_path: dict[str, list[Route]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, []).append(route)
    paths = [PathRoute(path, _Path(routes, handlers)) for path, routes in by_path.items()]
    return Router(paths, redirect_slashes=False, default=_no_route)


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
        route, handler = self._routes[method]
        _check_caller(caller_of(scope), route, scope["path_params"])
        request = Request(scope, receive)
        if not route.lenient:
            self._check_query(method, request)
        scope[REPLY] = await handler(request)

    def _check_query(self, method: str, request: Request) -> None:
        for name in request.query_params:
            if name not in self._known[method]:
                known = ", ".join(sorted(self._known[method])) or "none here"
                raise InvalidRequest(f"unknown query parameter {name[:40]!r}; known: {known}", param=name[:40])


def _check_caller(caller: Caller, route: Route, path_params: Mapping[str, str]) -> None:
    """Raises Forbidden, and JobNotFound for a job that is not the one of a browser's token."""
    if route.scope is not None and not isinstance(route.scope, Right):
        raise Forbidden("nobody said who may use this")
    if caller.job_id is not None and route.scope is not None:
        if route.operation not in FOR_PAGES:
            raise Forbidden("a page's token is for looking at its job alone, and for cancelling it")
        if path_params["id"] != caller.job_id:
            raise JobNotFound(f"no job {path_params['id']}")
    require(caller, route.scope)


def _streams(route: Route) -> bool:
    return any(media == "text/event-stream" for answer in route.answers for media, _ in answer.content)


async def _not_here(request: Request) -> ASGIApp:
    raise AssertionError("this goes past the router")


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFound(f"there is nothing at {path_in(scope)[:200]}; the routes are in /openapi.json")


def path_in(scope: Scope) -> str:
    """The path below the mount point, which servers and frameworks either leave in `path` or take off."""
    path: str = scope["path"]
    base: str = scope.get("root_path", "")
    return path.removeprefix(base) if base and path.startswith(base + "/") else path
