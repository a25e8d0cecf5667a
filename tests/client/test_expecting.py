"""Results that are waited for from before the submit: what is asked of the engine for them, and what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from client_support import GREET, Greeting, Stage, stage

from ropeway.client import local
from ropeway.client.expecting import MOST
from ropeway.domain.errors import JobCancelled, JobFailed, JobNotFound, WaitTimeout
from ropeway.domain.job import Job
from ropeway.engines.memory import MemoryEngine


class Looks:
    """The ids that the engine was asked for."""

    def __init__(self, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: list[str] = []
        get = engine.get

        async def counted(tenant: str, job_ids: Sequence[str]) -> list[Job | None]:
            self.ids += job_ids
            return await get(tenant, job_ids)

        monkeypatch.setattr(engine, "get", counted)


@pytest.fixture(name="on")
async def make_stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A client that has asked for a result before."""
    async with stage("memory", tmp_path) as on:
        assert await ended(on) == Greeting("first")
        yield on


async def ended(on: Stage) -> Greeting:
    job = await on.client.submit(GREET, "Ada")
    await on.hand.succeed(await on.hand.take(), {"text": "first"})
    return await job.result(timeout=10)


def listened(on: Stage) -> list[str]:
    """The ends that somebody in this process listens to."""
    assert isinstance(on.engine, MemoryEngine)
    return [topic for topic in on.engine._store.board.topics() if topic.startswith("end:")]


async def test_a_waiter_looks_once_and_after_the_end(on: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its listener stands since before the submit: it hears of the end, whether that comes before it waits or after."""
    assert isinstance(on.engine, MemoryEngine)
    looks = Looks(on.engine, monkeypatch)
    monkeypatch.setattr(local, "SOON_S", 600.0)
    early = await on.client.submit(GREET, "Ada")
    await on.hand.succeed(await on.hand.take(), {"text": "early"})
    assert await early.result(timeout=10) == Greeting("early")
    late = await on.client.submit(GREET, "Ada")
    waiting = asyncio.create_task(late.result(timeout=10))
    await on.hand.succeed(await on.hand.take(), {"text": "late"})
    assert await waiting == Greeting("late")
    assert looks.ids == [early.id, late.id]
    assert listened(on) == []


async def test_without_a_hint_it_looks_soon(on: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost hint costs a moment."""
    assert isinstance(on.engine, MemoryEngine)
    job = await on.client.submit(GREET, "Ada")
    with monkeypatch.context() as patch:
        patch.setattr(on.engine._store.board, "fire", lambda *_: None)
        await on.hand.succeed(await on.hand.take(), {"text": "unheard"})
    assert await job.result(timeout=10) == Greeting("unheard")


async def test_nothing_is_listened_to_before_a_result_was_asked_for(tmp_path: Path) -> None:
    """A program that only submits hears of no ends."""
    async with stage("memory", tmp_path) as on:
        await on.client.submit(GREET, "Ada")
        assert listened(on) == []


async def test_the_last_so_many_are_listened_to(on: Stage) -> None:
    """Results nobody asks for pile up to a bound; a job from before it has its result all the same."""
    jobs = [await on.client.submit(GREET, "Ada") for _ in range(MOST + 20)]
    assert len(listened(on)) == MOST
    await on.hand.succeed(await on.hand.take(), {"text": "old"})
    assert await jobs[0].result(timeout=10) == Greeting("old")
    await on.client.close()
    assert listened(on) == []


async def test_other_ends_are_told_as_ever(on: Stage) -> None:
    """Failure, cancel, a deletion in between, a timeout, and a second asking."""
    failed = await on.client.submit(GREET, "Ada")
    await on.hand.fail(await on.hand.take(), "broke")
    with pytest.raises(JobFailed, match="broke"):
        await failed.result(timeout=10)
    cancelled = await on.client.submit(GREET, "Ada")
    await cancelled.cancel("no need")
    with pytest.raises(JobCancelled, match="no need"):
        await cancelled.result(timeout=10)
    gone = await on.client.submit(GREET, "Ada")
    await on.hand.succeed(await on.hand.take(), {"text": "gone"})
    await on.client.delete(gone.id)
    with pytest.raises(JobNotFound):
        await gone.result(timeout=10)
    slow = await on.client.submit(GREET, "Ada")
    with pytest.raises(WaitTimeout):
        await slow.result(timeout=0)
    await on.hand.succeed(await on.hand.take(), {"text": "slow"})
    assert [await slow.result(timeout=10), await slow.result(timeout=10)] == [Greeting("slow")] * 2


async def test_a_repeated_submit_is_looked_at(on: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an idempotency key gives back may have ended long ago: nobody waits for a hint of that."""
    monkeypatch.setattr(local, "SOON_S", 600.0)
    keyed = on.client.with_options(idempotency_key="once")
    await keyed.submit(GREET, "Ada")
    await on.hand.succeed(await on.hand.take(), {"text": "once"})
    again = await keyed.submit(GREET, "Ada")
    assert again.replayed
    assert await again.result(timeout=10) == Greeting("once")
