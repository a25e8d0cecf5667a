"""A job's routes: look, wait, result, cancel, retry, delete, list."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from serving_support import ENGINES, QUICK, stage, until

from ropeway.domain.lease import Outcome
from ropeway.domain.worker import TaskCard
from ropeway.serving import Gateway


async def test_a_job_has_a_version_and_is_304_while_it_holds() -> None:
    """ETag and If-None-Match."""
    async with stage() as s:
        job_id = await s.submit("free", {"a": 1}, metadata={"k": "v"})
        first = await s.http.get(f"/v1/jobs/{job_id}")
        assert (first.status_code, first.json()["input"], first.json()["metadata"]) == (200, {"a": 1}, {"k": "v"})
        etag = first.headers["etag"]
        for known in (etag, f'"99", W/{etag}', "*"):
            same = await s.http.get(f"/v1/jobs/{job_id}", headers={"if-none-match": known})
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
        await s.hand.take()
        changed = await s.http.get(f"/v1/jobs/{job_id}", headers={"if-none-match": etag})
        assert (changed.status_code, changed.json()["state"]) == (200, "running")
        assert changed.headers["etag"] != etag


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", ["query", "header"])
async def test_a_long_poll_is_answered_when_the_job_ends(engine: str, way: str, tmp_path: Path) -> None:
    """Not when it merely changes; `?wait=` and `Prefer: wait=` are the same. Nothing polls: a hint ends it."""
    options = msgspec.structs.replace(QUICK, recheck_s=600.0)
    async with stage(engine, tmp_path, options) as s:
        job_id = await s.submit()
        path, headers = f"/v1/jobs/{job_id}", {}
        if way == "query":
            path += "?wait=59.5"
        else:
            headers["Prefer"] = "wait=59"
        waiting = asyncio.create_task(s.http.get(path, headers=headers))
        await until(lambda: s.waiting == 1)
        work = await s.hand.take()
        await s.hand.emit(work, ("progress", {"fraction": 0.5}))
        assert not waiting.done()
        await s.hand.succeed(work, "done")
        answer = await waiting
        assert (answer.status_code, answer.json()["state"], answer.json()["output"]) == (200, "succeeded", "done")
        assert s.waiting == 0


async def test_a_long_poll_with_a_version_is_answered_at_any_change() -> None:
    """If-None-Match with a wait: what a progress bar wants."""
    async with stage() as s:
        job_id = await s.submit()
        work = await s.hand.take()
        etag = (await s.http.get(f"/v1/jobs/{job_id}")).headers["etag"]
        waiting = asyncio.create_task(s.http.get(f"/v1/jobs/{job_id}?wait=60", headers={"if-none-match": etag}))
        await until(lambda: s.waiting == 1)
        await s.hand.emit(work, ("progress", {"fraction": 0.25}))
        answer = await waiting
        assert (answer.status_code, answer.json()["progress"]) == (200, {"fraction": 0.25})
        late = await s.http.get(f"/v1/jobs/{job_id}?wait=0.01", headers={"if-none-match": answer.headers["etag"]})
        assert late.status_code == 304


async def test_a_long_poll_that_is_too_short_gives_the_job_as_it_stands() -> None:
    """The wait is not a failure."""
    async with stage() as s:
        answer = await s.http.get(f"/v1/jobs/{await s.submit()}?wait=0.01")
        assert (answer.status_code, answer.json()["state"]) == (200, "queued")


async def test_a_client_that_leaves_its_long_poll_is_forgotten() -> None:
    """Nobody waits for nobody."""
    async with stage() as s:
        job_id = await s.submit()
        async with s.call("GET", f"/v1/jobs/{job_id}", query="wait=60") as call:
            await until(lambda: s.waiting == 1)
            call.leave()
            await call.done()
        assert s.waiting == 0


async def test_places_in_line_count_from_the_next() -> None:
    """0 is next; who runs has none."""
    async with stage() as s:
        ids = [await s.submit() for _ in range(3)]
        assert [(await s.job(job_id))["queue_position"] for job_id in ids] == [0, 1, 2]
        await s.hand.take()
        assert [(await s.job(job_id))["queue_position"] for job_id in ids] == [None, 0, 1]


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_result_is_the_output_alone(engine: str, tmp_path: Path) -> None:
    """202 with the job until it is there, then the worker's JSON as it wrote it."""
    async with stage(engine, tmp_path) as s:
        job_id = await s.submit()
        early = await s.http.get(f"/v1/jobs/{job_id}/result")
        assert (early.status_code, early.json()["state"]) == (202, "queued")
        assert 1 <= int(early.headers["retry-after"]) <= 60
        waiting = asyncio.create_task(s.http.get(f"/v1/jobs/{job_id}/result?wait=30"))
        await until(lambda: s.waiting == 1)
        await s.hand.end(await s.hand.take(), Outcome("succeeded", output='{"big": 123456789012345678901234567890}'))
        answer = await waiting
        assert (answer.status_code, answer.content) == (200, b'{"big": 123456789012345678901234567890}')
        assert answer.headers["content-type"] == "application/json"


