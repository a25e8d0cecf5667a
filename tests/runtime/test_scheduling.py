"""Schedules fire: once for each time, whoever leads, whatever breaks; and tell why they do not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from runtime_support import eventually
from scheduling_support import ON_EACH, ON_MEMORY, rig

from ropeway.blobs.connect import files_of
from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.job import DEFAULT_TENANT, JobOptions
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueChange
from ropeway.domain.rank import Priority
from ropeway.domain.record import Put
from ropeway.domain.schedule import Plan
from ropeway.domain.worker import TaskCard
from ropeway.engines.base import Engine
from ropeway.runtime import App, Worker, WorkerOptions
from ropeway.runtime.scheduling import AWAY_S, REFUSED_MS, REREAD_S, Scheduling
from ropeway.testing import FaultyEngine, ManualClock, seeded_random
from ropeway.testing.faults import Moment
from ropeway.testing.harness import DurableHarness, Harness

MOMENTS: tuple[Moment, ...] = ("before", "after")

EACH = pytest.mark.parametrize("harness", ON_EACH, ids=lambda harness: harness.name)
ONE = pytest.mark.parametrize("harness", ON_MEMORY, ids=lambda harness: harness.name)


@EACH
async def test_a_time_makes_a_job_and_it_sleeps_until_the_next(harness: Harness) -> None:
    """To the millisecond, with the task's options and the schedule's own."""
    card = TaskCard("work", queue="other", options=JobOptions(timeout_s=5), priority=Priority.low)
    async with rig(harness, work=card) as on:
        leader = on.leader()
        await on.make(plan=Plan("work", '{"n": 1}', options={"tags": ["mine"]}))
        assert await leader.tick() == 60.0
        on.clock.advance(ms=59_999)
        assert round(await leader.tick() or 0, 6) == 0.001
        assert await on.jobs() == []
        on.clock.advance(ms=1)
        assert await leader.tick() == 60.0
        (job,) = await on.jobs()
        assert (job.task, job.queue, job.input, job.priority) == ("work", "other", '{"n": 1}', Priority.low)
        assert (job.options.timeout_s, job.options.tags) == (5, ("mine", "schedule:s"))
        assert job.options.metadata == {"schedule": "s", "scheduled_for": "2026-01-01T00:01:00.000Z"}
        after = await on.now()
        assert (after.fired, after.last_job_id, leader.fired) == (1, job.id, 1)
        on.clock.advance(s=60)
        await leader.tick()
        assert await on.minutes() == [1, 2]


@EACH
async def test_two_that_both_lead_make_one_job(harness: Harness) -> None:
    """An election may be held twice by clocks that differ: what is promised does not hang on it."""
    async with rig(harness) as on:
        other = await harness.beside(on.engine) if isinstance(harness, DurableHarness) else on.engine
        leaders = [on.leader(), on.leader(other), on.leader()]
        await on.make()
        for leader in leaders:
            await leader.tick()
        for minute in range(1, 4):
            on.clock.advance(s=60)
            await asyncio.gather(*(leader.tick() for leader in leaders))
            await asyncio.gather(*(leader.tick() for leader in leaders))
            assert await on.minutes() == list(range(1, minute + 1))
        assert (await on.now()).fired == 3


@EACH
async def test_whatever_breaks_in_between_a_time_makes_one_job(harness: Harness) -> None:
    """A leader dies at each of its calls, before or after it had effect; the next makes good what is missing."""
    async with rig(harness) as on:
        counting = FaultyEngine(on.engine, lambda method, nth: None)
        await on.make("counted")
        on.clock.advance(s=60)
        await on.leader(counting).tick()
        calls = [(method, nth) for method, count in counting.calls.items() for nth in range(count)]
        assert {"scan", "fetch", "submit", "put", "workers", "tasks"} <= {method for method, _ in calls}
        for n, (broken, nth) in enumerate(calls):
            for moment in MOMENTS:
                tenant = f"t{n}{moment}"
                await on.make(tenant=tenant, ends_at="2026-01-02T00:00:00Z")
                on.clock.advance(s=60)
                plan = _breaks_at(broken, nth, moment)
                with contextlib.suppress(EngineUnavailable):
                    await on.leader(FaultyEngine(on.engine, plan)).tick()
                await on.leader().tick()
                assert len(await on.jobs(tenant)) == 1, (broken, nth, moment)
                after = await on.now(tenant=tenant)
                assert (after.fired, after.last_error) == (1, None), (broken, nth, moment)
                await on.schedules.remove(tenant, "s", lambda _: None)


def _breaks_at(broken: str, nth: int, moment: Moment) -> Callable[[str, int], Moment | None]:
    """Every call fails from this one on: the process is gone."""
    dead: list[None] = []

    def plan(method: str, number: int) -> Moment | None:
        if dead:
            return "before"
        if (method, number) == (broken, nth):
            dead.append(None)
            return moment
        return None

    return plan


@EACH
async def test_a_leader_that_comes_back_from_the_dead_changes_nothing(harness: Harness) -> None:
    """It had submitted, and was stopped before it wrote the progress; others led on meanwhile."""
    async with rig(harness) as on:
        gate = _Gate(on.engine)
        stopped = on.leader(cast(Engine, gate))
        await on.make()
        await stopped.tick()
        on.clock.advance(s=60)
        gate.shut()
        asleep = asyncio.create_task(stopped.tick())
        await gate.reached.wait()
        assert await on.minutes() == [1], "its job is there, its progress is not"
        next_leader = on.leader()
        await next_leader.tick()
        on.clock.advance(s=60)
        await next_leader.tick()
        gate.open()
        await asleep
        await stopped.tick()
        assert await on.minutes() == [1, 2]
        after = await on.now()
        assert (after.fired, after.next_at_ms) == (2, on.clock.now_ms() + 60_000)


@EACH
async def test_a_store_that_lost_the_progress_makes_no_second_job(harness: Harness) -> None:
    """The record is as it was before the time; the job is there, or has ended and was deleted long since."""
    async with rig(harness) as on:
        await on.make()
        before = await on.held()
        on.clock.advance(s=60)
        await on.leader().tick()
        (job,) = await on.jobs()
        await on.roll_back(before)
        await on.leader().tick()
        assert [job.id] == [one.id for one in await on.jobs()]
        await on.finish(job.id)
        await on.forget(job.id)
        await on.roll_back(before)
        await on.leader().tick()
        assert await on.jobs() == [], "its idempotency key is claimed for a day"
        assert (await on.now()).last_job_id == job.id


@EACH
@pytest.mark.parametrize(("catch_up", "expected"), [("skip", [11]), ("latest", [10, 11]), ("all", [*range(1, 11), 11])])
async def test_after_an_outage_the_policy_decides(harness: Harness, catch_up: str, expected: list[int]) -> None:
    """Nobody led for ten minutes; then one does, and goes on from there."""
    async with rig(harness) as on:
        await on.make(catch_up=catch_up, grace=5)
        on.clock.advance(s=630)
        leader = on.leader()
        await leader.tick()
        on.clock.advance(s=30)
        await leader.tick()
        assert await on.minutes() == expected
        skip = (await on.now()).last_skip
        assert (skip is None) == (catch_up == "all")
        assert skip is None or skip.code == "missed"


@ONE
async def test_overlap_skip_waits_for_the_job_before(harness: Harness) -> None:
    """No job while the last one has not ended; the schedule tells so, and goes on when it has."""
    async with rig(harness) as on:
        leader = on.leader()
        await on.make(overlap="skip")
        for _ in range(3):
            on.clock.advance(s=60)
            await leader.tick()
        (job,) = await on.jobs()
        skip = (await on.now()).last_skip
        assert skip is not None
        assert (skip.code, skip.message) == ("overlap", f"{job.id} has not ended")
        await on.finish(job.id)
        on.clock.advance(s=60)
        await leader.tick()
        assert await on.minutes() == [1, 4]


@ONE
async def test_overlap_allow_makes_a_job_each_time(harness: Harness) -> None:
    """Though none has ended."""
    async with rig(harness) as on:
        leader = on.leader()
        await on.make()
        for _ in range(3):
            on.clock.advance(s=60)
            await leader.tick()
        assert await on.minutes() == [1, 2, 3]


@ONE
async def test_overlap_skip_with_all_makes_one_of_the_missed(harness: Harness) -> None:
    """Catching up with five times is five jobs at once, which is what must not be."""
    async with rig(harness) as on:
        await on.make(overlap="skip", catch_up="all")
        on.clock.advance(s=300)
        await on.leader().tick()
        assert await on.minutes() == [1]
        assert (await on.now()).next_at_ms == on.clock.now_ms() + 60_000


@ONE
async def test_a_task_that_is_gone_is_told_and_tried_again(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    """Once in the log, and on the schedule until a worker knows the task again; then the missed time is made good."""
    async with rig(harness) as on:
        leader = on.leader()
        await on.make()
        await on.announce(TaskCard("another"))
        on.clock.advance(s=60)
        with caplog.at_level(logging.WARNING, "ropeway.worker"):
            assert await leader.tick() == REFUSED_MS / 1000
            for _ in range(3):
                on.clock.advance(ms=REFUSED_MS)
                await leader.tick()
        error = (await on.now()).last_error
        assert error is not None
        assert (error.code, error.fire_at_ms) == ("task_not_found", on.clock.now_ms() - 90_000)
        assert "no worker on queue 'default' knows task 'work' any more" in error.message
        assert len([record for record in caplog.records if "makes no job" in record.getMessage()]) == 1
        await on.announce(TaskCard("work"))
        on.clock.advance(ms=REFUSED_MS)
        await leader.tick()
        after = await on.now()
        assert (await on.minutes(), after.last_error) == ([2, 3], None)


@ONE
async def test_without_a_worker_jobs_wait_in_their_queue(harness: Harness) -> None:
    """Nobody serves the queue just now: that is what queues are for."""
    async with rig(harness) as on:
        await on.engine.close("s1")
        await on.make()
        on.clock.advance(s=60)
        await on.leader().tick()
        assert await on.minutes() == [1]


@ONE
async def test_a_task_that_nobody_ever_announced_is_told(harness: Harness) -> None:
    """As `task_not_found`."""
    async with rig(harness) as on:
        await on.make(plan=Plan("unheard_of"))
        on.clock.advance(s=60)
        await on.leader().tick()
        error = (await on.now()).last_error
        assert error is not None
        assert (error.code, error.message) == ("task_not_found", "no worker has announced task 'unheard_of'")


@EACH
async def test_a_full_queue_is_tried_again(harness: Harness) -> None:
    """The time is kept until there is room; what was refused is told meanwhile."""
    async with rig(harness) as on:
        leader = on.leader()
        await on.engine.set_queue([QueueChange("default", max_depth=1)])
        names = [f"s{n}" for n in range(8)]  # each partition of a cluster has a place of its own
        for name in names:
            await on.make(name)
        on.clock.advance(s=60)
        await leader.tick()
        errors = {name: (await on.now(name)).last_error for name in names}
        refused = [name for name, error in errors.items() if error is not None]
        assert len(refused) + len(await on.jobs()) == 8
        assert {error.code for error in errors.values() if error is not None} == {"queue_full"}
        await on.engine.set_queue([QueueChange("default", max_depth=1_000)])
        on.clock.advance(ms=REFUSED_MS)
        await leader.tick()
        assert await on.minutes() == [1] * 8
        assert [(await on.now(name)).last_error for name in refused] == [None] * len(refused)


@ONE
async def test_a_refused_time_that_comes_too_late_was_missed(harness: Harness) -> None:
    """`skip` drops it when its grace is over, and says so."""
    async with rig(harness) as on:
        leader = on.leader()
        await on.make(catch_up="skip", grace=45, interval=3600)
        await on.announce(TaskCard("another"))
        on.clock.advance(s=3600)
        await leader.tick()
        on.clock.advance(ms=REFUSED_MS)
        await leader.tick()
        assert (await on.now()).last_skip is None
        await on.announce(TaskCard("work"))
        on.clock.advance(ms=REFUSED_MS)
        await leader.tick()
        after = await on.now()
        assert await on.jobs() == []
        assert after.last_skip is not None
        assert (after.last_skip.code, after.last_error) == ("missed", None)


@ONE
async def test_a_file_in_the_input_is_held_for_each_job(harness: Harness, tmp_path: Path) -> None:
    """Before the job is there; where it cannot be, the schedule tells why."""
    async with rig(harness) as on:
        files = files_of(on.engine, f"file:{tmp_path}", clock=on.clock, random=seeded_random("files"))
        assert files is not None
        gone = '{"image": {"$file": "file_00000000000000000000000000000000"}}'
        await on.make(plan=Plan("work", gone))
        on.clock.advance(s=60)
        for given, code in ((None, "files_not_kept"), (files, "input_invalid")):
            await on.leader(files=given).tick()
            error = (await on.now()).last_error
            assert error is not None
            assert error.code == code
        assert await on.jobs() == []


@ONE
async def test_one_schedules_trouble_is_no_others(harness: Harness) -> None:
    """A hundred and more are due at once, some of which cannot be."""
    async with rig(harness) as on:
        for n in range(130):
            await on.make(f"s{n:03}", plan=Plan("work" if n % 10 else "unheard_of"))
        on.clock.advance(s=60)
        leader = on.leader()
        await leader.tick()
        assert (len(await on.jobs()), leader.fired) == (117, 117)


# -- who fires, and when it wakes


@ONE
async def test_who_does_not_lead_asks_for_nothing(harness: Harness) -> None:
    """It sleeps until it is elected."""
    async with rig(harness) as on:
        counting = FaultyEngine(on.engine, lambda method, nth: None)
        await on.make()
        on.clock.advance(s=60)
        idle = Scheduling(counting, None, lambda: False, on.clock)
        assert await idle.tick() is None
        assert sum(counting.calls.values()) == 0


@ONE
async def test_without_schedules_it_looks_once_a_minute(harness: Harness) -> None:
    """One read, in case a hint was lost; nothing is written."""
    async with rig(harness) as on:
        counting = FaultyEngine(on.engine, lambda method, nth: None)
        leader = on.leader(counting)
        for _ in range(3):
            assert await leader.tick() == REREAD_S
            assert await leader.tick() == REREAD_S
            on.clock.advance(s=REREAD_S)
        assert dict(counting.calls) == {"scan": 3}


@EACH
async def test_a_change_wakes_it_and_so_does_being_elected(harness: Harness) -> None:
    """Both have it look at all schedules again."""
    async with rig(harness) as on:
        leads = False
        leader = Scheduling(on.engine, None, lambda: leads, on.clock)
        run = asyncio.create_task(leader.run())
        await on.make()
        on.clock.advance(s=60)
        leads = True
        leader.look()
        await eventually(lambda: leader.fired == 1, "the new leader fires what is due")
        await on.make("later", interval=3600)
        on.clock.advance(s=3600)
        await on.make("another")
        await eventually(lambda: leader.fired > 1, "a change has it see what is due")
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


@EACH
async def test_the_engines_clock_counts(harness: Harness) -> None:
    """A worker whose own clock is ten seconds off, either way, fires at the engine's time."""
    for off_s in (10, -10):
        async with rig(harness) as on:
            own = ManualClock(on.clock.now_ms() + off_s * 1000)
            leader = on.leader(clock=own)
            await on.make()
            assert await leader.tick() == 60.0
            for clock in (on.clock, own):
                clock.advance(ms=59_999)
            assert round(await leader.tick() or 0, 6) == 0.001
            assert await on.jobs() == []
            for clock in (on.clock, own):
                clock.advance(ms=1)
            await leader.tick()
            assert await on.minutes() == [1]


