"""Sessions: what a worker holds together, renews together and loses together."""

from __future__ import annotations

import asyncio
import threading

import msgspec

from ropeway.domain.job import JobOptions
from ropeway.domain.lease import Renewal
from ropeway.domain.lifecycle import State
from ropeway.domain.worker import WorkerCard
from ropeway.testing.bench import SESSION, TTL_MS, Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []


@promise
async def a_live_session_is_not_rescued(bench: Bench) -> None:
    """Until its deadline, to the millisecond, a silent session keeps all it holds."""
    held = await bench.start_job()
    bench.clock.advance(TTL_MS - 1)
    assert await bench.engine.rescue(10) == 0
    assert await bench.state(held.job_id) is State.running
    bench.clock.advance(1)
    assert await bench.engine.rescue(10) == 1
    assert await bench.state(held.job_id) is State.queued


@promise
async def a_renewal_extends_all_leases(bench: Bench) -> None:
    """One renewal moves the session's deadline to `ttl_ms` from now, and every job it holds with it."""
    await bench.submit(bench.new(), bench.new())
    held = await bench.lease(2)
    bench.clock.advance(TTL_MS - 1)
    assert await bench.engine.renew(SESSION, 5000) == Renewal(True)
    bench.clock.advance(4999)
    assert await bench.engine.rescue(10) == 0
    bench.clock.advance(1)
    assert await bench.engine.rescue(10) == 2
    assert await bench.states(*(one.job_id for one in held)) == [State.queued, State.queued]


@promise
async def a_renewal_may_shorten(bench: Bench) -> None:
    """The deadline is where the last renewal put it, not the furthest of all."""
    await bench.start_job()
    await bench.engine.renew(SESSION, 100)
    bench.clock.advance(100)
    assert await bench.engine.rescue(10) == 1


@promise
async def only_the_silent_are_rescued(bench: Bench) -> None:
    """A rescue takes the expired sessions whole and leaves the others alone."""
    await bench.announce("s2")
    await bench.submit(*(bench.new() for _ in range(4)))
    lost, kept = await bench.lease(2), await bench.lease(2, session="s2")
    bench.clock.advance(TTL_MS - 1)
    await bench.engine.renew("s2", TTL_MS)
    bench.clock.advance(1)
    assert await bench.engine.rescue(10) == 2
    assert await bench.states(*(one.job_id for one in lost)) == [State.queued] * 2
    assert await bench.states(*(one.job_id for one in kept)) == [State.running] * 2


@promise
async def a_rescued_job_runs_elsewhere(bench: Bench) -> None:
    """What a rescue put back is leased to another worker, as the next attempt."""
    lost = await bench.start_job()
    bench.clock.advance(TTL_MS)
    await bench.engine.rescue(10)
    await bench.announce("s2")
    held = await bench.lease_one("s2")
    assert (held.job_id, held.attempt, held.crashes) == (lost.job_id, 2, 1)
    job = await bench.job(held.job_id)
    assert (job.session, job.worker, job.error is not None) == ("s2", "worker-s2", True)


@promise
async def a_rescue_stops_at_its_limit(bench: Bench) -> None:
    """At most `limit` attempts are ended in one call, the rest by the next."""
    await bench.submit(*(bench.new() for _ in range(5)))
    await bench.lease(5)
    bench.clock.advance(TTL_MS)
    assert [await bench.engine.rescue(2) for _ in range(4)] == [2, 2, 1, 0]
    assert (await bench.stats()).queued == 5


@promise
async def a_rescued_session_is_told(bench: Bench) -> None:
    """A session that was rescued, closed or never opened is not alive when it renews."""
    await bench.start_job()
    bench.clock.advance(TTL_MS)
    await bench.engine.rescue(10)
    assert await bench.engine.renew(SESSION, TTL_MS) == Renewal(False)
    await bench.announce("s2")
    await bench.engine.close("s2")
    assert await bench.engine.renew("s2", TTL_MS) == Renewal(False)
    assert await bench.engine.renew("nobody", TTL_MS) == Renewal(False)


@promise
async def late_but_in_time_counts(bench: Bench) -> None:
    """A session past its deadline that nobody rescued yet may still renew, and its attempts may still commit."""
    held = await bench.start_job()
    bench.clock.advance(10 * TTL_MS)
    assert (await bench.engine.renew(SESSION, TTL_MS)).alive
    assert await bench.engine.rescue(10) == 0
    bench.clock.advance(10 * TTL_MS)
    assert await bench.commit(held) is State.succeeded


@promise
async def an_idle_silent_session_is_forgotten(bench: Bench) -> None:
    """A session that held nothing is gone after its deadline too, and counts as no rescue."""
    bench.clock.advance(TTL_MS)
    assert await bench.engine.rescue(10) == 0
    assert await bench.engine.workers() == []
    assert not (await bench.engine.renew(SESSION, TTL_MS)).alive


