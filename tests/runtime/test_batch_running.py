"""Batches from the lease to the commit: each job gets its own result, failure, usage and files."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from runtime_support import Stage, eventually, stage

from ropeway import Batch, Fail, File
from ropeway.blobs import About
from ropeway.blobs.folder import FolderStore
from ropeway.domain.job import DEFAULT_TENANT, Job, NewJob
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.runtime import App, Context, given

ONCE = Retry(max_attempts=1)
FOREVER_S = 3600.0  # batches that go before this go for another reason


async def run_all(on: Stage, task: str, inputs: list[dict[str, Any]]) -> list[Job]:
    """Submit these at once, and wait until all have ended."""
    job_ids = [await on.submit(task, **each) for each in inputs]
    if not on.workers:
        await on.work()
    return [await on.ended(job_id) for job_id in job_ids]


@pytest.mark.parametrize("form", ["async", "blocking"])
async def test_one_call_serves_many_jobs(form: str) -> None:
    """Those that wait when the worker comes go in full batches, in their order, and each gets its own result."""
    app = App()
    calls: list[list[int]] = []

    def double(n: list[int]) -> list[int]:
        calls.append(n)
        return [each * 2 for each in n]

    async def double_async(n: list[int]) -> list[int]:
        return double(n)

    app.task(batch=Batch(max_size=3, max_wait=FOREVER_S), name="double")(double if form == "blocking" else double_async)
    async with stage(app) as on:
        jobs = await run_all(on, "double", [{"n": n} for n in range(7)])
        assert [job.output for job in jobs] == ["0", "2", "4", "6", "8", "10", "12"]
        assert calls == [[0, 1, 2], [3, 4, 5], [6]]
        counted = on.workers[0].snapshot().batches["double"]
        assert (counted.batches, counted.jobs, counted.largest) == (3, 7, 3)
        assert counted.closed == {"size": 2, "idle": 1}


async def test_jobs_of_all_tenants_share_a_call() -> None:
    """Whoever submitted them: a batch knows no tenants."""
    app = App()
    calls: list[list[str]] = []

    @app.task(batch=Batch(max_size=2, max_wait=FOREVER_S))
    def whose(n: list[int], ctxs: list[Context]) -> list[int]:
        calls.append([ctx.tenant for ctx in ctxs])
        return n

    async with stage(app) as on:
        for tenant in ("acme", "globex"):
            await on.engine.submit([NewJob(f"job_{tenant}", tenant, "default", "whose", '{"n":1}')])
        await on.work()
        await eventually(lambda: bool(calls), "the call is made")
        assert [sorted(tenants) for tenants in calls] == [["acme", "globex"]]


async def test_each_context_is_its_own_jobs() -> None:
    """What is told by it, progress and usage, is told of that job alone."""
    app = App()
    told: list[list[tuple[str, int]]] = []

    @app.task(batch=Batch(max_size=2, max_wait=FOREVER_S))
    def who(n: list[int], *, ctxs: list[Context] = given) -> list[str]:
        told.append([(ctx.job_id, ctx.attempt) for ctx in ctxs])
        for ctx, each in zip(ctxs, n, strict=True):
            ctx.usage(tokens=each)
            ctx.progress(0.5, message=f"half of {each}")
        return [ctx.job_id for ctx in ctxs]

    async with stage(app) as on:
        first, second = await run_all(on, "who", [{"n": 5}, {"n": 7}])
        assert told == [[(first.id, 1), (second.id, 1)]]
        assert (first.output, second.output) == (f'"{first.id}"', f'"{second.id}"')
        assert (first.usage, second.usage) == ('{"tokens":5}', '{"tokens":7}')
        assert await on.data(second.id, "progress") == [{"fraction": 0.5, "message": "half of 7"}]


async def test_an_exception_in_a_place_fails_that_job_alone() -> None:
    """By its own kind: `Fail` for good, anything else by the job's retries."""
    app = App()

    @app.task(batch=Batch(max_size=3), retry=ONCE)
    async def check(n: list[int]) -> list[int | Exception]:
        wrong = {1: Fail("never", code="odd"), 2: ValueError("no")}
        return [wrong.get(each, each) for each in n]

    async with stage(app) as on:
        jobs = await run_all(on, "check", [{"n": n} for n in range(3)])
        assert [job.state for job in jobs] == [State.succeeded, State.failed, State.failed]
        assert [(await on.failure(job.id)).code for job in jobs[1:]] == ["odd", "task_error"]


async def test_a_result_that_json_cannot_carry_fails_its_job_alone() -> None:
    """The others are told theirs."""
    app = App()

    @app.task(batch=Batch(max_size=2))
    def strange(n: list[int]) -> list[Any]:
        return [object() if each else each for each in n]

    async with stage(app) as on:
        good, bad = await run_all(on, "strange", [{"n": 0}, {"n": 1}])
        assert (good.output, (await on.failure(bad.id)).code) == ("0", "output_invalid")