@ONE
async def test_an_engine_that_was_away_is_asked_again(harness: Harness) -> None:
    """Firing outlives a failure of each of its calls."""
    async with rig(harness) as on:
        broken: set[str] = {"scan", "put", "workers", "fetch", "submit"}

        def plan(method: str, nth: int) -> Moment | None:
            if method in broken:
                broken.discard(method)
                return "before"
            return None

        leader = on.leader(FaultyEngine(on.engine, plan))
        await on.make()
        on.clock.advance(s=60)
        run = asyncio.create_task(leader.run())
        async with asyncio.timeout(20):
            while not await on.jobs():
                on.clock.advance(s=AWAY_S)
                leader.look()
                await asyncio.sleep(0)
        assert broken == set()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        assert len(await on.jobs()) == 1


# -- changed while it fires


@ONE
@pytest.mark.parametrize("what", ["paused", "removed", "changed"])
async def test_a_change_while_it_fires_holds(harness: Harness, what: str) -> None:
    """The leader's progress is not written over it: it stays paused, removed or changed."""
    async with rig(harness) as on:
        gate = _Gate(on.engine)
        leader = on.leader(cast(Engine, gate))
        await on.make()
        await leader.tick()
        on.clock.advance(s=60)
        gate.shut()
        firing = asyncio.create_task(leader.tick())
        await gate.reached.wait()
        if what == "removed":
            await on.schedules.remove(DEFAULT_TENANT, "s", lambda _: None)
        else:
            changes: dict[str, Any] = {"paused": True} if what == "paused" else {"plan": Plan("work", '"new"')}
            await on.schedules.change(DEFAULT_TENANT, "s", lambda known: msgspec.structs.replace(known, **changes))
        gate.open()
        await firing
        for _ in range(2):
            on.clock.advance(s=60)
            leader.look()
            await on.leader().tick()
        inputs = [job.input for job in await on.jobs()]
        assert inputs == (["{}", '"new"', '"new"'] if what == "changed" else ["{}"])