@promise
async def closing_rescues_at_once(bench: Bench) -> None:
    """What a session still holds when it is closed is rescued then and there; what it committed is not."""
    await bench.submit(bench.new(), bench.new())
    done, lost = await bench.lease(2)
    await bench.commit(done)
    await bench.engine.close(SESSION)
    assert await bench.states(done.job_id, lost.job_id) == [State.succeeded, State.queued]
    assert (await bench.job(lost.job_id)).crashes == 1
    assert await bench.engine.workers() == []
    await bench.engine.close(SESSION)
    await bench.engine.close("nobody")


@promise
async def a_closed_session_may_open_anew(bench: Bench) -> None:
    """A worker that announces itself again begins with nothing: its old leases stay lost."""
    held = await bench.start_job()
    await bench.engine.close(SESSION)
    await bench.announce()
    assert (await bench.engine.renew(SESSION, TTL_MS)).cancelled == ()
    again = await bench.lease_one()
    assert (again.job_id, again.attempt) == (held.job_id, 2)
    bench.clock.advance(TTL_MS)
    assert await bench.engine.rescue(10) == 1


@promise
async def an_announcement_renews(bench: Bench) -> None:
    """To announce again is to renew, with the session's new `ttl_ms`."""
    await bench.start_job()
    bench.clock.advance(TTL_MS - 1)
    await bench.announce(ttl_ms=50)
    bench.clock.advance(49)
    assert await bench.engine.rescue(10) == 0
    bench.clock.advance(1)
    assert await bench.engine.rescue(10) == 1


@promise
async def workers_are_told_as_they_announced(bench: Bench) -> None:
    """A worker's card is told as last announced, with when it started, its deadline, and what it runs."""
    started = bench.clock.now_ms()
    card = WorkerCard("s2", "gpu-1", ("a", "b"), ("t",), 8, 0, 3, "ready", "host", 42, 7000)
    await bench.engine.announce(card)
    bench.clock.advance(500)
    await bench.engine.announce(msgspec.structs.replace(card, state="draining", threads=1))
    await bench.start_job(session="s2")
    told = {worker.session: worker for worker in await bench.engine.workers()}
    assert set(told) == {SESSION, "s2"}
    assert told["s2"] == msgspec.structs.replace(
        card,
        state="draining",
        threads=1,
        running=1,
        started_at_ms=started,
        expires_at_ms=bench.clock.now_ms() + 7000,
    )


@promise
async def a_renewal_names_the_cancelled(bench: Bench) -> None:
    """A renewal names every job of the session that was asked to stop, each time, until it has ended."""
    await bench.submit(bench.new(), bench.new(), bench.new())
    held = await bench.lease(3)
    for one in held[:2]:
        await bench.cancel(one.job_id)
    for _ in range(2):
        renewal = await bench.engine.renew(SESSION, TTL_MS)
        assert sorted(renewal.cancelled) == sorted(one.job_id for one in held[:2])
    await bench.commit(held[0])
    assert (await bench.engine.renew(SESSION, TTL_MS)).cancelled == (held[1].job_id,)


@promise
async def a_renewer_works_from_a_thread(bench: Bench) -> None:
    """A renewer extends a session and learns of cancels from another thread."""
    held = await bench.start_job()
    await bench.cancel(held.job_id)
    bench.clock.advance(TTL_MS - 1)
    renewer = bench.engine.renewer()
    try:
        assert await asyncio.to_thread(renewer.renew, SESSION, TTL_MS) == Renewal(True, (held.job_id,))
        assert await asyncio.to_thread(renewer.renew, "nobody", TTL_MS) == Renewal(False)
    finally:
        renewer.close()
    bench.clock.advance(TTL_MS - 1)
    assert await bench.engine.rescue(10) == 0


@promise
async def a_renewer_needs_no_loop(bench: Bench) -> None:
    """While user code holds the event loop, a renewer still renews: the session is not lost."""
    held = await bench.start_job()
    bench.clock.advance(TTL_MS - 1)
    renewer = bench.engine.renewer()
    answers: list[Renewal] = []
    thread = threading.Thread(target=lambda: answers.append(renewer.renew(SESSION, TTL_MS)))
    thread.start()
    thread.join(20.0)  # the loop stands meanwhile
    renewer.close()
    assert answers == [Renewal(True)]
    bench.clock.advance(TTL_MS - 1)
    assert await bench.engine.rescue(10) == 0
    assert await bench.commit(held) is State.succeeded


@promise
async def a_renewer_closes_a_dead_workers_session(bench: Bench) -> None:
    """A supervisor that saw its worker die has the session rescued at once, from its own thread."""
    held = await bench.start_job(options=JobOptions(max_crashes=2))
    renewer = bench.engine.renewer()
    try:
        await asyncio.to_thread(renewer.close_session, SESSION)
    finally:
        renewer.close()
    job = await bench.job(held.job_id)
    assert (job.state, job.crashes) == (State.queued, 1)
    assert await bench.engine.renew(SESSION, TTL_MS) == Renewal(False)
