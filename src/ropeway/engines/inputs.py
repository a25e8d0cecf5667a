"""What is sent up to a job: records beside it, in the order in which they came, and a hint to its worker.

A job that waits for its next attempt is sent inputs too, and woken by them: it may wait for just that.

Not events: only the holder of a lease may append to a job's log, and what comes from outside must wait for no lease.

An input's id is `<job>/<n>`, n from 1 without a gap: one is only written when the one before is there, and each is
written once (compare-and-set). A head record holds the last n, so that nobody searches; it may lag by what is being
written this moment. Both live as long as the job is kept after it succeeded, and a day at the least; they are dropped
with the job's end by the worker that read them, and with the job when that is deleted.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from ropeway.domain.errors import (
    EngineUnavailable,
    InvalidRequest,
    JobEnded,
    JobNotFound,
    JobNotRunning,
    PayloadTooLarge,
    TooManyInputs,
)
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey
from ropeway.engines.records import Records

__all__ = ["MAX_INPUTS", "MAX_INPUT_BYTES", "Given", "Inputs", "Store", "topic_of"]

MAX_INPUTS = 1_000  # of one job: a retry reads them all again
MAX_INPUT_BYTES = 256 * 1024  # what is larger is a file's
KEY_LIMIT = 255
PAGE = 16

_INPUT, _HEAD = "input", "inputs"  # kinds of records
_DAY_MS = 86_400_000
_LONGEST_MS = 30 * _DAY_MS  # for a job that is kept for ever
_TRIES = 100  # so many others wrote in the meantime: not in this world


class Given(msgspec.Struct, frozen=True):
    """An input: its number, its data as JSON text, and the sender's key, the same for a repeat of the same input."""

    n: int
    data: str
    key: str | None = None


class Store(Records, Protocol):
    """What this needs of an engine."""

    async def get(self, tenant: str, job_ids: list[str]) -> list[Job | None]: ...

    async def tell(self, *topics: str) -> None: ...

    async def wake(self, tenant: str, job_ids: list[str]) -> list[Job | JobNotFound]: ...


class _Body(msgspec.Struct, frozen=True, omit_defaults=True):
    data: msgspec.Raw
    key: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Body).decode


class Inputs:
    """The inputs of all jobs of an engine."""

    def __init__(self, engine: Store) -> None:
        self._engine = engine

    async def give(self, tenant: str, job_id: str, data: str, key: str | None = None) -> int:
        """Keep an input for a job that runs, or will again; its number. Durable, to the engine's class, on return.

        A repeat under the same `key` is kept too, and given to the task once.

        Raises:
            JobNotFound: not this tenant's.
            JobNotRunning: it has not begun yet: try again. JobEnded: it never will run again.
            PayloadTooLarge: more than 256 KiB. TooManyInputs: it has 1,000. InvalidRequest: of the key.
        """
        _check(data, key)
        (job,), (head,) = await asyncio.gather(
            self._engine.get(tenant, [job_id]), self._engine.fetch([_head(tenant, job_id)])
        )
        if job is None:
            raise JobNotFound(f"no job {job_id}")
        _check_begun(job)
        n = await self._write(tenant, job, _last(head), _encode(_Body(msgspec.Raw(data.encode()), key)).decode())
        await self._engine.tell(topic_of(job_id))
        if not _tries_again(job) or not _tries_again(*await self._engine.get(tenant, [job_id])):
            # after the write: whoever looked before it, and goes to sleep over it, is woken by this
            await self._engine.wake(tenant, [job_id])
        return n

    async def read(self, tenant: str, job_id: str, after: int) -> list[Given]:
        """The inputs from number `after + 1` on, a page at the most; those that have expired are passed over."""
        first = after + 1
        numbers = range(first, first + PAGE)
        head, *found = await self._engine.fetch([_head(tenant, job_id), *(_place(tenant, job_id, n) for n in numbers)])
        if found[0] is None and first <= _last(head):
            return await self._read_after_gap(tenant, job_id, first, _last(head))
        return [_given(n, record) for n, record in zip(numbers, found, strict=True) if record is not None]

    async def drop(self, tenant: str, job_id: str) -> None:
        """Delete the inputs of a job that is over."""
        head = _head(tenant, job_id)
        (record,) = await self._engine.fetch([head])
        if record is not None:
            places = [_place(tenant, job_id, n) for n in range(1, _last(record) + 2)]
            await self._engine.drop([*places, head])

    async def _write(self, tenant: str, job: Job, last: int, body: str) -> int:
        ttl_ms = _ttl_ms(job)
        for n in range(last + 1, last + 1 + _TRIES):
            if n > MAX_INPUTS:
                raise TooManyInputs(f"{job.id} was sent {MAX_INPUTS} inputs, as many as a job may have")
            written, _ = await self._engine.put(
                [
                    Put(_place(tenant, job.id, n), body, expected=0, ttl_ms=ttl_ms),
                    Put(_head(tenant, job.id), str(n), ttl_ms=ttl_ms),
                ]
            )
            if not isinstance(written, RecordConflict):
                return n
        raise EngineUnavailable(f"{job.id} is sent more inputs than can be put in order")

    async def _read_after_gap(self, tenant: str, job_id: str, first: int, last: int) -> list[Given]:
        """The first inputs are past their time: the next that is there, and those right behind it."""
        for start in range(first, last + 1, PAGE):
            numbers = range(start, start + PAGE)
            found = await self._engine.fetch([_place(tenant, job_id, n) for n in numbers])
            there = [_given(n, record) for n, record in zip(numbers, found, strict=True) if record is not None]
            if there:
                return there
        return []


def topic_of(job_id: str) -> str:
    """The topic of hints that a job was sent an input."""
    return f"input:{job_id}"


def _check(data: str, key: str | None) -> None:
    size = len(data.encode())
    if size > MAX_INPUT_BYTES:
        raise PayloadTooLarge(f"an input is at most {MAX_INPUT_BYTES:,} bytes of JSON, not {size:,}: send a file's id")
    if key is not None and not (0 < len(key) <= KEY_LIMIT and key.isprintable()):
        raise InvalidRequest(f"an input's key has 1 to {KEY_LIMIT} printable characters", param="key")


def _check_begun(job: Job) -> None:
    if job.state.terminal:
        raise JobEnded(f"{job.id} is {job.state}: nobody reads what it is sent")
    if not job.runs:
        raise JobNotRunning(f"{job.id} is {job.state}, and has not begun: send it again when the job runs")


def _tries_again(job: Job | None) -> bool:
    """Whether it waits after a failure, and for no input."""
    return job is not None and job.state is State.scheduled and job.last_outcome != "snooze"


def _ttl_ms(job: Job) -> int:
    retention_s = job.options.retention_s
    wanted_ms = _LONGEST_MS if retention_s is None else round(retention_s * 1000)
    return min(max(wanted_ms, _DAY_MS), _LONGEST_MS)


def _place(tenant: str, job_id: str, n: int) -> RecordKey:
    return RecordKey(_INPUT, tenant, f"{job_id}/{n}")


def _head(tenant: str, job_id: str) -> RecordKey:
    return RecordKey(_HEAD, tenant, job_id)


def _last(head: Record | None) -> int:
    return 0 if head is None else int(head.body)


def _given(n: int, record: Record) -> Given:
    body = _decode(record.body)
    return Given(n, bytes(body.data).decode(), body.key)
