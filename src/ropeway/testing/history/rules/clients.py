"""What clients do."""

from __future__ import annotations

import zlib

import msgspec

from ropeway.domain.event import START, Cursor
from ropeway.domain.job import CacheKey, JobOptions, JobQuery, NewJob
from ropeway.domain.lifecycle import State
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.domain.webhook import WEBHOOK_EVENTS, Webhook, WebhookEvent
from ropeway.testing.history.record import TENANTS, Call
from ropeway.testing.history.rules.limits import brought
from ropeway.testing.history.world import QUEUES, YEAR_MS, World

__all__ = ["cancel", "find", "get", "position", "purge", "read", "repeat", "retry", "submit", "wake"]

KEYS = ("x", "y")
BODIES = ("1", "2")
KEY = f"{1:08x}"


def submit(world: World) -> Call | None:
    """One to three jobs, often with an idempotency key that is used already."""
    return Call("submit", ([_new_job(world) for _ in range(world.rng.choice((1, 1, 1, 2, 3)))],))


def repeat(world: World) -> Call | None:
    """A call made before, once more: the reply was lost, or the client is not sure."""
    calls = [call for call in world.made[-8:] if world.repeatable(call)]
    return world.rng.choice(calls) if calls else None


def cancel(world: World) -> Call | None:
    ids = world.job_ids()
    if not ids:
        return None
    job_id = world.rng.choice(ids)
    reason = world.rng.choice((None, f"reason {world.number()}"))
    return Call("cancel", (world.tenant_for(job_id), [job_id], reason))


def wake(world: World) -> Call | None:
    """One job or two: as a rule such as wait for a time or run, now and then whichever, and one twice."""
    ids = world.job_ids()
    if not ids:
        return None
    rng, jobs = world.rng, world.look.jobs.values()
    sleepers = [job.id for job in jobs if job.state is State.scheduled]
    runners = [job.id for job in jobs if job.state is State.running]
    job_id = rng.choice(rng.choice((sleepers, runners, runners, ids)) or ids)
    more = rng.choice(([], [], [], [job_id], [rng.choice(ids)]))
    return Call("wake", (world.tenant_for(job_id), [job_id, *more]))


def get(world: World) -> Call | None:
    ids = world.job_ids()
    if not ids:
        return None
    return Call("get", (world.rng.choice(TENANTS), world.rng.sample(ids, min(3, len(ids)))))


def read(world: World) -> Call | None:
    """A page of a log: from where some reader stood, from the start, or rarely from a cursor of another store."""
    ids = world.job_ids()
    if not ids:
        return None
    job_id = world.rng.choice(ids)
    cursors = world.cursors.get(job_id, [START])
    after = world.rng.choice((START, cursors[-1], world.rng.choice(cursors)))
    if world.rng.random() < 0.05:
        after = Cursor(world.clock.now_ms() * 2, 0)
    return Call("read", (world.tenant_for(job_id), job_id, after, world.rng.choice((1, 2, 3, 100))))


def find(world: World) -> Call | None:
    rng = world.rng
    states = rng.choice(((), (State.queued,), (State.running, State.scheduled), (State.failed, State.succeeded)))
    query = JobQuery(rng.choice(TENANTS), states, rng.choice((None, *QUEUES)), limit=1000)
    return Call("find", (query,))


def position(world: World) -> Call | None:
    ids = world.job_ids()
    if not ids:
        return None
    job_id = world.rng.choice(ids)
    return Call("position", (world.tenant_for(job_id), job_id))


def retry(world: World) -> Call | None:
    ids = world.job_ids()
    if not ids:
        return None
    job_id = world.rng.choice(ids)
    tenant = world.tenant_for(job_id)
    return Call("retry", (tenant, [(job_id, world.new_id(tenant))]))


def purge(world: World) -> Call | None:
    ids = world.job_ids()
    if not ids:
        return None
    job_id = world.rng.choice(ids)
    return Call("purge", (world.tenant_for(job_id), [job_id]))


def _new_job(world: World) -> NewJob:
    rng = world.rng
    tenant = rng.choice(TENANTS)
    body = rng.choice(BODIES)
    key = rng.choice((None, None, *KEYS))
    job_id = world.new_id(tenant)
    cache = _cache(job_id)
    return NewJob(
        job_id if cache is None else world.take_key(job_id, cache.key),
        tenant,
        rng.choice(QUEUES),
        "task",
        f'{{"body":{body}}}',
        rng.choice((Priority.normal, Priority.normal, Priority.low, Priority.high)),
        _delay_ms(world),
        brought(world, job_id, _declared(world, job_id, _hooked(job_id, _options(world)))),
        key,
        "" if key is None else body,
        cache=cache,
    )


def _delay_ms(world: World) -> int:
    """In a wakeful history some wait until somebody wakes them."""
    delay_ms = world.rng.choice((0, 0, 0, 0, 500, 3000))
    return YEAR_MS if world.wakeful and delay_ms == 3000 and world.rng.random() < 0.5 else delay_ms


def _cache(job_id: str) -> CacheKey | None:
    """Half may share what others run, or a result, some but a young one, and a few neither. Not drawn, either."""
    drawn = zlib.crc32(f"cache {job_id}".encode()) >> 8
    return None if drawn % 2 else CacheKey(KEY, (500, *[60_000] * 3)[drawn // 2 % 4], drawn % 11 == 0)


def _hooked(job_id: str, options: JobOptions) -> JobOptions:
    """Of half the jobs somebody is told of an end. Not drawn: a seed's history stays what it was."""
    drawn = zlib.crc32(job_id.encode()) % 6
    if drawn > 2:
        return options
    events: tuple[WebhookEvent, ...] = ("job.failed",) if drawn == 0 else WEBHOOK_EVENTS
    return msgspec.structs.replace(options, webhook=Webhook("https://hooks.example/", events))


def _declared(world: World, job_id: str, options: JobOptions) -> JobOptions:
    """Some may not snooze, or but once, and some go on from the output that they made before. Not drawn, either."""
    drawn = zlib.crc32(job_id.encode()) // 6
    most = ((0, 1, 1000), (2, 1000, 1000))[world.wakeful][drawn % 3]
    return msgspec.structs.replace(options, max_snoozes=most, resumable=drawn % 2 == 0)


def _options(world: World) -> JobOptions:
    rng = world.rng
    return JobOptions(
        queue_timeout_s=rng.choice((None, None, None, None, 2.0)),
        retention_s=rng.choice((86_400.0, None, 5.0)),
        failed_retention_s=rng.choice((None, None, 5.0)),
        retry=Retry(max_attempts=rng.choice((1, 2, 3))),
        max_crashes=rng.choice((1, 2, 3)),
        cost=rng.choice((1.0, 1.0, 4.0)),
    )
