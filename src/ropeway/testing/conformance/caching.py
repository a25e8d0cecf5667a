"""Results used again: a submit of the same content is answered with the job that succeeded (domain/cache.py)."""

from __future__ import annotations

from datetime import date
from typing import Any

from ropeway.domain.cache import HITS, JOINS, keyed_id
from ropeway.domain.errors import QueueFull
from ropeway.domain.job import CacheKey, Job, JobOptions, NewJob, Receipt
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueChange
from ropeway.testing.bench import QUEUE, TENANT, Bench, as_
from ropeway.testing.conformance.registry import promise

__all__ = ["KEY", "OTHER", "answer", "ask", "counted", "made", "served"]

KEY = "5e1f0a9c" + "0" * 24
OTHER = "0badcafe" + "1" * 24
TTL_S = 3600


def ask(bench: Bench, key: str = KEY, ttl_s: float = TTL_S, fresh: bool = False, **fields: Any) -> NewJob:
    """A submit of the content that this key stands for."""
    new = bench.new(**fields)
    return bench.new(keyed_id(new.id, key), **fields, cache=CacheKey(key, round(ttl_s * 1000), fresh))


async def answer(bench: Bench, new: NewJob) -> Receipt:
    return as_(Receipt, (await bench.engine.submit([new]))[0])


async def made(bench: Bench, new: NewJob) -> Job:
    """The job that this submit makes; it must be its own."""
    receipt = await answer(bench, new)
    assert (receipt.job.id, receipt.cached, receipt.replayed) == (new.id, False, False)
    return receipt.job


async def served(bench: Bench, new: NewJob) -> Job:
    """The job of another submit that this one is answered with."""
    receipt = await answer(bench, new)
    assert receipt.job.id != new.id
    assert (receipt.cached, receipt.replayed) == (True, False)
    assert await bench.engine.get(new.tenant, [new.id]) == [None]
    return receipt.job


async def counted(bench: Bench, tenant: str = TENANT) -> dict[str, float]:
    """What the tenant's account tells of the cache."""
    rows = await bench.engine.usage(tenant, date.min, date.max)
    assert all(row.task == "echo" for row in rows)
    return {name: amount for row in rows for name, amount in row.amounts.items()}


async def finished(bench: Bench, kind: str = "succeeded", **fields: Any) -> str:
    """A job with the key that ran to this end; its id."""
    await bench.announce()
    await made(bench, ask(bench, **fields))
    held = await bench.lease_one()
    await bench.commit(held, kind)
    return held.job_id


@promise
async def a_result_is_used_again_until_it_is_too_old(bench: Bench) -> None:
    """A job that succeeded is the answer for as long as the time to live says, from its end; then a new one is made."""
    await made(bench, ask(bench))
    held = await bench.lease_one()
    bench.clock.advance(s=5)
    await bench.commit(held, output='"done"')
    done = await bench.job(held.job_id)
    bench.clock.advance(999, s=TTL_S - 1)
    assert await served(bench, ask(bench)) == done
    assert await bench.job(done.id) == done
    assert await counted(bench) == {HITS: 1}
    bench.clock.advance(1)
    renewed = await made(bench, ask(bench))
    assert (await served(bench, ask(bench))).id == renewed.id


@promise
async def the_shorter_time_to_live_counts(bench: Bench) -> None:
    """A result serves no longer than its own submit said, nor an asker who wants it younger."""
    done = await finished(bench, ttl_s=60)
    bench.clock.advance(s=30)
    assert (await served(bench, ask(bench, ttl_s=31))).id == done
    younger = await made(bench, ask(bench, ttl_s=30))
    assert (await served(bench, ask(bench))).id == younger.id
    await bench.announce()
    await bench.commit(await bench.lease_one())
    bench.clock.advance(s=30)
    await made(bench, ask(bench, ttl_s=6000))


@promise
async def retention_ends_a_result(bench: Bench) -> None:
    """A job that is pruned or purged serves nobody, whatever its time to live; nor does its key stay behind."""
    await finished(bench, options=JobOptions(retention_s=10))
    bench.clock.advance(s=10)
    assert await bench.engine.prune(10) == 1
    for _ in range(2):  # the last of them leaves a store in which nothing of it is left: its harness looks
        purged = await finished(bench)
        assert await bench.engine.purge(TENANT, [purged]) == [None]