async def test_the_result_of_a_failed_job_is_its_recorded_error() -> None:
    """424: this request is fine, the job is not; and to ask again is of no use. The job itself is still 200."""
    async with stage() as s:
        job_id = await s.submit()
        await s.hand.fail(await s.hand.take(), "the model said no")
        answer = await s.http.get(f"/v1/jobs/{job_id}/result")
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["detail"]) == (424, "task_error", "the model said no")
        assert (problem["job_error"]["attempt"], answer.headers["x-should-retry"]) == (1, "false")
        job = await s.http.get(f"/v1/jobs/{job_id}")
        assert (job.status_code, job.json()["error"]["message"]) == (200, "the model said no")


async def test_the_result_of_a_cancelled_job_says_so() -> None:
    """With the reason given."""
    async with stage() as s:
        job_id = await s.submit()
        await s.http.post(f"/v1/jobs/{job_id}/cancel", json={"reason": "changed my mind"})
        answer = await s.http.get(f"/v1/jobs/{job_id}/result")
        assert (answer.status_code, answer.json()["code"]) == (424, "cancelled")
        assert "changed my mind" in answer.json()["detail"]


@pytest.mark.parametrize("engine", ENGINES)
async def test_cancel_is_at_once_for_who_waits_and_asked_of_who_runs(engine: str, tmp_path: Path) -> None:
    """200 and 202; repeated, or too late, it is harmless."""
    async with stage(engine, tmp_path) as s:
        waits = await s.submit(delay=100)
        answer = await s.http.post(f"/v1/jobs/{waits}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        runs = await s.submit()
        work = await s.hand.take()
        for _ in range(2):
            answer = await s.http.post(f"/v1/jobs/{runs}/cancel", json={"reason": "too slow"})
            assert (answer.status_code, answer.json()["state"]) == (202, "running")
            assert answer.json()["cancel_reason"] == "too slow"
        await s.hand.succeed(work, "too late")
        answer = await s.http.post(f"/v1/jobs/{runs}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_retry_is_a_new_job_from_one_that_ended(engine: str, tmp_path: Path) -> None:
    """It names its parent; of one that lives there is none; under a key it is made once."""
    async with stage(engine, tmp_path) as s:
        old = await s.submit("greet", {"name": "Ada"}, tags=["a"])
        live = await s.http.post(f"/v1/jobs/{old}/retry")
        assert (live.status_code, live.json()["code"]) == (409, "job_not_retryable")
        await s.hand.fail(await s.hand.take(), "no")
        key = {"Idempotency-Key": "again"}
        first, second = [await s.http.post(f"/v1/jobs/{old}/retry", headers=key) for _ in range(2)]
        assert (first.status_code, first.json()["retry_of"], first.json()["tags"]) == (202, old, ["a"])
        assert first.headers["location"].endswith(first.json()["id"])
        assert second.json()["id"] == first.json()["id"] != old
        assert ("idempotency-replayed" in first.headers, second.headers["idempotency-replayed"]) == (False, "true")
        third = await s.http.post(f"/v1/jobs/{old}/retry")
        assert third.json()["id"] not in (old, first.json()["id"])
        assert (await s.hand.take()).input == '{"name":"Ada"}'


@pytest.mark.parametrize("engine", ENGINES)
async def test_only_what_has_ended_is_deleted(engine: str, tmp_path: Path) -> None:
    """409 while it lives; `force=1` cancels it first, and waits for one that runs."""
    async with stage(engine, tmp_path) as s:
        waits, runs = await s.submit(), await s.submit(queue="other")
        live = await s.http.delete(f"/v1/jobs/{waits}")
        assert (live.status_code, live.json()["code"]) == (409, "job_live")
        gone = await s.http.delete(f"/v1/jobs/{waits}?force=1")
        assert (gone.status_code, gone.content) == (204, b"")
        assert (await s.http.get(f"/v1/jobs/{waits}")).status_code == 404
        work = await s.hand.take()
        assert work.job_id == runs
        deleting = asyncio.create_task(s.http.delete(f"/v1/jobs/{runs}?force=true"))
        await until(lambda: s.waiting == 1)
        await s.hand.end(work, Outcome("cancelled"))
        assert (await deleting).status_code == 204
        assert (await s.http.delete(f"/v1/jobs/{runs}")).status_code == 404


async def test_a_forced_delete_does_not_wait_for_ever() -> None:
    """409, and the job has been asked to stop."""
    async with stage(options=msgspec.structs.replace(QUICK, force_wait_s=0.01)) as s:
        job_id = await s.submit()
        await s.hand.take()
        answer = await s.http.delete(f"/v1/jobs/{job_id}?force=1")
        assert (answer.status_code, answer.json()["code"]) == (409, "job_live")
        assert (await s.job(job_id))["cancel_requested_at"] is not None


@pytest.mark.parametrize("engine", ENGINES)
async def test_lists_are_newest_first_filtered_and_paged(engine: str, tmp_path: Path) -> None:
    """Each page names the next; inputs and outputs are not in them."""
    async with stage(engine, tmp_path) as s:
        ids = [await s.submit("free", n, tags=[f"t{n % 2}"]) for n in range(7)]
        await s.submit("greet", {"name": "x"}, queue="other")
        done = await s.hand.take()
        await s.hand.succeed(done, "x")

        async def listed(query: str) -> list[str]:
            answer = await s.http.get(f"/v1/jobs?{query}")
            assert answer.status_code == 200, answer.text
            return [job["id"] for job in answer.json()["data"]]

        assert await listed("queue=hall") == ids[::-1]
        assert await listed("task=free&tag=t1") == ids[5::-2]
        assert await listed("state=succeeded,failed") == [done.job_id]
        assert await listed("state=cancelled") == []
        seen: list[str] = []
        cursor = ""
        while True:
            page = (await s.http.get(f"/v1/jobs?limit=3&queue=hall{cursor}")).json()
            seen += [job["id"] for job in page["data"]]
            assert page["has_more"] == (page["next_cursor"] is not None)
            assert not any({"input", "output"} & set(job) for job in page["data"])
            if not page["has_more"]:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert seen == ids[::-1]


async def test_another_tenants_job_is_as_one_that_is_not_there() -> None:
    """The same bytes, but for the request's own id."""
    async with stage() as s:
        job_id = await s.submit()
        other = Gateway(s.engine, QUICK, tenant="other")
        bodies = []
        for asked in (job_id, job_id[:-1] + "x"):
            call = s.call("GET", f"/v1/jobs/{asked}")
            call.app = other
            async with call:
                await call.done()
            problem = msgspec.json.decode(call.received)
            assert call.status == 404
            problem.pop("instance")
            bodies.append(msgspec.json.encode(problem).replace(asked.encode(), b"ID"))
        assert bodies[0] == bodies[1]


@pytest.mark.parametrize("task", ["plain", "100%", "@id@"])
async def test_a_plain_submit_is_answered_as_any_other(task: str) -> None:
    """The answer that is shaped once and filled in says just what the slow way says."""
    async with stage() as s:
        await s.hand.announce(TaskCard(task, queue="hall"))
        answers = [await s.http.post("/v1/jobs", json={"task": task}) for _ in range(3)]
        for n, answer in enumerate(answers):
            told = answer.json()
            full = await s.job(told["id"])
            assert full.pop("input") == {}
            assert (told["task"], told["queue_position"], told) == (task, n, full)
            assert list(told) == list(full)
