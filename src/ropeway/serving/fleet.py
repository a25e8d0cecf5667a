"""The routes of what is around the jobs: queues, tasks, workers, figures, and what this gateway is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from importlib.metadata import version

import msgspec
from starlette.requests import Request

from ropeway.client.fleet import (
    HealthBody,
    InfoBody,
    LimitsBody,
    PolicyRequest,
    PurgeBody,
    QueueBody,
    QueueList,
    StatsBody,
    TaskBody,
    TaskList,
    WorkerList,
    queue_body,
    task_body,
    worker_body,
)
from ropeway.client.wire import timestamp
from ropeway.domain.caller import Scope
from ropeway.domain.errors import JobNotFound, RopewayError
from ropeway.domain.job import DEFAULT_TENANT, JobQuery, check_name
from ropeway.domain.lifecycle import WAITING, State
from ropeway.domain.queue import QueueChange, QueueStats
from ropeway.serving.bodies import Nothing, read_json
from ropeway.serving.callers import caller_of, tenant_of, who_asked
from ropeway.serving.door import require
from ropeway.serving.parts import Parts
from ropeway.serving.problems import QueueNotFound
from ropeway.serving.replies import Reply, json_reply
from ropeway.serving.requests import parsed_flag

__all__ = ["FleetRoutes"]

HEALTH_DEADLINE_S = 2.0
PURGE_PAGE = 500
PURGE_PAGES = 20  # so that one request ends soon; the answer says when there is more

_VERSION = version("ropeway")

audit = logging.getLogger("ropeway.audit")


class FleetRoutes:
    """One method for each route."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    # -- queues

    async def list_queues(self, request: Request) -> Reply:
        return json_reply(QueueList([self._queue(tenant_of(request), stats) for stats in await self._stats(request)]))

    async def get_queue(self, request: Request) -> Reply:
        return json_reply(await self._queue_named(request, _queue_of(request)))

    async def pause_queue(self, request: Request) -> Reply:
        return await self._set_paused(request, True)

    async def resume_queue(self, request: Request) -> Reply:
        return await self._set_paused(request, False)

    async def set_queue(self, request: Request) -> Reply:
        asked = await read_json(request, self._parts, PolicyRequest, needed=True)
        queue = _queue_of(request)
        await self._parts.engine.set_queue([asked.change(queue)])
        audit.info("queue %s set to %s, by %s", queue, asked, who_asked(request))
        return json_reply(await self._queue_named(request, queue))

    async def purge_queue(self, request: Request) -> Reply:
        """Cancel what waits now; what comes in meanwhile stays."""
        await read_json(request, self._parts, Nothing)
        queue = _queue_of(request)
        await self._queue_named(request, queue)
        cancelled, before = 0, None
        for _ in range(PURGE_PAGES):
            query = JobQuery(tenant_of(request), tuple(WAITING), queue, limit=PURGE_PAGE, before=before)
            page = await self._parts.engine.find(query)
            cancelled += await self._cancel_all(tenant_of(request), [job.id for job in page.jobs])
            before = page.next_cursor
            if before is None:
                break
        return json_reply(PurgeBody(queue, cancelled, more=before is not None))

    async def _cancel_all(self, tenant: str, job_ids: Sequence[str]) -> int:
        answers = await self._parts.engine.cancel(tenant, job_ids, "the queue was purged", None, True)
        return sum(not isinstance(job, JobNotFound) and job.state is State.cancelled for job in answers)

    async def _set_paused(self, request: Request, paused: bool) -> Reply:
        await read_json(request, self._parts, Nothing)
        queue = _queue_of(request)
        await self._parts.engine.set_queue([QueueChange(queue, paused=paused)])
        return json_reply(await self._queue_named(request, queue))

    async def _queue_named(self, request: Request, queue: str) -> QueueBody:
        found = next((stats for stats in await self._stats(request) if stats.queue == queue), None)
        if found is None:
            raise QueueNotFound(f"no queue '{queue}' has ever had a job or a policy")
        return self._queue(tenant_of(request), found)

    def _queue(self, tenant: str, stats: QueueStats) -> QueueBody:
        rates = self._parts.rates
        body = queue_body(stats, rates.known(stats.queue), rates.wait_s(stats.queue, stats.waiting))
        if body.policy is None:
            return body
        own = {name: weight for name, weight in body.policy.weights.items() if name == tenant}
        return msgspec.structs.replace(body, policy=msgspec.structs.replace(body.policy, weights=own))

    async def _stats(self, request: Request) -> list[QueueStats]:
        return await self._parts.engine.stats(tenant_of(request))

    # -- tasks and workers

    async def list_tasks(self, request: Request) -> Reply:
        return json_reply(TaskList([task_body(card) for card in await self._parts.catalogue.cards()]))

    async def get_task(self, request: Request) -> Reply:
        entry = await self._parts.catalogue.entry(request.path_params["name"])
        body: TaskBody = task_body(entry.card)
        return json_reply(body)

    async def list_workers(self, request: Request) -> Reply:
        return json_reply(WorkerList([worker_body(card) for card in await self._parts.engine.workers()]))

    # -- figures

    async def get_stats(self, request: Request) -> Reply:
        caller = caller_of(request.scope)
        is_all = parsed_flag("all", request.query_params.get("all"), False)
        if is_all:
            require(caller, Scope.metrics)
        queues = await self._parts.engine.stats(None if is_all else caller.tenant)
        workers = await self._parts.engine.workers()
        rates = [self._parts.rates.known(stats.queue) for stats in queues]
        known = [rate for rate in rates if rate is not None]
        oldest = [stats.oldest_queued_at_ms for stats in queues if stats.oldest_queued_at_ms is not None]
        return json_reply(
            StatsBody(
                **{state.value: sum(getattr(stats, state.value) for stats in queues) for state in State},
                oldest_queued_at=timestamp(min(oldest)) if oldest else None,
                rate=sum(known) if known else None,
                workers=len(workers),
                slots=sum(worker.slots for worker in workers),
                streams=len(self._parts.watches) if is_all else self._parts.door.stays.of_tenant(caller.tenant),
            )
        )

    async def get_info(self, request: Request) -> Reply:
        info, options = self._parts.engine.info, self._parts.options
        return json_reply(
            InfoBody(
                name="ropeway",
                version=_VERSION,
                engine=info.kind,
                engine_version=info.version,
                durability=info.durability,
                warnings=list(info.warnings),
                limits=LimitsBody(
                    body_bytes=options.max_body_bytes,
                    batch_bytes=options.max_batch_bytes,
                    batch_lines=options.max_batch_lines,
                    depth=options.max_depth,
                    wait_s=options.max_wait_s,
                    file_bytes=None if self._parts.files is None else options.max_file_bytes,
                ),
            )
        )

    # -- health

    async def get_livez(self, request: Request) -> Reply:
        """This process answers."""
        return json_reply(HealthBody("ok"))

    async def get_healthz(self, request: Request) -> Reply:
        """This gateway and its engine answer."""
        return await self._health()

    async def get_readyz(self, request: Request) -> Reply:
        """New work may be sent here: nothing drains, the engine takes jobs, and there is a task to submit to."""
        if self._parts.watches.draining:
            return json_reply(HealthBody("draining"), 503)
        health = await self._health(takes_jobs=True)
        if health.status == 200 and not await self._parts.engine.tasks():
            return json_reply(HealthBody("starting", "no task is announced yet: is a worker running?"), 503)
        return health

    async def _health(self, *, takes_jobs: bool = False) -> Reply:
        try:
            async with asyncio.timeout(HEALTH_DEADLINE_S):
                await self._parts.engine.get(DEFAULT_TENANT, ["job_health"])
                if takes_jobs:
                    await self._parts.engine.submit([])
        except RopewayError as error:
            self._parts.noticed(error)
            return json_reply(HealthBody("unavailable", error.detail), 503)
        except TimeoutError:
            return json_reply(HealthBody("unavailable", f"the engine was silent for {HEALTH_DEADLINE_S:g} s"), 503)
        return json_reply(HealthBody("ok"))


def _queue_of(request: Request) -> str:
    return check_name("queue", request.path_params["name"])
