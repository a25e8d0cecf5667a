"""`POST /v1/jobs`: one job or many, answered at once, after a wait, or with the job's events.

This is the hot path: it runs beside the router, and does one decode, one validation, one submit and one encode.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ropeway.blobs.inputs import hold_input, may_have_files
from ropeway.client.caching import keyed
from ropeway.client.holding import Holding
from ropeway.client.submission import canonical_fingerprint, new_job
from ropeway.client.timing import timed
from ropeway.client.wire import JobBody, request_json
from ropeway.domain.caller import Caller
from ropeway.domain.errors import InvalidRequest, PayloadTooLarge, RateLimited, RopewayError
from ropeway.domain.job import Job, NewJob, Receipt
from ropeway.engines.base import Refusal
from ropeway.serving.admission import admitted, body_limit
from ropeway.serving.bodies import decode_request
from ropeway.serving.callers import caller_of
from ropeway.serving.deadlines import Limit
from ropeway.serving.hooks import check_webhook
from ropeway.serving.parts import Parts
from ropeway.serving.problems import Draining, Problem, StreamNotSupported, TooManyStreams, problem_of
from ropeway.serving.receipts import Receipts
from ropeway.serving.replies import NDJSON, Receive, Reply, Scope
from ropeway.serving.requests import (
    idempotency_key,
    is_ndjson,
    preferred_wait_s,
    read_body,
    require_json,
    wants_sse,
)
from ropeway.serving.streams import LogReader, LogStream
from ropeway.serving.strict import check_depth, check_members
from ropeway.serving.waits import has_ended, until

__all__ = ["Submit", "SubmitLine", "Taken", "ahead_of", "cache_status"]

LEFT_REASON = "the client disconnected"

_encode = msgspec.json.Encoder().encode


class SubmitLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one line of an NDJSON submit, in its line's place: a job or a problem."""

    status: int
    job: JobBody | None = None
    problem: Problem | None = None
    replayed: bool = False


class Taken(NamedTuple):
    """What a submit was answered with. `cancels`: its client takes its leave as a cancel."""

    receipt: Receipt
    cancels: bool


