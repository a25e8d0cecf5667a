"""Jobs that wait for others: they begin when those have ended, with their outputs, or fail with them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from runtime_support import Stage, eventually, stage

from ropeway.blobs.folder import FolderStore
from ropeway.client import Client, JobHandle, call
from ropeway.client.reference import Output
from ropeway.domain.errors import InvalidRequest, JobFailed
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.engines.waits import Wait, Waits
from ropeway.runtime import App, Context, given
from ropeway.runtime.composing import waking

ONCE = Retry(max_attempts=1)


def app_of_some() -> App:
    app = App()

    @app.task
    async def fetch(url: str) -> str:
        if url == "bad":
            raise ValueError("there is nothing")
        return f"page of {url}"

    @app.task
    async def shout(text: str) -> str:
        return text.upper()

    @app.task
    def join(texts: list[str], separator: str = "+") -> str:
        return separator.join(texts)

    @app.task
    async def report(*, ctx: Context = given) -> list[Any]:
        return [[one.id, one.task, one.state, one.output, one.error and one.error.code] for one in ctx.after]

    return app


async def held(on: Stage, job_id: str) -> None:
    """Until the worker that wakes has read of it."""
    duties = on.crew.duties
    assert duties is not None
    await eventually(lambda: bool(duties.waking._following), f"{job_id} is waited for")


async def test_a_chain_hands_outputs_on() -> None:
    """Each job of a chain waits for the one before, and gets what it returned; all are submitted at once."""
    async with stage(app_of_some()) as on, Client(on.engine) as client:
        tasks = on.app.tasks
        page = await client.submit(tasks["fetch"], "a.org")
        loud = await client.submit(tasks["shout"], page.output)
        last = await client.submit(tasks["join"], [loud.output, "end"], separator=" ")
        waiting = await on.job(last.id)
        assert (waiting.state, waiting.options.after) == (State.scheduled, (loud.id,))
        await on.work(upkeep=True)
        assert await last.result() == "PAGE OF A.ORG end"
        assert on.workers[0].snapshot().woken == 2
        duties = on.crew.duties
        assert duties is not None
        await eventually(lambda: not duties.waking._following, "the waits are done with")
        assert [kept async for kept in Waits(on.engine).since(0)] == []


async def test_a_group_has_a_callback() -> None:
    """A job that refers to many begins once, when the last of them has ended."""
    async with stage(app_of_some()) as on, Client(on.engine) as client:
        await on.work(upkeep=True)
        pages = [await client.submit("fetch", url=str(n)) for n in range(50)]
        joined = await client.submit("join", texts=[page.output for page in pages])
        assert await joined.result() == "+".join(f"page of {n}" for n in range(50))
        job = await on.job(joined.id)
        assert (job.runs, job.attempt) == (1, 1)


async def test_a_job_fails_at_once_with_one_that_it_waits_for() -> None:
    """Without those that still run, and before it began: `dependency_failed` names the one that failed, and why."""
    app = app_of_some()
    open_gate = asyncio.Event()

    @app.task
    async def slow() -> None:
        await open_gate.wait()

    async with stage(app) as on, Client(on.engine) as client:
        await on.work(upkeep=True)
        never = await client.submit("slow")
        bad = await client.with_options(retry=ONCE).submit("fetch", url="bad")
        last = await client.with_options(after=[never, bad]).submit("report")
        with pytest.raises(JobFailed) as failed:
            await last.result()
        assert failed.value.error.code == "dependency_failed"
        assert f"{bad.id} (fetch), which this job waited for, failed: task_error: there is nothing" in str(failed.value)
        assert (await on.job(never.id)).state is State.running
        after = await client.with_options(after=last).submit("report")
        with pytest.raises(JobFailed, match="dependency_failed"):
            await after.result()
        open_gate.set()


async def test_a_job_may_run_whatever_becomes_of_those_before() -> None:
    """With `after_failure="run"` it begins when all have ended, and sees how; a lost output is null."""
    app = app_of_some()

    @app.task
    async def either(text: str | None, *, ctx: Context = given) -> list[Any]:
        return [text, [one.succeeded for one in ctx.after]]

    async with stage(app) as on, Client(on.engine) as client:
        tasks = on.app.tasks
        once = client.with_options(retry=ONCE)
        good, bad, gone = [await once.submit(tasks["fetch"], url) for url in ("a.org", "bad", "b.org")]
        await client.cancel(gone.id)
        told = await client.with_options(after=[good, bad, gone], after_failure="run").submit(tasks["report"])
        lost = await client.with_options(after_failure="run").submit(tasks["either"], bad.output)
        await on.work(upkeep=True)
        assert await told.result() == [
            [good.id, "fetch", "succeeded", "page of a.org", None],
            [bad.id, "fetch", "failed", None, "task_error"],
            [gone.id, "fetch", "cancelled", None, None],
        ]
        assert await lost.result() == [None, [False]]


async def test_one_that_waits_for_ended_jobs_does_not_wait() -> None:
    """It is queued by its submit, on any worker, without anybody to wake it."""
    async with stage(app_of_some()) as on, Client(on.engine) as client:
        await on.work()
        page = await client.submit("fetch", url="a.org")
        await page.result()
        assert await (await client.submit("shout", text=page.output)).result() == "PAGE OF A.ORG"


async def test_what_is_woken_too_early_waits_again() -> None:
    """Whoever wakes it, a job looks for itself; it is counted as a snooze, and costs no attempt."""
    app = app_of_some()
    open_gate = asyncio.Event()

    @app.task
    async def slow() -> str:
        await open_gate.wait()
        return "slow"

    async with stage(app) as on, Client(on.engine) as client:
        await on.work(upkeep=True)
        slow_one = await client.submit("slow")
        last = await client.submit("shout", text=slow_one.output)
        await client.wake(last.id)
        job = await on.when(last.id, lambda job: job.runs == 1 and job.state is State.scheduled, "it waits again")
        assert (job.attempt, msgspec.json.decode(job.progress or "")) == (0, {"message": f"waits for {slow_one.id}"})
        open_gate.set()
        assert await last.result() == "SLOW"


async def test_a_large_output_is_handed_on_as_it_is(tmp_path: Path) -> None:
    """What was too large for its job's row lies in a file: as an argument, in one, and in `ctx.after` it is whole."""
    app = app_of_some()

    @app.task
    async def large(n: int) -> list[str]:
        return ["x" * 1000] * n

    @app.task
    async def sizes(of: list[list[str]], *, ctx: Context = given) -> list[int]:
        return [*map(len, of), len(ctx.after[0].output)]

    async with stage(app, blobs=FolderStore(tmp_path / "files")) as on:
        await on.work(upkeep=True)
        async with Client(on.engine, blobs=FolderStore(tmp_path / "files")) as client:
            one = await client.submit(large, 400)
            assert await (await client.submit(sizes, [one.output, ["y"]])).result() == [400, 1, 400]
            assert len(await (await client.submit("join", texts=one.output)).result()) == 400 * 1001 - 1


