"""The routes of a job: list, look, wait, result, events, cancel, wake, retry, delete."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping

import msgspec
from starlette.requests import Request

from ropeway.blobs.inputs import hold_input
from ropeway.client.wire import JobList, job_body
from ropeway.domain.caller import Caller
from ropeway.domain.errors import (
    InputInvalid,
    InvalidRequest,
    JobCancelled,
    JobError,
    JobLive,
    JobNotFound,
    JobNotRetryable,
    RopewayError,
)
from ropeway.domain.file import FilesNotKept
from ropeway.domain.job import Job, JobQuery, Receipt, renewed
from ropeway.domain.lifecycle import State
from ropeway.engines.base import JobPage
from ropeway.engines.inputs import Inputs
from ropeway.serving.admission import admitted, check_cancel, is_bounded
from ropeway.serving.bodies import CancelRequest, Nothing, read_json
from ropeway.serving.callers import caller_of, tenant_of
from ropeway.serving.files.downloads import FileReply, output_reply
from ropeway.serving.openai.calls import Calls
from ropeway.serving.parts import Parts
from ropeway.serving.problems import Draining, problem_of, problem_reply, recorded_problem
from ropeway.serving.questions import after_of, base_of, changed_since, job_id_of, job_query, types_of
from ropeway.serving.replies import Reply, json_reply
from ropeway.serving.requests import (
    header_map,
    idempotency_key,
    parsed_flag,
    parsed_wait_s,
    preferred_wait_s,
    wants_ndjson,
)
from ropeway.serving.streams import LogReader, LogStream
from ropeway.serving.waits import has_ended, until

__all__ = ["JobRoutes"]

POLL_AGAIN_S = 2.0  # told with a result that is not there yet, when its time is not known


class JobRoutes:
    """One method for each route."""

    def __init__(self, parts: Parts, calls: Calls) -> None:
        self._parts = parts
        self._inputs = Inputs(parts.engine)
        self._calls = calls

    async def list_jobs(self, request: Request) -> Reply:
        page = await self._find(job_query(tenant_of(request), request.query_params))
        base, durability = base_of(request), self._parts.engine.info.durability
        jobs = [
            job_body(job, durability=durability, base=base, with_input=False, with_output=False) for job in page.jobs
        ]
        return json_reply(JobList(jobs, page.next_cursor is not None, page.next_cursor))

    async def get_job(self, request: Request) -> Reply:
        headers = header_map(request.scope)
        known = headers.get(b"if-none-match")
        job = await self._waited(request, headers, has_ended if known is None else changed_since(known))
        if known is not None and not changed_since(known)(job):
            return Reply(304, headers=[(b"etag", b'"%d"' % job.version)])
        return self._parts.job_reply(await self._parts.shown(job, base_of(request)), 200)

    async def get_result(self, request: Request) -> FileReply | Reply:
        if "as" in request.query_params:
            return await self._calls.result(request)
        if "hop" in request.query_params:
            raise InvalidRequest("hop is a part of calls on the OpenAI routes, with `as`", param="hop")
        job = await self._waited(request, header_map(request.scope), has_ended)
        if not job.state.terminal:
            shown = await self._parts.shown(job, base_of(request))
            again_s = min(max(shown.eta or POLL_AGAIN_S, 1), 60)
            return self._parts.job_reply(shown, 202, [(b"retry-after", b"%d" % again_s)])
        if job.state is State.failed:
            return problem_reply(recorded_problem(job.id, _error_of(job)))
        if job.state is State.cancelled:
            return problem_reply(problem_of(JobCancelled(job.id, job.cancel_reason)))
        in_file = await output_reply(self._parts, job, header_map(request.scope))
        return in_file or Reply(200, (job.output or "null").encode(), headers=[(b"etag", b'"%d"' % job.version)])

    async def get_events(self, request: Request) -> LogStream:
        headers = header_map(request.scope)
        query = request.query_params
        reader = LogReader(
            self._parts, tenant_of(request), job_id_of(request), after_of(headers, query), types_of(query)
        )
        follow = parsed_flag("follow", query.get("follow"), True)
        return LogStream(self._parts, reader, ndjson=wants_ndjson(headers), follow=follow)

    async def cancel_job(self, request: Request) -> Reply:
        asked = await read_json(request, self._parts, CancelRequest)
        check_cancel(caller_of(request.scope), asked.for_all)
        key = idempotency_key(header_map(request.scope))
        word = None if key is None else hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
        job = await self._cancel(tenant_of(request), job_id_of(request), asked.reason, word, asked.for_all)
        shown = await self._parts.shown(job, base_of(request))
        return self._parts.job_reply(shown, 200 if job.state.terminal else 202)

    async def wake_job(self, request: Request) -> Reply:
        await read_json(request, self._parts, Nothing)
        job_id = job_id_of(request)
        (answer,) = await self._parts.engine.wake(tenant_of(request), [job_id])
        if isinstance(answer, JobNotFound):
            raise _no_job(job_id)
        return self._parts.job_reply(await self._parts.shown(answer, base_of(request)), 200)

    async def retry_job(self, request: Request) -> Reply:
        await read_json(request, self._parts, Nothing)
        if self._parts.watches.draining:
            raise Draining
        old_id = job_id_of(request)
        key = idempotency_key(header_map(request.scope))
        new_id = self._parts.new_id() if key is None else _repeatable_id(old_id, key)
        answer = await self._again(caller_of(request.scope), old_id, new_id)
        shown = self._parts.submitted(answer.job, base_of(request), max(answer.depth - 1, 0))
        headers = [(b"location", f"{base_of(request)}/v1/jobs/{answer.job.id}".encode())]
        if answer.replayed:
            headers.append((b"idempotency-replayed", b"true"))
        return self._parts.job_reply(shown, 202, headers)

    async def _again(self, caller: Caller, old_id: str, new_id: str) -> Receipt:
        """A new job from an old one, within the caller's limits. Raises what a submit raises, JobNotRetryable."""
        if not is_bounded(caller):
            (answer,) = await self._parts.engine.retry(caller.tenant, [(old_id, new_id)])
        else:
            old = await self._parts.job(caller.tenant, old_id)
            if not old.state.terminal:
                raise JobNotRetryable(f"{old_id} is {old.state}; only a job that has ended can be retried")
            (answer,) = await self._parts.engine.submit([admitted(caller, renewed(old, new_id))])
        if isinstance(answer, JobNotFound):
            raise _no_job(old_id)
        if isinstance(answer, RopewayError):
            raise answer
        with contextlib.suppress(InputInvalid, FilesNotKept):  # its attempt will say what it misses
            await hold_input(self._parts.files, caller.tenant, answer.job.id, answer.job.input)
        return answer

    async def delete_job(self, request: Request) -> Reply:
        job_id = job_id_of(request)
        if parsed_flag("force", request.query_params.get("force"), False):
            await self._stop(request, job_id)
        (answer,) = await self._parts.engine.purge(tenant_of(request), [job_id])
        if isinstance(answer, JobNotFound):
            raise _no_job(job_id)
        if answer is not None:
            raise answer
        await self._inputs.drop(tenant_of(request), job_id)
        return Reply(204)

    async def _stop(self, request: Request, job_id: str) -> None:
        """Cancel the job and see it end. Raises JobLive when it does not in time."""
        job = await self._cancel(tenant_of(request), job_id, "deleted")
        if not job.state.terminal and job.cancel_requested_at_ms is None:
            raise JobLive(f"{job_id} is shared with others, and goes on for them")
        if not job.state.terminal:
            job = await until(
                self._parts,
                request.receive,
                caller_of(request.scope),
                job_id,
                self._parts.options.force_wait_s,
                has_ended,
            )
        if not job.state.terminal:
            raise JobLive(f"{job_id} was asked to stop and still runs; delete it when it has")

    async def _cancel(
        self, tenant: str, job_id: str, reason: str | None, word: str | None = None, for_all: bool = False
    ) -> Job:
        (answer,) = await self._parts.engine.cancel(tenant, [job_id], reason, word, for_all)
        if isinstance(answer, JobNotFound):
            raise _no_job(job_id)
        return answer

    async def _waited(self, request: Request, headers: Mapping[bytes, bytes], enough: Callable[[Job], bool]) -> Job:
        """The job, after the wait that the request asks for, if it does."""
        job_id, options = job_id_of(request), self._parts.options
        asked = request.query_params.get("wait")
        wait_s = preferred_wait_s(headers, options.max_wait_s)
        if asked is not None:
            wait_s = parsed_wait_s(asked, options.max_wait_s)
        if not wait_s or self._parts.watches.draining:
            return await self._parts.job(tenant_of(request), job_id)
        return await until(self._parts, request.receive, caller_of(request.scope), job_id, wait_s, enough)

    async def _find(self, query: JobQuery) -> JobPage:
        try:
            return await self._parts.engine.find(query)
        except (ValueError, OverflowError):  # a cursor is the engine's own text, and this was not its own
            raise InvalidRequest(f"{(query.before or '')[:40]!r} is not a cursor", param="cursor") from None


def _no_job(job_id: str) -> JobNotFound:
    return JobNotFound(f"no job {job_id}")


def _error_of(job: Job) -> JobError:
    """The recorded error of a failed job."""
    if job.error is None:
        return JobError("task_error", f"{job.id} failed")
    return msgspec.json.decode(job.error, type=JobError)


def _repeatable_id(old_id: str, key: str) -> str:
    """The id of a retry under an idempotency key: the same call has the same id, and a known id is a replay."""
    stamp = old_id.removeprefix("job_")[:12]
    return f"job_{stamp}{hashlib.blake2b(f'{old_id} {key}'.encode(), digest_size=10).hexdigest()}"
