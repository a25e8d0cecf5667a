"""Tenants: another's job is as one that does not exist (guarantee G10)."""

from __future__ import annotations

from ropeway.domain.errors import JobNotFound
from ropeway.domain.event import START, Cursor
from ropeway.domain.job import JobQuery
from ropeway.testing.bench import TENANT, Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []

RIVAL = "rival"


@promise
async def a_strangers_job_cannot_be_read(bench: Bench) -> None:
    """Get, read, position and find give another tenant nothing, at any cursor, and its counts are 0."""
    ended = await bench.finish("ended")
    await bench.add("waiting")
    assert await bench.engine.get(RIVAL, ["waiting", "ended"]) == [None, None]
    for job_id in ("waiting", "ended"):
        for cursor in (START, Cursor(0, 1), ended.last_cursor, Cursor(10**15, 0)):
            assert await bench.engine.read(RIVAL, job_id, cursor, 10) is None
        assert await bench.engine.position(RIVAL, job_id) is None
    assert (await bench.engine.find(JobQuery(RIVAL))).jobs == ()
    stats = await bench.stats(tenant=RIVAL)
    assert (stats.queued, stats.succeeded, stats.oldest_queued_at_ms) == (0, 0, None)


@promise
async def a_strangers_job_cannot_be_touched(bench: Bench) -> None:
    """Cancel, retry and purge of another tenant's job are answered as for an unknown one, and leave no trace."""
    await bench.finish("ended")
    running = await bench.start_job("running")
    await bench.add("waiting")
    ids = ["ended", "waiting", running.job_id, "absent"]
    before = await bench.engine.get(TENANT, ids)
    answers: list[object] = [
        *await bench.engine.cancel(RIVAL, ids, "mine now"),
        *await bench.engine.purge(RIVAL, ids),
        *await bench.engine.retry(RIVAL, [(job_id, f"{job_id}-again") for job_id in ids]),
    ]
    assert [type(answer) for answer in answers] == [JobNotFound] * 12
    assert len({str(answer) for answer in answers}) == 1
    assert await bench.engine.get(TENANT, ids) == before
    assert await bench.engine.get(RIVAL, [f"{job_id}-again" for job_id in ids]) == [None] * 4


@promise
async def tenants_share_a_queue_not_their_jobs(bench: Bench) -> None:
    """In one queue each tenant finds its own jobs, and a worker is told whose job it runs."""
    await bench.submit(bench.new("mine"), bench.new("theirs", tenant=RIVAL))
    assert {held.job_id: held.tenant for held in await bench.lease(2)} == {"mine": TENANT, "theirs": RIVAL}
    for tenant, job_id in ((TENANT, "mine"), (RIVAL, "theirs")):
        assert [job.id for job in (await bench.engine.find(JobQuery(tenant))).jobs] == [job_id]
