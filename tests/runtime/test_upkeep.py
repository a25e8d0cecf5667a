"""Upkeep: one worker at a time promotes what is due, rescues what was lost and prunes what is old."""

from __future__ import annotations

import asyncio

from runtime_support import Stage, eventually, stage

from ropeway.domain.job import DEFAULT_TENANT, JobOptions, NewJob
from ropeway.domain.lease import LeaseRequest
from ropeway.domain.lifecycle import State
from ropeway.domain.worker import WorkerCard
from ropeway.runtime import App
from ropeway.runtime.upkeep import DUTY, ELECTION_S, ELECTION_TTL_MS, RESCUE_S, Upkeep
from ropeway.testing import scripted


def app_of_one() -> App:
    app = App()

    @app.task
    async def work() -> int:
        return 1

    return app


async def lost_job(on: Stage) -> str:
    """A job held by a session that is about to expire unrenewed."""
    job_id = await on.submit("work")
    await on.engine.announce(WorkerCard("dead", "dead", ("default",), ttl_ms=10_000))
    (held,) = await on.engine.lease(LeaseRequest("dead", "dead", ("default",), 1))
    assert held.job_id == job_id
    return job_id


async def test_it_sleeps_exactly_until_the_next_job_is_due() -> None:
    """And no longer than until its next vote or rescue."""
    async with stage(app_of_one()) as on:
        upkeep = Upkeep(on.engine, "me", on.clock)
        assert await upkeep.tick() == min(ELECTION_S, RESCUE_S)
        job_id = await on.submit("work", delay_ms=321)
        assert await upkeep.tick() == 0.321
        on.clock.advance(ms=320)
        assert round(await upkeep.tick(), 6) == 0.001
        assert (await on.job(job_id)).state is State.scheduled
        on.clock.advance(ms=1)
        await upkeep.tick()
        assert (await on.job(job_id)).state is State.queued


async def test_a_new_delay_wakes_it() -> None:
    """A job that is due before what it slept for is promoted in time: the submit hints at it."""
    async with stage(app_of_one()) as on:
        await on.work(upkeep=True)
        duties = on.crew.duties
        assert duties is not None
        upkeep = duties.upkeep
        await eventually(lambda: upkeep.leads, "it leads")
        job_id = await on.submit("work", delay_ms=5)
        on.clock.advance(ms=5)
        assert (await on.ended(job_id)).state is State.succeeded


async def test_the_dead_are_rescued() -> None:
    """A session that fell silent gives its jobs back, about a second after its time at the latest."""
    async with stage(app_of_one()) as on:
        upkeep = Upkeep(on.engine, "me", on.clock)
        job_id = await lost_job(on)
        await upkeep.tick()
        on.clock.advance(ms=9_999)
        await upkeep.tick()
        assert (await on.job(job_id)).state is State.running
        on.clock.advance(s=RESCUE_S)
        await upkeep.tick()
        assert (await on.job(job_id)).state is State.queued


async def test_the_old_are_pruned() -> None:
    """Jobs past their retention go, in time."""
    async with stage(app_of_one()) as on:
        upkeep = Upkeep(on.engine, "me", on.clock)
        await on.work()
        await on.engine.submit(
            [NewJob("job_x", DEFAULT_TENANT, "default", "work", "{}", options=JobOptions(retention_s=60))]
        )
        await on.ended("job_x")
        await upkeep.tick()
        assert await on.engine.get(DEFAULT_TENANT, ["job_x"]) != [None]
        on.clock.advance(s=60)
        await upkeep.tick()
        assert await on.engine.get(DEFAULT_TENANT, ["job_x"]) == [None]


async def test_one_at_a_time_and_the_next_takes_over() -> None:
    """Whoever does not lead does nothing; when the leader is gone, the next vote elects another."""
    async with stage(app_of_one(), scripted()) as on:
        first, second = Upkeep(on.engine, "first", on.clock), Upkeep(on.engine, "second", on.clock)
        await first.tick()
        assert await second.tick() == ELECTION_S
        assert (first.leads, second.leads) == (True, False)
        assert on.engine.calls["promote"] == 1  # type: ignore[attr-defined]
        for _ in range(5):
            on.clock.advance(s=ELECTION_S)
            await first.tick()
            await second.tick()
        assert (first.leads, second.leads) == (True, False), "the leader is elected again as long as it lives"
        on.clock.advance(ms=ELECTION_TTL_MS)
        await second.tick()
        assert second.leads
        await first.tick()
        assert not first.leads
        assert await on.engine.elect(DUTY, "third", 1) is False


async def test_an_engine_that_was_away_is_asked_again() -> None:
    """Upkeep outlives a failure of each of its steps."""
    async with stage(app_of_one(), scripted(elect=["before"], promote=["before"], rescue=["before"])) as on:
        upkeep = Upkeep(on.engine, "me", on.clock)
        run = asyncio.create_task(upkeep.run())
        faulty = on.engine

        def calls(method: str) -> int:
            return int(faulty.calls[method])  # type: ignore[attr-defined]

        for _ in range(3):
            before = calls("elect") + calls("promote") + calls("rescue")

            def asked_again(before: int = before) -> bool:
                return calls("elect") + calls("promote") + calls("rescue") > before

            await on.submit("work", delay_ms=3_600_000)  # which hints
            await eventually(asked_again, "it tries again")
            on.clock.advance(s=2)
        await on.submit("work", delay_ms=3_600_000)
        await eventually(lambda: upkeep.leads and calls("promote") > 1, "it leads and promotes")
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