@ONE
async def test_a_removed_schedule_made_anew_is_another(harness: Harness) -> None:
    """Its times make jobs of their own, though they are the same times; the old leader does not mix them up."""
    async with rig(harness) as on:
        leader = on.leader()
        await on.make(starts_at="2026-01-01T00:01:00Z")
        await leader.tick()
        on.clock.advance(s=60)
        await leader.tick()
        await on.schedules.remove(DEFAULT_TENANT, "s", lambda _: None)
        assert await on.schedules.of(DEFAULT_TENANT) == []
        await on.make(starts_at="2026-01-01T00:01:00Z", interval=120)
        again = await on.now()
        await on.schedules.change(
            DEFAULT_TENANT, "s", lambda s: msgspec.structs.replace(s, next_at_ms=on.clock.now_ms())
        )
        await on.leader().tick()
        assert again.fired == 0
        assert await on.minutes() == [1, 1]


# -- from a task to its result, on every engine


@EACH
async def test_a_declared_schedule_runs_its_task(harness: Harness) -> None:
    """Declared in code, published by a worker, fired by a leader, run by the worker."""
    app = App()

    @app.schedule(cron="*/5 * * * *", input={"x": 4})
    @app.task
    async def square(x: int) -> int:
        return x * x

    async with rig(harness) as on:
        worker = Worker(
            app,
            on.engine,
            WorkerOptions(name="w", upkeep=False, session_ttl_ms=10**9),
            clock=on.clock,
            random=seeded_random("worker"),
        )
        run = asyncio.create_task(worker.run())
        await worker.started()
        on.clock.advance(s=300)
        await on.leader().tick()
        (job,) = await on.jobs()
        async with asyncio.timeout(20):
            with on.engine.listen(f"end:{job.id}") as hints:
                while not (ended := (await on.jobs())[0]).state.terminal:
                    await hints.wait(1)
        assert (ended.state, ended.output) == (State.succeeded, "16")
        await worker.stop()
        await run


class _Gate:
    """An engine whose writes of a schedule's progress wait while it is shut."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._opened = asyncio.Event()
        self._opened.set()
        self.reached = asyncio.Event()

    def shut(self) -> None:
        self._opened.clear()

    def open(self) -> None:
        self._opened.set()

    async def put(self, puts: list[Put]) -> Any:
        if any(put.key.kind == "schedule" for put in puts):
            self.reached.set()
            await self._opened.wait()
        return await self._engine.put(puts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)
