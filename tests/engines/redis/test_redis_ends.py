"""Ends that bring their output along: a waiter asks the server nothing, and is told what it would have found."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from link_support import SESSION, Store, eventually, quick, wire

from ropeway.client import Client, local
from ropeway.domain.errors import JobFailed, JobNotFound
from ropeway.domain.job import DEFAULT_TENANT, Job
from ropeway.domain.lease import Assignment, Commit, Outcome
from ropeway.domain.worker import TaskCard

__all__ = ["quick"]

pytestmark = pytest.mark.usefixtures("quick")

SHORT = {"text": 'é\n "two" \u2028 lines', "n": [1, 2]}
LONG = "x" * 2000


async def announced(store: Store) -> Client:
    """A client of a store with a worker in hand, which has asked for a result before."""
    await store.engine.publish([TaskCard("echo", queue="q")])
    await store.announce()
    client = Client(store.engine)
    job = await client.submit("echo")
    await succeed(store, (await store.lease())[0], 0)
    assert await job.result(timeout=10) == 0
    return client


async def succeed(store: Store, held: Assignment, output: Any) -> None:
    text = msgspec.json.encode(output).decode()
    await store.engine.commit([Commit(held.lease, Outcome("succeeded", output=text))])


def count_looks(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    looks: list[str] = []
    get = store.engine.get

    async def counted(tenant: str, job_ids: Sequence[str]) -> list[Job | None]:
        looks.extend(job_ids)
        return await get(tenant, job_ids)

    monkeypatch.setattr(store.engine, "get", counted)
    return looks


@pytest.mark.parametrize(("output", "looked"), [(SHORT, 0), (None, 0), (LONG, 1)])
async def test_a_short_output_comes_with_the_hint(monkeypatch: pytest.MonkeyPatch, output: Any, looked: int) -> None:
    """It is what was committed, to the byte; a long one is asked for."""
    async with wire(timeout_s=10) as on:
        client = await announced(on.far)
        looks = count_looks(on.far, monkeypatch)
        monkeypatch.setattr(local, "SOON_S", 600.0)
        job = await client.submit("echo")
        await succeed(on.near, (await on.near.lease())[0], output)
        assert await job.result(timeout=10) == output
        assert len(looks) == looked


async def test_each_of_many_ends_brings_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One message tells of all that one commit ended, in any way."""
    async with wire(timeout_s=10) as on:
        client = await announced(on.far)
        looks = count_looks(on.far, monkeypatch)
        monkeypatch.setattr(local, "SOON_S", 600.0)
        jobs = [await client.submit("echo") for _ in range(4)]
        held = {each.job_id: each.lease for each in await on.near.lease(4)}
        error = '{"code":"task_error","message":"no luck"}'
        outcomes = [
            Outcome("succeeded", output='"a"'),
            Outcome("failed", error=error),
            Outcome("succeeded", output=f'"{LONG}"'),
            Outcome("succeeded", output='"d"'),
        ]
        await on.near.engine.commit([Commit(held[job.id], end) for job, end in zip(jobs, outcomes, strict=True)])
        assert await jobs[3].result(timeout=10) == "d"
        assert await jobs[2].result(timeout=10) == LONG
        with pytest.raises(JobFailed, match="no luck"):
            await jobs[1].result(timeout=10)
        assert await jobs[0].result(timeout=10) == "a"
        assert looks == [jobs[2].id, jobs[1].id]


async def test_a_job_that_went_after_its_end_is_not_found() -> None:
    """The last hint counts: what a deleted job gave is given no more."""
    async with wire(timeout_s=10) as on:
        client = await announced(on.far)
        job = await client.submit("echo")
        await succeed(on.near, (await on.near.lease())[0], 1)
        await on.far.engine.purge(DEFAULT_TENANT, [job.id])
        with pytest.raises(JobNotFound):
            await job.result(timeout=10)


async def test_an_end_behind_a_broken_line_is_found() -> None:
    """Hints that a lost connection swallowed are made good by a look when there is another."""
    async with wire() as on:
        client = await announced(on.far)
        job = await client.submit("echo")
        waiting = asyncio.create_task(job.result(timeout=20))
        connects = on.far.connects
        on.proxy.end_all(rst=True)
        await succeed(on.near, (await on.near.lease(session=SESSION))[0], "kept")
        await eventually(lambda: on.far.connects > connects and on.far.is_linked, "there is another link")
        assert await waiting == "kept"
