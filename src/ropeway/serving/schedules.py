"""Schedules over HTTP. Each change is told in the log `ropeway.audit`: a schedule outlives the key that set it."""

from __future__ import annotations

import logging

import msgspec
from starlette.requests import Request

from ropeway.blobs.inputs import check_input, hold_input, may_have_files
from ropeway.client.schedulebook import ScheduleBook
from ropeway.client.schedules import ScheduleList, ScheduleRequest, rules_of
from ropeway.client.submission import canonical_fingerprint, new_job
from ropeway.domain.caller import Caller
from ropeway.domain.errors import RopewayError
from ropeway.domain.schedule import Plan, changes_of, check_schedule_name
from ropeway.serving.admission import admitted, limits_of
from ropeway.serving.bodies import Nothing, read_json
from ropeway.serving.callers import caller_of, tenant_of, who_asked
from ropeway.serving.hooks import check_webhook
from ropeway.serving.parts import Parts
from ropeway.serving.problems import Draining
from ropeway.serving.questions import base_of, limit_of
from ropeway.serving.replies import Reply, json_reply
from ropeway.serving.requests import header_map, idempotency_key
from ropeway.serving.schedule_routes import SCHEDULES_DEFAULT, SCHEDULES_LIMIT

__all__ = ["ScheduleRoutes"]

audit = logging.getLogger("ropeway.audit")


class ScheduleRoutes:
    """One method for each route."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._book = ScheduleBook(parts.engine, parts.random)

    async def list_schedules(self, request: Request) -> Reply:
        limit = limit_of(request.query_params.get("limit"), SCHEDULES_DEFAULT, SCHEDULES_LIMIT)
        cursor = request.query_params.get("cursor")
        after = "" if cursor is None else check_schedule_name(cursor)
        found, more = await self._book.page(tenant_of(request), after, limit)
        return json_reply(ScheduleList(found, more is not None, more))

    async def get_schedule(self, request: Request) -> Reply:
        return json_reply(await self._book.get(tenant_of(request), _name(request)))

    async def set_schedule(self, request: Request) -> Reply:
        caller, name = caller_of(request.scope), _name(request)
        asked = await read_json(request, self._parts, ScheduleRequest)
        rules, plan = rules_of(asked), await self._plan(caller, asked)
        body, made = await self._book.set(caller.tenant, name, rules, plan, asked.paused)
        _tell(request, "made" if made else "set")
        where = [(b"location", f"{base_of(request)}/v1/schedules/{name}".encode())]
        return json_reply(body, 201, where) if made else json_reply(body)

    async def remove_schedule(self, request: Request) -> Reply:
        await self._book.remove(tenant_of(request), _name(request))
        _tell(request, "removed")
        return Reply(204)

    async def pause_schedule(self, request: Request) -> Reply:
        return await self._paused(request, True)

    async def resume_schedule(self, request: Request) -> Reply:
        return await self._paused(request, False)

    async def run_schedule(self, request: Request) -> Reply:
        await read_json(request, self._parts, Nothing)
        if self._parts.watches.draining:
            raise Draining
        caller, name, key = caller_of(request.scope), _name(request), idempotency_key(header_map(request.scope))
        job = admitted(caller, await self._book.job(caller.tenant, name, self._parts.new_id()))
        if key is not None:
            fingerprint = canonical_fingerprint({"schedule": name})
            job = msgspec.structs.replace(job, idempotency_key=key, fingerprint=fingerprint)
        if may_have_files(job.input):
            await hold_input(self._parts.files, caller.tenant, job.id, job.input)
        (answer,) = await self._parts.engine.submit([job])
        if isinstance(answer, RopewayError):
            raise answer
        headers = [(b"location", f"{base_of(request)}/v1/jobs/{answer.job.id}".encode())]
        if answer.replayed:
            headers.append((b"idempotency-replayed", b"true"))
        shown = self._parts.submitted(answer.job, base_of(request), max(answer.depth - 1, 0))
        return self._parts.job_reply(shown, 202, headers)

    async def _paused(self, request: Request, paused: bool) -> Reply:
        await read_json(request, self._parts, Nothing)
        body = await self._book.pause(tenant_of(request), _name(request), paused)
        _tell(request, "paused" if paused else "resumed")
        return json_reply(body)

    async def _plan(self, caller: Caller, asked: ScheduleRequest) -> Plan:
        """What is asked to be submitted, as if it were submitted now: whoever may not do that may not schedule it."""
        entry = await self._parts.catalogue.entry(asked.job.task)
        entry.check(bytes(asked.job.input))
        job = new_job(entry.card, asked.job, id="", tenant=caller.tenant)
        check_webhook(job, self._parts.options.webhook_allow)
        job = admitted(caller, job)
        if may_have_files(job.input):
            await check_input(self._parts.files, caller.tenant, job.input)
        plan = changes_of(entry.card, job, says_cost=asked.job.cost is not None)
        return msgspec.structs.replace(plan, limits=tuple(limits_of(caller)))


def _name(request: Request) -> str:
    return check_schedule_name(request.path_params["name"])


def _tell(request: Request, what: str) -> None:
    caller = caller_of(request.scope)
    audit.info(
        "schedule %s of tenant %s %s, by %s", request.path_params["name"], caller.tenant, what, who_asked(request)
    )