@pytest.mark.parametrize("returned", [[1], [1, 2, 3], {"a": 1}, None])
async def test_results_that_are_not_one_for_each_fail_all(returned: Any) -> None:
    """Nobody can tell whose they are; it is not tried again, since the code is wrong."""
    app = App()
    calls: list[list[int]] = []

    @app.task(batch=Batch(max_size=2))
    def miscounts(n: list[int]) -> list[int]:
        calls.append(n)
        result: list[int] = returned
        return result

    async with stage(app) as on:
        jobs = await run_all(on, "miscounts", [{"n": 0}, {"n": 1}])
        faults = [await on.failure(job.id) for job in jobs]
        assert {fault.code for fault in faults} == {"output_invalid"}
        assert "2 jobs" in faults[0].message
        assert calls == [[0, 1]]


@pytest.mark.parametrize("form", ["async", "blocking"])
async def test_a_failing_call_is_halved_until_its_culprit_is_found(form: str) -> None:
    """Within the same attempt: the others succeed at their first, and the culprit fails by its own error."""
    app = App()
    calls: list[list[int]] = []

    def picky(n: list[int]) -> list[int]:
        calls.append(n)
        if 3 in n:
            raise ValueError("cannot take 3")
        return n

    async def picky_async(n: list[int]) -> list[int]:
        return picky(n)

    app.task(batch=Batch(max_size=4), retry=ONCE, name="picky")(picky if form == "blocking" else picky_async)
    async with stage(app) as on:
        jobs = await run_all(on, "picky", [{"n": n} for n in range(4)])
        assert [job.state for job in jobs] == [State.succeeded] * 3 + [State.failed]
        assert {job.attempt for job in jobs} == {1}
        assert (await on.failure(jobs[3].id)).message == "cannot take 3"
        assert calls == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]
        assert on.workers[0].snapshot().batches["picky"].splits == 2


async def test_code_that_must_not_be_repeated_fails_with_all_its_jobs() -> None:
    """`split=False`."""
    app = App()
    calls: list[list[int]] = []

    @app.task(batch=Batch(max_size=2, split=False), retry=ONCE)
    def charge(n: list[int]) -> list[int]:
        calls.append(n)
        raise ValueError("half of it is done")

    async with stage(app) as on:
        jobs = await run_all(on, "charge", [{"n": 0}, {"n": 1}])
        assert ([job.state for job in jobs], calls) == ([State.failed] * 2, [[0, 1]])


@pytest.mark.parametrize("form", ["async", "blocking"])
async def test_a_job_that_has_put_something_out_is_not_run_again(form: str) -> None:
    """Its readers would get it twice: it fails with the call, the others are found out in halves."""
    app = App()
    calls: list[list[int]] = []

    def half_way(n: list[int], ctxs: list[Context]) -> list[int]:
        calls.append(n)
        if 0 in n:
            ctxs[n.index(0)].emit("begun")
            raise ValueError("broke off")
        return n

    async def half_way_async(n: list[int], ctxs: list[Context]) -> list[int]:
        return half_way(n, ctxs)

    app.task(batch=Batch(max_size=3), retry=ONCE, name="half")(half_way if form == "blocking" else half_way_async)
    async with stage(app) as on:
        jobs = await run_all(on, "half", [{"n": n} for n in range(3)])
        assert [job.output for job in jobs] == ['"begun"', "1", "2"]
        assert (jobs[0].state, calls) == (State.failed, [[0, 1, 2], [1], [2]])


async def test_a_failed_job_is_tried_again_by_its_own_retries() -> None:
    """It comes back as any job does, and may share its next call with others."""
    app = App()
    failures = iter([True])

    @app.task(batch=Batch(max_size=2), retry=Retry(max_attempts=2, base_s=0))
    async def shaky(n: list[int]) -> list[int | Exception]:
        return [ConnectionError() if each and next(failures, False) else each for each in n]

    async with stage(app) as on:
        jobs = await run_all(on, "shaky", [{"n": 0}, {"n": 1}])
        assert [(job.state, job.attempt) for job in jobs] == [(State.succeeded, 1), (State.succeeded, 2)]


