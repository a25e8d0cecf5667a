"""One suite for the client's face on every transport: results used again, and jobs shared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from client_support import GREET, TRANSPORTS, Greeting, Stage, stage

from ropeway.client import SyncClient, call
from ropeway.domain.errors import InvalidRequest, JobLive
from ropeway.domain.lifecycle import State
from ropeway.testing.faults import FaultyEngine, scripted


@pytest.fixture(name="on", params=TRANSPORTS)
async def make_stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(request.param, tmp_path) as made:
        yield made


async def test_handles_tell_that_another_asked_before(on: Stage) -> None:
    """Two handles of one job: the second says so, and both have its result; so has who comes when it is there."""
    client = on.client.with_options(cache=True)
    first, second = [await client.submit(GREET, "Ada") for _ in range(2)]
    assert (first.cached, second.cached, second.id) == (False, True, first.id)
    await on.hand.succeed(await on.hand.take(), {"text": "hello"})
    third = await client.submit(GREET, "Ada")
    assert (third.cached, third.replayed) == (True, False)
    for handle in (first, second, third):
        assert await handle.result(timeout=10) == Greeting("hello")
    assert (await third.get()).joined == 1
    (row,) = (await on.client.usage()).data
    assert (row.task, row.amounts) == ("greet", {"cache_joins": 1, "cache_hits": 1})


async def test_many_submits_share_too(on: Stage) -> None:
    """In a crowd of submits each equal one is answered with the first."""
    calls = [call(GREET, name) for name in ("Ada", "Bob", "Ada", "Ada")]
    client = on.client.with_options(cache={"ttl": 60})
    handles = [handle async for handle in client.submit_many(calls)]
    assert [handle.cached for handle in handles] == [False, False, True, True]
    assert len({handle.id for handle in handles}) == 2


async def test_a_cancel_leaves_the_job_to_the_others(on: Stage) -> None:
    """The first cancel takes one sharer away, and `for_all` all of them; a deletion by force is one sharer's."""
    client = on.client.with_options(cache=True)
    handles = [await client.submit(GREET, "Ada") for _ in range(3)]
    left = await handles[0].cancel("not me")
    assert (left.state, left.joined, left.cancel_requested_at) == (State.queued, 1, None)
    with pytest.raises(JobLive, match="shared"):
        await on.client.delete(left.id, force=True)
    assert (await handles[1].get()).joined == 0
    again = await client.submit(GREET, "Ada")
    assert (await again.cancel("enough", for_all=True)).state is State.cancelled


async def test_an_option_that_cannot_be_is_refused(on: Stage) -> None:
    """Before anything is sent where that can be known."""
    with pytest.raises(InvalidRequest, match="cache"):
        on.client.with_options(cache="sometimes")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=r"cache\.ttl"):
        await on.client.with_options(cache={"ttl": -5}).submit(GREET, "Ada")


async def test_a_submit_of_unknown_outcome_is_one_sharer(tmp_path: Path) -> None:
    """The engine stored it and the reply was lost: the client sends it again, and is counted once."""
    async with stage("memory", tmp_path) as s:
        first = await s.client.with_options(cache=True).submit(GREET, "Ada")
        faulty = FaultyEngine(s.engine, scripted(submit=["after"]))
        async with type(s.client)(faulty) as client:
            second = await client.with_options(cache=True).submit(GREET, "Ada")
        assert (second.id, second.cached) == (first.id, True)
        assert (await first.get()).joined == 1


def test_the_blocking_client_has_it_too(tmp_path: Path) -> None:
    """`SyncClient` says and does the same."""
    with SyncClient(f"sqlite:{tmp_path / 'jobs.db'}") as client:
        sharing = client.with_options(cache=True)
        handles = [sharing.submit(GREET, "Ada") for _ in range(2)]
        assert [handle.cached for handle in handles] == [False, True]
        assert handles[0].cancel().state is State.queued
        assert handles[0].cancel(for_all=True).state is State.cancelled