class Submit:
    """Takes jobs."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._receipts = Receipts(parts.engine)
        self._holding = Holding(parts.engine)

    async def __call__(self, scope: Scope, receive: Receive, headers: dict[bytes, bytes]) -> Reply | LogStream:
        if self._parts.watches.draining:
            raise Draining
        if is_ndjson(headers):
            return await self._many(scope, receive, headers)
        require_json(headers)
        return await self._one(scope, receive, headers)

    # -- one

    async def _one(self, scope: Scope, receive: Receive, headers: dict[bytes, bytes]) -> Reply | LogStream:
        streams = wants_sse(headers)
        caller = caller_of(scope)
        if streams:
            self._check_room(caller)
        options = self._parts.options
        key = idempotency_key(headers)
        body = await read_body(receive, headers, body_limit(caller, options.max_body_bytes), self._limit())
        receipt, cancels = await self.take(caller, body, key)
        base = scope.get("root_path", "")
        extra = _receipt_headers(receipt, base)
        if streams:
            return self._stream(receipt.job, extra, cancels=cancels)
        wait_s = preferred_wait_s(headers, options.max_wait_s)
        if wait_s is not None:
            return await self._waited(caller, receipt, receive, wait_s, base, extra)
        return self._accepted(receipt, base, extra)

    async def take(self, caller: Caller, body: bytes, key: str | None) -> Taken:
        """Store the job that a body asks for, under this key. Raises what the route answers as a problem."""
        job = await self._new_job(caller, body, key)
        (answer,) = await self._submit_all([job])
        return Taken(_unrefused(answer), job.options.on_disconnect == "cancel")

    def _check_room(self, caller: Caller) -> None:
        """Raises TooManyStreams, RateLimited: before the job is taken."""
        if self._parts.watches.full:
            raise TooManyStreams
        self._parts.door.stays.check(caller)

    async def _new_job(self, caller: Caller, body: bytes, key: str | None) -> NewJob:
        """The job that a body asks for, checked in all respects."""
        check_depth(body, self._parts.options.max_depth)
        request = decode_request(body)
        check_members(body)
        entry = await self._parts.catalogue.entry(request.task)
        entry.check(bytes(request.input))
        job = new_job(
            entry.card,
            timed(request, self._parts.clock),
            id=self._parts.new_id(),
            tenant=caller.tenant,
            idempotency_key=key,
            fingerprint="" if key is None else canonical_fingerprint(request_json(request)),
        )
        check_webhook(job, self._parts.options.webhook_allow)
        job = await keyed(admitted(caller, job), entry.card, request, self._parts.files)
        if may_have_files(job.input):
            await hold_input(self._parts.files, caller.tenant, job.id, job.input)
        return job

    def _accepted(self, receipt: Receipt, base: str, headers: list[tuple[bytes, bytes]]) -> Reply:
        job, ahead = receipt.job, receipt.depth - 1
        is_new = not (receipt.replayed or receipt.cached)
        eta_s = self._parts.rates.wait_s(job.queue, receipt.depth) if is_new else None
        if eta_s is not None:
            headers.append((b"retry-after", b"%d" % min(max(eta_s, 1), 60)))
        shaped = self._receipts.fresh(job, base, ahead, eta_s) if is_new else None
        if shaped is not None:
            headers.append((b"etag", b'"1"'))
            return Reply(202, shaped, headers=headers)
        shown = self._parts.submitted(job, base, ahead_of(receipt), cached=receipt.cached)
        return self._parts.job_reply(shown, 200 if job.state.terminal else 202, headers)

    def _stream(self, job: Job, headers: list[tuple[bytes, bytes]], *, cancels: bool) -> LogStream:
        return LogStream(
            self._parts,
            LogReader(self._parts, job.tenant, job.id),
            headers=headers,
            on_departure=(lambda: self._cancel(job)) if cancels else None,
        )

    async def _cancel(self, job: Job) -> None:
        await self._parts.engine.cancel(job.tenant, [job.id], LEFT_REASON)

    async def _waited(
        self,
        caller: Caller,
        receipt: Receipt,
        receive: Receive,
        wait_s: float,
        base: str,
        headers: list[tuple[bytes, bytes]],
    ) -> Reply:
        """The job when it ends in time, else as it stands then; both are accepted, the status tells them apart."""
        job = receipt.job
        if not (self._parts.watches.full or self._parts.watches.draining):
            with contextlib.suppress(RateLimited):  # it has as many waits open as it may: it is answered at once
                job = await until(self._parts, receive, caller, job.id, wait_s, has_ended)
        headers.append((b"preference-applied", b"wait=%d" % wait_s))
        shown = self._parts.submitted(job, base, None, cached=receipt.cached)
        return self._parts.job_reply(shown, 200 if job.state.terminal else 202, headers)

    def _limit(self) -> Limit:
        return self._parts.deadlines.limit(self._parts.options.body_deadline_s)

    # -- many

    async def _many(self, scope: Scope, receive: Receive, headers: dict[bytes, bytes]) -> Reply:
        if wants_sse(headers):
            raise StreamNotSupported("many jobs are not streamed as one: follow each by its events")
        options = self._parts.options
        key = idempotency_key(headers)
        caller = caller_of(scope)
        body = await read_body(receive, headers, body_limit(caller, options.max_batch_bytes), self._limit())
        lines = [line for line in body.split(b"\n") if line.strip()]
        if not lines:
            raise InvalidRequest("there is no line of JSON in the body")
        if len(lines) > options.max_batch_lines:
            raise PayloadTooLarge(f"{len(lines)} lines are more than the {options.max_batch_lines} taken at once")
        await self._parts.door.admission.take(scope, caller, len(lines) - 1)  # the first was the request itself
        made = [await self._line_job(caller, line, key, n) for n, line in enumerate(lines)]
        answers = iter(await self._submit_all([job for job in made if isinstance(job, NewJob)]))
        base = scope.get("root_path", "")
        told = [self._line(next(answers) if isinstance(job, NewJob) else job, base) for job in made]
        return Reply(200, b"".join(_encode(line) + b"\n" for line in told), NDJSON)

    async def _line_job(self, caller: Caller, line: bytes, key: str | None, n: int) -> NewJob | RopewayError:
        """The job of line `n`, under a key of its own: the same lines under the same key are the same jobs."""
        try:
            if len(line) > self._parts.options.max_body_bytes:
                raise PayloadTooLarge(f"the line is larger than {self._parts.options.max_body_bytes} bytes")
            return await self._new_job(caller, line, None if key is None else _line_key(key, n))
        except RopewayError as refusal:
            return refusal

    async def _submit_all(self, jobs: Sequence[NewJob]) -> list[Receipt | RopewayError]:
        return await self._holding.submit(jobs, self._parts.clock.now_ms(), self._store)

    async def _store(self, jobs: Sequence[NewJob]) -> list[Receipt | Refusal]:
        return await self._parts.engine.submit(jobs) if jobs else []

    def _line(self, answer: Receipt | RopewayError, base: str) -> SubmitLine:
        if isinstance(answer, RopewayError):
            problem = problem_of(answer)
            return SubmitLine(problem.status, problem=problem)
        status = 200 if answer.job.state.terminal else 202
        shown = self._parts.submitted(answer.job, base, ahead_of(answer), cached=answer.cached)
        return SubmitLine(status, shown, replayed=answer.replayed)


def _unrefused(answer: Receipt | RopewayError) -> Receipt:
    if isinstance(answer, RopewayError):
        raise answer
    return answer


def ahead_of(receipt: Receipt) -> int | None:
    """About how many jobs go first: as many as wait, when none was given back by its key or its content."""
    return None if receipt.replayed or receipt.cached else max(receipt.depth - 1, 0)


def _receipt_headers(receipt: Receipt, base: str) -> list[tuple[bytes, bytes]]:
    headers = [(b"location", f"{base}/v1/jobs/{receipt.job.id}".encode())]
    if receipt.replayed:
        headers.append((b"idempotency-replayed", b"true"))
    if receipt.cached:
        headers.append(cache_status(receipt.job))
    return headers


def cache_status(job: Job) -> tuple[bytes, bytes]:
    """The header of an answer that is another's job: its result was there, or is awaited together (RFC 9211)."""
    return b"cache-status", b"ropeway; hit" if job.state.terminal else b"ropeway; fwd=miss; collapsed"


def _line_key(key: str, n: int) -> str:
    return f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}:{n}"