async def test_a_snoozing_job_ends_the_call_for_itself_alone() -> None:
    """The others are called again without it, and it comes back later."""
    app = App()
    calls: list[list[int]] = []

    @app.task(batch=Batch(max_size=2))
    async def patient(n: list[int], ctxs: list[Context]) -> list[int]:
        calls.append(n)
        for each, ctx in zip(n, ctxs, strict=True):
            if each == 1 and ctx.attempt == 1 and len(calls) == 1:
                ctx.snooze(60)
        return n

    async with stage(app) as on:
        other, snoozed = await on.submit("patient", n=0), await on.submit("patient", n=1)
        await on.work()
        served = await on.ended(other)
        assert (served.output, served.attempt) == ("0", 1)
        job = await on.when(snoozed, lambda job: job.state is State.scheduled, "it sleeps")
        assert job.state is State.scheduled
        assert calls == [[0, 1], [0]]


async def test_resources_are_given_as_to_any_task() -> None:
    """Opened once, also for a task of a queue that this worker was not prepared for."""
    app = App()
    opened: list[str] = []

    @app.resource
    async def model() -> AsyncIterator[str]:
        opened.append("model")
        yield "mini"

    @app.task(batch=Batch(max_size=2), queue="gpu")
    def embed(text: list[str], *, model: str = given) -> list[str]:
        return [f"{model}:{each}" for each in text]

    @app.task
    async def other() -> None: ...

    async with stage(app) as on:
        jobs = await run_all(on, "embed", [{"text": "a"}, {"text": "b"}])
        assert ([job.output for job in jobs], opened) == (['"mini:a"', '"mini:b"'], ["model"])


async def test_files_are_inputs_as_of_any_job(tmp_path: Path) -> None:
    """Brought before the batch is closed; one that is not there fails its job alone."""
    app = App()

    @app.task(batch=Batch(max_size=3, max_wait=FOREVER_S), retry=ONCE)
    def sizes(document: list[Path], picture: list[File]) -> list[int]:
        return [
            path.stat().st_size + file.wait_for_path().stat().st_size
            for path, file in zip(document, picture, strict=True)
        ]

    store = FolderStore(tmp_path)
    async with stage(app, blobs=store) as on:
        await on.work()
        files = on.workers[0]._files
        assert files is not None

        async def content(text: bytes) -> AsyncIterator[bytes]:
            yield text

        one = await files.create(DEFAULT_TENANT, content(b"one"), About("one.txt"))
        four = await files.create(DEFAULT_TENANT, content(b"four"), About("four.txt"))
        jobs = await run_all(
            on,
            "sizes",
            [
                {"document": {"$file": one.id}, "picture": {"$file": four.id}},
                {"document": {"$file": four.id}, "picture": {"$file": four.id}},
                {"document": {"$file": "file_none"}, "picture": {"$file": four.id}},
            ],
        )
        assert [job.output for job in jobs[:2]] == ["7", "8"]
        assert (await on.failure(jobs[2].id)).code == "input_invalid"


async def test_artifacts_are_kept_before_the_job_succeeds(tmp_path: Path) -> None:
    """Those that the code did not wait for too."""
    app = App()

    @app.task(batch=Batch(max_size=2))
    async def draw(n: list[int], ctxs: list[Context]) -> list[int]:
        for each, ctx in zip(n, ctxs, strict=True):
            ctx.artifact(f"{each}.txt", b"x" * each)
        return n

    async with stage(app, blobs=FolderStore(tmp_path)) as on:
        jobs = await run_all(on, "draw", [{"n": 1}, {"n": 2}])
        told = [await on.data(job.id, "artifact") for job in jobs]
        assert [(each[0]["name"], each[0]["size"]) for each in told] == [("1.txt", 1), ("2.txt", 2)]


async def test_batches_beside_other_tasks_of_the_queue() -> None:
    """A queue may hold both; each runs in its own way."""
    app = App()

    @app.task(batch=Batch(max_size=4))
    def many(n: list[int]) -> list[int]:
        return n

    @app.task
    async def alone(n: int) -> int:
        return -n

    async with stage(app) as on:
        job_ids = [await on.submit(task, n=n) for n in range(5) for task in ("many", "alone")]
        await on.work()
        outputs = [(await on.ended(job_id)).output for job_id in job_ids]
        assert outputs == [str(n * sign) for n in range(5) for sign in (1, -1)]


async def test_calls_run_side_by_side_up_to_the_tasks_concurrency() -> None:
    """One by default; a task says how many its model bears."""
    app = App()
    release, running = threading.Event(), threading.Semaphore(0)

    @app.task(batch=Batch(max_size=2), concurrency=2)
    def slow(n: list[int]) -> list[int]:
        running.release()
        release.wait()
        return n

    async with stage(app) as on:
        job_ids = [await on.submit("slow", n=n) for n in range(7)]
        await on.work()
        await eventually(lambda: on.workers[0].snapshot().batches["slow"].waiting == 2, "one batch is leased ahead")
        counted = on.workers[0].snapshot().batches["slow"]
        release.set()
        assert (counted.running, counted.jobs) == (2, 4)
        for job_id in job_ids:
            await on.ended(job_id)
