"""Leases: who gets which jobs, and what an assignment tells."""

from __future__ import annotations

import asyncio

from ropeway.domain.job import JobOptions
from ropeway.domain.lease import LeaseRequest
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.testing.bench import QUEUE, SESSION, TENANT, TTL_MS, Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []


@promise
async def a_lease_starts_an_attempt(bench: Bench) -> None:
    """A leased job is running, its attempt counted, under this worker and session."""
    before = await bench.add()
    bench.clock.advance(250)
    held = await bench.lease_one()
    job = await bench.job(before.id)
    assert (job.state, job.attempt, job.runs) == (State.running, 1, 1)
    assert (job.worker, job.session) == (f"worker-{SESSION}", SESSION)
    assert (job.started_at_ms, job.version) == (bench.clock.now_ms(), before.version + 1)
    assert (job.token, job.epoch) == (held.lease.token, held.lease.epoch)


@promise
async def an_assignment_tells_all_that_a_run_needs(bench: Bench) -> None:
    """Input, options, attempt and the next event's number come with the lease: the worker asks for nothing more."""
    options = JobOptions(timeout_s=3, retry=Retry(max_attempts=2), tags=("x",))
    created = bench.clock.now_ms()
    await bench.add("job_x", input='{"a":[1]}', options=options, queue="gpu", task="draw")
    bench.clock.advance(10)
    (held,) = await bench.lease(queues=("gpu",))
    assert (held.job_id, held.tenant, held.queue, held.task) == ("job_x", TENANT, "gpu", "draw")
    assert (held.input, held.options) == ('{"a":[1]}', options)
    assert (held.attempt, held.crashes, held.next_seq) == (1, 0, 1)
    assert (held.created_at_ms, held.started_at_ms) == (created, created + 10)


@promise
async def every_lease_has_a_fence_of_its_own(bench: Bench) -> None:
    """No two leases share a token, not of one job either; a token carries at least 96 bits."""
    await bench.submit(*(bench.new() for _ in range(20)))
    tokens = [held.lease.token for held in await bench.lease(20)]
    again = await bench.start_job()
    tokens.append(again.lease.token)
    await bench.commit(again, "release")
    tokens.append((await bench.lease_one()).lease.token)
    assert len(set(tokens)) == 22
    assert min(map(len, tokens)) >= 24


@promise
async def an_epoch_is_the_time_of_its_lease(bench: Bench) -> None:
    """A lease's epoch is the engine's time in ms, or one above the job's last when that is not less."""
    held = await bench.start_job()
    assert held.lease.epoch == bench.clock.now_ms()
    await bench.commit(held, "release")
    again = await bench.lease_one()
    assert again.lease.epoch == held.lease.epoch + 1


@promise
async def an_epoch_rises_when_the_clock_steps_back(bench: Bench) -> None:
    """A wall clock that was set back gives no old epoch out again."""
    held = await bench.start_job()
    await bench.commit(held, "release")
    bench.clock.jump(-3_600_000)
    await bench.announce("s2")
    again = await bench.lease_one("s2")
    assert again.lease.epoch == held.lease.epoch + 1


@promise
async def an_unknown_session_leases_nothing(bench: Bench) -> None:
    """Without a session there are no jobs."""
    await bench.add()
    assert await bench.lease(session="nobody") == []
    assert (await bench.stats()).queued == 1


@promise
async def an_expired_session_leases_nothing(bench: Bench) -> None:
    """A session past its deadline gets no job, though nothing has rescued it yet."""
    await bench.add()
    bench.clock.advance(TTL_MS)
    assert await bench.lease() == []
    await bench.announce()
    assert len(await bench.lease()) == 1


@promise
async def a_lease_takes_at_most_its_limit(bench: Bench) -> None:
    """Never more jobs than asked for, and all there are when there are fewer."""
    await bench.submit(*(bench.new() for _ in range(5)))
    assert len(await bench.lease(3)) == 3
    assert len(await bench.lease(10)) == 2
    assert await bench.lease(10) == []


@promise
async def queues_are_served_in_the_order_asked(bench: Bench) -> None:
    """The first queue of a request comes first; the next ones fill what is left; others are not touched."""
    await bench.submit(bench.new("a", queue="low"), bench.new("b", queue="top"), bench.new("c", queue="else"))
    await bench.submit(bench.new("d", queue="top"), bench.new("e", queue="low"))
    leased = await bench.lease(3, queues=("top", "absent", "low"))
    assert [held.job_id for held in leased] == ["b", "d", "a"]
    assert await bench.state("c") is State.queued


@promise
async def a_running_job_is_leased_to_nobody_else(bench: Bench) -> None:
    """A job that runs is in no line."""
    await bench.start_job()
    await bench.announce("s2")
    assert await bench.lease(10, session="s2") == []


@promise
async def parallel_leases_share_no_job(bench: Bench) -> None:
    """Workers that lease at the same time get different jobs, and together all of them."""
    await bench.submit(*(bench.new() for _ in range(40)))
    sessions = [f"w{n}" for n in range(8)]
    for session in sessions:
        await bench.announce(session)
    requests = [LeaseRequest(session, session, (QUEUE,), 7) for session in sessions]
    answers = await asyncio.gather(*(bench.engine.lease(request) for request in requests))
    leased = [held.job_id for answer in answers for held in answer]
    assert len(leased) == 40
    assert len(set(leased)) == 40


@promise
async def a_batch_of_leases_numbers_every_attempt(bench: Bench) -> None:
    """Jobs leased together each have their own attempt and lease."""
    worn = await bench.start_job()
    await bench.commit(worn, "retry")
    fresh = await bench.add()
    leased = {held.job_id: held for held in await bench.lease(2)}
    assert (leased[worn.job_id].attempt, leased[worn.job_id].next_seq) == (2, 2)
    assert (leased[fresh.id].attempt, leased[fresh.id].next_seq) == (1, 1)
