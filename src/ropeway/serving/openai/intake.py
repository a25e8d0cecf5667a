"""From a call to its job: made, or found again.

An SDK that lost its connection, or was told to try again, sends the same call once more, and says so in
`X-Stainless-Retry-Count`; it sends no idempotency key. So each call of an SDK leaves word, under its caller, route and
body, of the job that it became; a retry goes on with that job while it lives, and a while after.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import NamedTuple

import msgspec
from starlette.requests import Request

from ropeway.client.caching import keyed
from ropeway.client.submission import canonical_fingerprint, new_job
from ropeway.domain.caller import Caller
from ropeway.domain.errors import InvalidRequest, RopewayError
from ropeway.domain.job import Job, NewJob, Receipt
from ropeway.domain.lifecycle import State
from ropeway.domain.record import Put, RecordKey
from ropeway.engines.base import Refusal
from ropeway.serving.admission import admitted
from ropeway.serving.callers import caller_of
from ropeway.serving.catalogue import Served
from ropeway.serving.hooks import check_webhook
from ropeway.serving.openai.bodies import CallBody, job_request
from ropeway.serving.openai.departures import FIRST, NEVER, Departures
from ropeway.serving.parts import Parts
from ropeway.serving.problems import Draining, TooManyStreams
from ropeway.serving.replies import Headers
from ropeway.serving.requests import header_map, idempotency_key
from ropeway.serving.submit import cache_status

__all__ = ["Admitted", "Call", "Intake", "digest", "job_of_call"]

_KIND = "call"
_WORD_MS = 900_000  # for how long a call is sent on before it is told to come back
_encode = msgspec.json.Encoder().encode


class Call(NamedTuple):
    """A call that was read: its raw body, what is asked of which model, and what becomes of it when its client leaves.

    `mark` is kept in the job's metadata, for views that must know more of the call than the model's request tells.
    """

    raw: bytes
    body: CallBody
    served: Served
    request: msgspec.Struct
    on_disconnect: str = "cancel"
    mark: tuple[str, str] | None = None


class Admitted(NamedTuple):
    """The job of a call. `held` is what its reader holds (see `Departures`)."""

    job: Job
    headers: Headers
    held: int = FIRST


class Intake:
    """Makes jobs of calls."""

    def __init__(self, parts: Parts, departures: Departures) -> None:
        self._parts = parts
        self._departures = departures

    async def admit(self, request: Request, call: Call) -> Admitted:
        """The job of this call, stored. Raises what a submit raises."""
        if self._parts.watches.draining:
            raise Draining
        headers = header_map(request.scope)
        retries = headers.get(b"x-stainless-retry-count", b"")
        found = _call_key(request, call.raw) if retries.isdigit() else None
        if found is not None and int(retries):
            job = await self._found(found)
            if job is not None:
                return Admitted(job, _headers(job), await self._departures.take_up(job))
        key = idempotency_key(headers)
        made = job_of_call(self._parts, caller_of(request.scope), call, None if key is None else _scoped(request, key))
        made = await self._keyed(made, call)
        receipt = await self._submit(made, found)
        told = _headers(receipt.job, receipt.replayed)
        if receipt.cached:
            told.append(cache_status(receipt.job))
        return Admitted(receipt.job, told, await self._held(receipt, made))

    async def _keyed(self, made: NewJob, call: Call) -> NewJob:
        """The job under the key of its content; a response is one caller's own conversation, and has none."""
        card = call.served.entry.card
        if call.mark is not None or (card.cache is None and "cache" not in (call.body.job or {})):
            return made
        asked = job_request(call.body, card.name, made.input.encode(), call.on_disconnect)
        return await keyed(made, card, asked, self._parts.files)

    async def _held(self, receipt: Receipt, made: NewJob) -> int:
        if receipt.cached and made.options.on_disconnect != "cancel":
            return NEVER
        return await self._departures.take_up(receipt.job) if receipt.replayed else FIRST

    def check_room(self, request: Request) -> None:
        """Raises TooManyStreams, RateLimited when no stream may be opened for this caller: before its job is made."""
        if self._parts.watches.full:
            raise TooManyStreams
        self._parts.door.stays.check(caller_of(request.scope))

    async def _submit(self, job: NewJob, call_key: RecordKey | None) -> Receipt:
        if call_key is None:
            return _unrefused(*await self._parts.engine.submit([job]))
        word = Put(call_key, f'"{job.id}"', ttl_ms=_WORD_MS + round(1000 * self._parts.options.reattach_s))
        answers, _ = await asyncio.gather(self._parts.engine.submit([job]), self._leave_word(word))
        receipt = _unrefused(*answers)
        if receipt.cached:
            await self._leave_word(msgspec.structs.replace(word, body=f'"{receipt.job.id}"'))
        return receipt

    async def _leave_word(self, word: Put) -> None:
        """A call whose word is not left is a call like any other: its retry becomes another job."""
        try:
            await self._parts.engine.put([word])
        except RopewayError as error:
            self._parts.noticed(error)

    async def _found(self, key: RecordKey) -> Job | None:
        """The job of an earlier try, if it is one to go on with."""
        (record,) = await self._parts.engine.fetch([key])
        if record is None:
            return None
        (job,) = await self._parts.engine.get(key.tenant, [msgspec.json.decode(record.body, type=str)])
        if job is None or job.state is State.cancelled or job.cancel_requested_at_ms is not None:
            return None
        age_ms = self._parts.clock.now_ms() - (job.finished_at_ms or self._parts.clock.now_ms())
        return job if age_ms < 1000 * self._parts.options.reattach_s else None


def job_of_call(parts: Parts, caller: Caller, call: Call, key: str | None, id_: str | None = None) -> NewJob:
    """The job that a call is, checked in all respects. Raises what a submit raises before the engine is asked."""
    entry = call.served.entry
    try:
        input_json = _encode({"request": call.request})
    except (OverflowError, ValueError) as error:
        raise InvalidRequest(f"a number in the body is too large: {error}") from error
    entry.check(input_json)
    job = new_job(
        entry.card,
        job_request(call.body, entry.card.name, input_json, call.on_disconnect),
        id=id_ or parts.new_id(),
        tenant=caller.tenant,
        idempotency_key=key,
        fingerprint="" if key is None else canonical_fingerprint(call.raw),
    )
    if call.mark is not None:
        metadata = {**job.options.metadata, call.mark[0]: call.mark[1]}
        job = msgspec.structs.replace(job, options=msgspec.structs.replace(job.options, metadata=metadata))
    check_webhook(job, parts.options.webhook_allow)
    return admitted(caller, job)


def _scoped(request: Request, key: str) -> str:
    """An idempotency key belongs to its route: the same one elsewhere is another."""
    path: str = request.scope["path"]
    return digest(path.encode(), key.encode())


def _call_key(request: Request, raw: bytes) -> RecordKey:
    caller = caller_of(request.scope)
    path: str = request.scope["path"]
    return RecordKey(_KIND, caller.tenant, digest((caller.key_id or "").encode(), path.encode(), raw))


def digest(*parts: bytes) -> str:
    """32 hex digits of these."""
    return hashlib.blake2b(b"\x00".join(parts), digest_size=16).hexdigest()


def _unrefused(answer: Receipt | Refusal) -> Receipt:
    if isinstance(answer, RopewayError):
        raise answer
    return answer


def _headers(job: Job, replayed: bool = False) -> list[tuple[bytes, bytes]]:
    headers = [(b"x-job-id", job.id.encode()), (b"x-request-id", job.id.replace("job_", "req_").encode())]
    if replayed:
        headers.append((b"idempotency-replayed", b"true"))
    return headers
