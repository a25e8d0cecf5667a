"""Schedules in an application's code: what may be declared, and what a worker makes of it in the engine."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest
from runtime_support import eventually
from scheduling_support import ON_MEMORY, Rig, rig

from ropeway.domain.errors import InputInvalid, InvalidRequest
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.rank import Priority
from ropeway.domain.worker import TaskCard
from ropeway.runtime import App, Worker, WorkerOptions
from ropeway.runtime.declaring import declare
from ropeway.runtime.upkeep import DUTY
from ropeway.testing import ManualClock, seeded_random

MEMORY = ON_MEMORY[0]


def an_app(**told: Any) -> App:
    app = App()

    @app.task(queue="other")
    async def report(day: str = "today") -> None: ...

    app.schedule(report, **{"cron": "@hourly", **told})
    return app


async def declared(on: Rig, app: App) -> None:
    await declare(on.engine, app.schedules, seeded_random("declare"))


def test_a_decorator_and_a_call_are_the_same() -> None:
    """Above `@app.task` or after it; a second one needs a name, and the task stays what it is."""
    app = App()

    @app.schedule(name="night", cron="0 3 * * *", timezone="Europe/Berlin")
    @app.schedule(interval=3600, input={"day": "now"}, queue="slow", priority="low", tags=["r"])
    @app.task
    async def report(day: str = "today") -> str:
        return day

    assert app.tasks["report"] is report
    assert [schedule.id for schedule in app.schedules] == ["default/report", "default/night"]
    plan = app.schedules[0].plan
    assert (plan.task, plan.input, plan.queue, plan.priority) == ("report", '{"day":"now"}', "slow", Priority.low)
    assert plan.options == {"tags": ["r"]}
    assert [schedule.id for schedule in app.copy().schedules] == ["default/report", "default/night"]


@pytest.mark.parametrize(
    ("told", "error", "says"),
    [
        ({"cron": "x"}, InvalidRequest, "cron 'x'"),
        ({"cron": None}, InvalidRequest, "either `cron` or `interval`"),
        ({"timezone": "Mars"}, InvalidRequest, "no time zone 'Mars'"),
        ({"name": "a/b"}, InvalidRequest, "no name of a schedule"),
        ({"tenant": "a b"}, InvalidRequest, "no tenant name"),
        ({"queue": "a b"}, InvalidRequest, "no queue name"),
        ({"priority": "urgent"}, ValueError, "priority is low, normal or high"),
        ({"input": {"day": 5}}, InputInvalid, "day"),
        ({"input": {"nobody": 5}}, InputInvalid, "nobody"),
        ({"every": 5}, TypeError, "no setting 'every'"),
    ],
    ids=str,
)
def test_what_cannot_be_declared_is_refused_at_once(told: dict[str, Any], error: type[Exception], says: str) -> None:
    """When the module is imported, not at night."""
    with pytest.raises(error, match=says):
        an_app(**told)


def test_a_name_is_given_once_and_a_task_is_needed() -> None:
    """Two of one name, or a plain function, are mistakes in the code."""
    app = an_app()
    with pytest.raises(ValueError, match="there is a schedule 'report' already"):
        app.schedule(app.tasks["report"], interval=5)
    plain: Any = print
    with pytest.raises(TypeError, match=r"put `@app\.task` below `@app\.schedule`"):
        app.schedule(plain, interval=5)
    with pytest.raises(TypeError, match="no task of this application"):
        App().schedule(app.tasks["report"], interval=5)


async def test_it_is_kept_as_the_code_says_it() -> None:
    """Made at the first worker; at another one of the same code nothing is written."""
    async with rig(MEMORY) as on:
        await declared(on, an_app(timezone="Asia/Tokyo", catch_up="all", overlap="skip", grace=5))
        held = await on.held("report")
        schedule = held.schedule
        assert (schedule.timing.cron, schedule.timing.timezone) == ("@hourly", "Asia/Tokyo")
        assert (schedule.catch_up, schedule.overlap, schedule.grace_ms) == ("all", "skip", 5_000)
        assert (schedule.declared, schedule.next_at_ms) == (True, on.clock.now_ms() + 3_600_000)
        on.clock.advance(s=1)
        await declared(on, an_app(timezone="Asia/Tokyo", catch_up="all", overlap="skip", grace=5))
        assert (await on.held("report")).version == held.version


async def test_a_changed_declaration_counts_and_what_happened_stays() -> None:
    """Its next time is worked out anew when its times changed; uid, pause and last job are kept."""
    async with rig(MEMORY) as on:
        await declared(on, an_app())
        before = await on.now("report")
        await on.schedules.change(
            DEFAULT_TENANT, "report", lambda s: msgspec.structs.replace(s, paused=True, fired=7, last_job_id="job_7")
        )
        await declared(on, an_app(input={"day": "new"}))
        after = await on.now("report")
        assert (after.plan.input, after.next_at_ms) == ('{"day":"new"}', before.next_at_ms)
        await declared(on, an_app(cron="30 * * * *"))
        after = await on.now("report")
        assert after.next_at_ms == on.clock.now_ms() + 1_800_000
        assert (after.uid, after.paused, after.fired, after.last_job_id) == (before.uid, True, 7, "job_7")


async def test_one_made_by_hand_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """The code does not take its name; the log says what to do. The other declarations count."""
    async with rig(MEMORY) as on:
        by_hand = await on.make("report")
        app = an_app()
        app.schedule(app.tasks["report"], name="second", interval=60)
        with caplog.at_level(logging.ERROR, "ropeway.worker"):
            await declared(on, app)
        assert await on.now("report") == by_hand
        assert (await on.now("second")).declared
        assert "ropeway schedules remove report" in caplog.text


async def test_it_fires_while_a_worker_declares_it() -> None:
    """Removed from the code, it fires no more; declared again, what it missed is made good."""
    async with rig(MEMORY) as on:
        leader = on.leader()
        await on.make("mine", declared=True, interval=60)
        await on.announce(TaskCard("work"), schedules=["default/other"])
        on.clock.advance(s=600)
        await leader.tick()
        assert await on.jobs() == []
        assert (await on.now("mine")).last_error is None, "that is no fault"
        await on.announce(TaskCard("work"), schedules=["default/mine"])
        await on.leader().tick()
        assert await on.minutes() == [9, 10]
        await on.announce(TaskCard("work"))
        on.clock.advance(s=60)
        await on.leader().tick()
        assert await on.minutes() == [9, 10]


async def test_a_worker_tells_that_it_declares_them() -> None:
    """By its card; and it wakes whoever leads, once its session is open."""
    async with rig(MEMORY) as on:
        worker = Worker(
            an_app(),
            on.engine,
            WorkerOptions(name="w", upkeep=False, session_ttl_ms=10**9),
            clock=on.clock,
            random=seeded_random("worker"),
        )
        await declared(on, an_app())  # by a worker before, so that nothing is written this time
        with on.engine.listen("schedules") as hints:
            run = asyncio.create_task(worker.run())
            await worker.started()
            assert await hints.wait(20) == {"schedules"}
            (card,) = [card for card in await on.engine.workers() if card.name == "w"]
            assert card.schedules == ("default/report",)
            assert (await on.now("report")).declared
        await worker.stop()
        await run


async def test_an_elected_worker_fires() -> None:
    """It waits while another leads; when that one is gone it is elected, fires what is due at once, and counts it."""
    app = App()

    @app.schedule(cron="@hourly")
    @app.task
    async def tidy() -> int:
        return 1

    clock = ManualClock(1_767_225_600_000)
    engine = await MEMORY.start(clock, seeded_random("engine"))
    assert await engine.elect(DUTY, "another", 3_600_000)
    worker = Worker(
        app, engine, WorkerOptions(name="w", session_ttl_ms=10**9), clock=clock, random=seeded_random("worker")
    )
    run = asyncio.create_task(worker.run())
    await worker.started()
    crew = worker._crew
    assert crew is not None
    duties = crew.duties
    assert duties is not None
    await eventually(lambda: duties.scheduling._hints is not None, "it waits to be elected")
    assert not duties.upkeep.leads
    clock.advance(s=3600)
    await engine.tell("upkeep")
    await eventually(lambda: worker.snapshot().outcomes == {"succeeded": 1}, "the job of the hour has run")
    assert worker.snapshot().fired == 1
    await worker.stop()
    await run
    await MEMORY.stop(engine)
