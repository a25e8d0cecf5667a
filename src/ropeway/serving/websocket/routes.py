"""What goes up to a running job, and the socket's own entry in the table of routes."""

from __future__ import annotations

import msgspec
from starlette.requests import Request

from ropeway.client.wire import JobBody
from ropeway.domain.caller import Scope
from ropeway.engines.inputs import Inputs
from ropeway.serving.bodies import read_json
from ropeway.serving.callers import tenant_of
from ropeway.serving.parts import Parts
from ropeway.serving.problems import Draining, UpgradeRequired
from ropeway.serving.questions import base_of, job_id_of
from ropeway.serving.replies import Reply
from ropeway.serving.requests import header_map, idempotency_key
from ropeway.serving.route import JSON, Answer, Param, Route

__all__ = ["SOCKET_ROUTES", "InputRequest", "SocketRoutes"]


class InputRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a task is sent: any JSON, up to 256 KiB."""

    data: msgspec.Raw


_ID = Param("id", "path", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}, "The job's id.")
_KEY = Param(
    "Idempotency-Key",
    "header",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "Makes the call safe to repeat: the task is given the input once.",
)

SOCKET_ROUTES = (
    Route(
        "POST",
        "/v1/jobs/{id}/input",
        "give_input",
        "jobs",
        "Send data to a task that has begun: an approval, the next words of a talk. It is stored, and the task reads "
        "it when it asks for it; an attempt after this one reads it again.",
        (Answer(202, "It is kept for the task.", ((JSON, JobBody),), ("ETag",)),),
        (_ID, _KEY),
        ((JSON, InputRequest),),
        needs_body=True,
        errors=(400, 404, 408, 409, 413, 415, 503),
        scope=Scope.write,
    ),
    Route(
        "GET",
        "/v1/ws",
        "open_socket",
        "jobs",
        "The WebSocket, subprotocol `ropeway.v1`: submit, follow, cancel and send to many jobs on one connection.",
        (Answer(101, "It is open."),),
        errors=(400, 426),
        scope=Scope.read,
    ),
)


class SocketRoutes:
    """One method for each route."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._inputs = Inputs(parts.engine)

    async def give_input(self, request: Request) -> Reply:
        asked = await read_json(request, self._parts, InputRequest)
        if self._parts.watches.draining:
            raise Draining
        tenant, job_id = tenant_of(request), job_id_of(request)
        key = idempotency_key(header_map(request.scope))
        await self._inputs.give(tenant, job_id, bytes(asked.data).decode(), key)
        job = await self._parts.job(tenant, job_id)
        return self._parts.job_reply(await self._parts.shown(job, base_of(request)), 202)

    async def open_socket(self, request: Request) -> Reply:
        raise UpgradeRequired