@promise
async def failed_and_cancelled_jobs_serve_nobody(bench: Bench) -> None:
    """After a failure or a cancel the next submit makes a job, which has the key from then on."""
    for kind in ("failed", "cancelled"):
        failed = await finished(bench, kind=kind)
        again = await made(bench, ask(bench))
        assert again.id != failed
        assert (await served(bench, ask(bench))).id == again.id
        await bench.commit(await bench.lease_one(), "failed")
    waiting = await made(bench, ask(bench))
    assert (await bench.cancel(waiting.id)).state is State.cancelled
    await made(bench, ask(bench))


@promise
async def keys_are_apart(bench: Bench) -> None:
    """Other content and other tenants have jobs of their own, and so has who asks for none of this."""
    first = await made(bench, ask(bench))
    other = await made(bench, ask(bench, OTHER))
    rival = await made(bench, ask(bench, tenant="rival"))
    plain = await bench.add()
    assert len({first.id, other.id, rival.id, plain.id}) == 4
    assert (await served(bench, ask(bench, tenant="rival"))).id == rival.id
    assert await counted(bench) == {}
    assert await counted(bench, "rival") == {JOINS: 1}


@promise
async def a_fresh_one_takes_the_key(bench: Bench) -> None:
    """Who wants no result that is there gets a job, live or ended as the other may be, and the next are its sharers."""
    old = await made(bench, ask(bench))
    new = await made(bench, ask(bench, fresh=True))
    assert (await served(bench, ask(bench))).id == new.id
    assert (await bench.job(old.id)).joined == 0


@promise
async def a_served_submit_needs_no_room(bench: Bench) -> None:
    """A full queue refuses what would be stored: to be answered with another's job is not."""
    await bench.engine.set_queue([QueueChange(QUEUE, max_depth=1)])
    job = await made(bench, ask(bench))
    assert (await served(bench, ask(bench))).id == job.id
    (refused,) = await bench.engine.submit([ask(bench, OTHER)])
    as_(QueueFull, refused)
    await bench.lease_one()
    await made(bench, ask(bench, OTHER))


@promise
async def an_idempotency_key_comes_first(bench: Bench) -> None:
    """Its repeat is answered with the job that it was given, its own or one that it shared, and joins no more."""
    own = await made(bench, ask(bench, idempotency_key="k", fingerprint="f"))
    again = await answer(bench, ask(bench, idempotency_key="k", fingerprint="f"))
    assert (again.job, again.replayed, again.cached) == (own, True, False)
    shared = await served(bench, ask(bench, idempotency_key="l", fingerprint="f"))
    again = await answer(bench, ask(bench, idempotency_key="l", fingerprint="f"))
    assert (again.job, again.replayed, again.cached) == (shared, True, False)
    await bench.commit(await bench.lease_one(), "failed")
    again = await answer(bench, ask(bench, idempotency_key="l", fingerprint="f"))
    assert (again.job.id, again.job.state, again.replayed) == (own.id, State.failed, True)


@promise
async def keys_that_came_by_sharing_are_freed(bench: Bench) -> None:
    """An idempotency key that shared a job goes with it and its day, as any."""
    await made(bench, ask(bench))
    await served(bench, ask(bench, idempotency_key="k", fingerprint="f"))
    held = await bench.lease_one()
    await bench.commit(held)
    await bench.engine.purge(TENANT, [held.job_id])
    bench.clock.advance(s=86_400)
    await bench.engine.prune(100)
    await made(bench, ask(bench, idempotency_key="k", fingerprint="g"))


@promise
async def a_retry_stands_apart(bench: Bench) -> None:
    """Who asks that an ended job be run again has that, and not the result that is there."""
    done = await finished(bench)
    (receipt,) = await bench.engine.retry(TENANT, [(done, "again")])
    assert (as_(Receipt, receipt).job.id, as_(Receipt, receipt).cached) == ("again", False)
    assert (await served(bench, ask(bench))).id == done
