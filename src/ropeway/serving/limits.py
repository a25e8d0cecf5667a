"""Limits over HTTP: who runs and waits under which key, and what counts for it. Changes are told to `ropeway.audit`."""

from __future__ import annotations

import logging

from starlette.requests import Request

from ropeway.client.limits import LimitBody, LimitList, LimitRequest, LocalLimits
from ropeway.domain.caller import Scope
from ropeway.serving.bodies import Nothing, read_json
from ropeway.serving.callers import who_asked
from ropeway.serving.parts import Parts
from ropeway.serving.replies import Reply, json_reply
from ropeway.serving.route import JSON, Answer, Param, Route

__all__ = ["LIMIT_ROUTES", "LimitRoutes"]

audit = logging.getLogger("ropeway.audit")

_KEY = Param(
    "key",
    "path",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "The limit's key, percent-encoded where need be.",
)

LIMIT_ROUTES = (
    Route(
        "GET",
        "/v1/limits",
        "list_limits",
        "limits",
        "The limits, of all tenants, under which jobs run or wait, or of which something is taken, set or paused.",
        (Answer(200, "So it is.", ((JSON, LimitList),)),),
        errors=(503,),
        scope=Scope.metrics,
    ),
    Route(
        "PUT",
        "/v1/limits/{key}",
        "set_limit",
        "limits",
        "Have this count for a key instead of what jobs bring, at once, for those that wait too; with nothing in it "
        "there is no limit.",
        (Answer(200, "The limit now.", ((JSON, LimitBody),)),),
        (_KEY,),
        ((JSON, LimitRequest),),
        needs_body=True,
        errors=(400, 408, 413, 415, 503),
        scope=Scope.admin,
    ),
    Route(
        "DELETE",
        "/v1/limits/{key}",
        "clear_limit",
        "limits",
        "Have what jobs bring count again for a key.",
        (Answer(200, "The limit now.", ((JSON, LimitBody),)),),
        (_KEY,),
        errors=(400, 408, 413, 415, 503),
        scope=Scope.admin,
    ),
)


class LimitRoutes:
    """One method for each route."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._limits = LocalLimits(parts.engine, parts.clock)

    async def list_limits(self, request: Request) -> Reply:
        return json_reply(LimitList(await self._limits.find()))

    async def set_limit(self, request: Request) -> Reply:
        asked = await read_json(request, self._parts, LimitRequest, needed=True)
        key = request.path_params["key"]
        body = await self._limits.set(key, max_running=asked.max_running, per_s=asked.per_s, burst=asked.burst)
        audit.info("limit %s set to %s, by %s", key, asked, who_asked(request))
        return json_reply(body)

    async def clear_limit(self, request: Request) -> Reply:
        await read_json(request, self._parts, Nothing)
        key = request.path_params["key"]
        body = await self._limits.clear(key)
        audit.info("limit %s cleared, by %s", key, who_asked(request))
        return json_reply(body)