async def test_many_that_wait_are_submitted_at_once() -> None:
    """As one batch, in which one that cannot wait is refused and the others are not."""
    async with stage(app_of_some()) as on, Client(on.engine) as client:
        tasks = on.app.tasks
        page = await client.submit(tasks["fetch"], "a.org")
        texts = [page.output] * 5
        waiting = client.with_options(after_failure="run")
        loud = [job async for job in waiting.submit_many(call(tasks["shout"], text) for text in texts)]
        assert [(await on.job(job.id)).state for job in loud] == [State.scheduled] * 5
        answers = await client.submit_batch([call(tasks["shout"], "now"), call(tasks["shout"], Output("job_x"))], 0.0)
        assert isinstance(answers[0], JobHandle)
        assert isinstance(answers[1], InvalidRequest)
        await on.work(upkeep=True)
        assert {await job.result() for job in loud} == {"PAGE OF A.ORG"}
        assert await answers[0].result() == "NOW"


async def test_another_leader_goes_on() -> None:
    """What waits is no worker's own: the next to lead reads the same records."""
    app = app_of_some()
    open_gate = asyncio.Event()

    @app.task
    async def slow() -> str:
        await open_gate.wait()
        return "slow"

    async with stage(app) as on, Client(on.engine) as client:
        first = await on.work(upkeep=True, queues=("other",))
        slow_one = await client.submit("slow")
        last = await client.submit("shout", text=slow_one.output)
        await held(on, last.id)
        await first.stop()
        await on.work(upkeep=True)
        on.clock.advance(ms=5_000)
        await on.engine.tell("upkeep")
        open_gate.set()
        assert await last.result() == "SLOW"


async def test_a_wait_of_a_job_that_never_came_is_forgotten() -> None:
    """A submit that failed after its wait was noted leaves nothing for ever."""
    async with stage(app_of_some()) as on, Client(on.engine) as client:
        page = await client.submit(on.app.tasks["fetch"], "a.org")
        waits = Waits(on.engine)
        await waits.expect([Wait("job_none", DEFAULT_TENANT, (page.id,))], on.clock.now_ms())
        await on.work(upkeep=True)
        await page.result()
        await held(on, "job_none")
        on.clock.advance(ms=waking.ORPHAN_MS + 1)
        duties = on.crew.duties
        assert duties is not None
        await eventually(lambda: not duties.waking._following, "it is given up")
        assert [kept async for kept in waits.since(0)] == []


async def test_one_that_is_gone_is_a_failure() -> None:
    """A job that was purged before its successor began has no output to give."""
    async with stage(app_of_some()) as on, Client(on.engine) as client:
        page = await client.submit(on.app.tasks["fetch"], "a.org")
        last = await client.submit(on.app.tasks["shout"], page.output)
        await client.cancel(page.id)
        await client.delete(page.id)
        await on.work(upkeep=True)
        with pytest.raises(JobFailed, match="is gone"):
            await last.result()


@pytest.mark.parametrize(
    ("after", "told"),
    [(["job_none"], "there is no job 'job_none' to wait for"), ([f"job_{n}" for n in range(1001)], "1,000")],
    ids=["unknown", "too many"],
)
async def test_what_cannot_be_waited_for_is_refused(after: list[str], told: str) -> None:
    """At submit, and nothing is stored."""
    async with stage(app_of_some()) as on, Client(on.engine) as client:
        with pytest.raises(InvalidRequest, match=told) as refused:
            await client.with_options(after=after).submit(on.app.tasks["report"])
        assert refused.value.param == "after"
        assert [job async for job in client.find()] == []
        assert [kept async for kept in Waits(on.engine).since(0)] == []


async def test_a_delay_beside_is_refused() -> None:
    """It would say two times."""
    async with stage(app_of_some()) as on, Client(on.engine) as client:
        page = await client.submit(on.app.tasks["fetch"], "a.org")
        with pytest.raises(InvalidRequest, match="no delay"):
            await client.with_options(after=page, delay=5).submit(on.app.tasks["report"])


async def test_another_tenants_job_is_not_there() -> None:
    """Neither to be waited for, nor by its output."""
    async with stage(app_of_some()) as on, Client(on.engine) as client, Client(on.engine, tenant="other") as other:
        page = await other.submit(on.app.tasks["fetch"], "a.org")
        with pytest.raises(InvalidRequest, match="there is no job"):
            await client.submit(on.app.tasks["shout"], page.output)
