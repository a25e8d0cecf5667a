"""Calls that are answered whole: waited for, sent on to wait again when they are long, and given up when left.

A proxy ends a quiet answer after a minute, so after 50 s the call is answered 303 to the job's result, which waits as
long again: HTTP clients follow it as one call. An SDK follows 20 times; when we have sent it on 15 times it is told
`sync_timeout` instead, its retry finds the job again, and so it goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.requests import Request

from ropeway.domain.errors import InvalidRequest, Unauthenticated, WaitTimeout
from ropeway.domain.job import Job
from ropeway.serving.callers import caller_of, tenant_of
from ropeway.serving.openai.departures import Departures
from ropeway.serving.openai.intake import Admitted
from ropeway.serving.openai.views import View, answer_of
from ropeway.serving.parts import Parts
from ropeway.serving.problems import problem_of, problem_reply
from ropeway.serving.questions import base_of, job_id_of
from ropeway.serving.replies import Reply
from ropeway.serving.requests import ClientGone, parsed_wait_s
from ropeway.serving.waits import tell_end

__all__ = ["Calls"]


class Calls:
    """Answers calls with views of their jobs."""

    def __init__(self, parts: Parts, departures: Departures, views: Mapping[str, View]) -> None:
        self._parts = parts
        self._departures = departures
        self._views = views

    async def finish(self, request: Request, admitted: Admitted, view: str) -> Reply:
        """The answer to a call that was just taken. Raises ClientGone."""
        return await self._finish(request, admitted, view, self._parts.options.call_wait_s, 0)

    async def result(self, request: Request) -> Reply:
        """`GET /v1/jobs/{id}/result?as=…`: the next hop of a long call, or any job seen as that.

        Raises InvalidRequest, JobNotFound, ClientGone.
        """
        query = request.query_params
        name = query["as"]
        if name not in self._views:
            raise InvalidRequest(f"as is one of {', '.join(self._views)}, not {name[:40]!r}", param="as")
        hop = _parsed_hop(query.get("hop", "0"))
        wait_s = parsed_wait_s(query.get("wait", "0"), self._parts.options.max_wait_s)
        job = await self._parts.job(tenant_of(request), job_id_of(request))
        held = await self._departures.take_up(job) if hop else 0
        headers = [(b"x-job-id", job.id.encode())]
        return await self._finish(request, Admitted(job, headers, held), name, wait_s, hop)

    async def _finish(self, request: Request, admitted: Admitted, view: str, wait_s: float, hop: int) -> Reply:
        job = await self._ended(request, admitted, wait_s)
        if job.state.terminal:
            return await answer_of(self._parts, self._views[view], job, admitted.headers)
        where = f"{base_of(request)}/v1/jobs/{job.id}/result"
        if hop >= self._parts.options.call_hops:
            told = problem_of(WaitTimeout(f"{job.id} goes on: ask again, or look at {where}"))
            return problem_reply(told, [*admitted.headers, (b"location", where.encode())], retry_after_s=1)
        query = urlencode({"as": view, "wait": f"{self._parts.options.call_wait_s:g}", "hop": hop + 1})
        return Reply(303, headers=[*admitted.headers, (b"location", f"{where}?{query}".encode())])

    async def _ended(self, request: Request, admitted: Admitted, wait_s: float) -> Job:
        """The job, once it has ended or the wait is over. Raises ClientGone when its client leaves before."""
        job = admitted.job
        if job.state.terminal or not wait_s or self._parts.watches.draining:
            return job
        loop, options = asyncio.get_running_loop(), self._parts.options
        deadline_s = loop.time() + wait_s
        with self._parts.watches.open(caller_of(request.scope), request.receive, f"end:{job.id}") as watch:
            while True:
                job = await self._parts.job(job.tenant, job.id)
                left_s = deadline_s - loop.time()
                if job.state.terminal or watch.draining or left_s <= 0:
                    tell_end(self._parts, watch, job)
                    return job
                if watch.over:
                    self._departures.left(job, admitted.held)
                    if watch.expelled:
                        raise Unauthenticated("the key was revoked, or has expired, while this waited")
                    raise ClientGone
                await watch.wait(min(left_s, options.recheck_s))


def _parsed_hop(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 4):
        raise InvalidRequest(f"hop is a small number, not {text[:40]!r}", param="hop")
    return int(text)
