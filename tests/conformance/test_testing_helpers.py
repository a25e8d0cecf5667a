"""The helpers that users' own tests stand on: the manual clock, seeded randomness, the faulty engine, the registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ropeway.domain.bucket import Spend
from ropeway.domain.errors import EngineUnavailable, OutcomeUnknown
from ropeway.domain.event import START
from ropeway.domain.job import JobQuery, NewJob, Receipt
from ropeway.domain.lease import Append, Appended, Commit, LeaseRequest, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueChange
from ropeway.domain.record import Put, RecordKey
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.base import Engine
from ropeway.engines.memory import MemoryEngine
from ropeway.testing import FaultyEngine, ManualClock, scripted, seeded, seeded_random
from ropeway.testing.bench import Bench, as_, durable
from ropeway.testing.conformance import CHECKS, Check, run
from ropeway.testing.conformance.registry import promise
from ropeway.testing.faults import WRITES, Plan
from ropeway.testing.harness import MemoryHarness


def job(job_id: str) -> NewJob:
    return NewJob(job_id, "acme", "chat", "echo", "{}")


@pytest.fixture
async def inner() -> AsyncIterator[Engine]:
    engine = MemoryEngine(ManualClock(), seeded_random(1))
    await engine.open()
    yield engine
    await engine.shut()


def test_a_manual_clock_stands_until_it_is_moved() -> None:
    """Both clocks move by what a test says, and by nothing else."""
    clock = ManualClock(1000)
    assert (clock.now_ms(), clock.monotonic_s()) == (1000, 0.0)
    clock.advance(250)
    clock.advance(s=1.5)
    assert (clock.now_ms(), clock.monotonic_s()) == (2750, 1.75)


def test_a_wall_clock_jumps_and_a_monotonic_one_does_not() -> None:
    """A jump, forwards or back, is of the wall clock alone; time itself passes forwards only."""
    clock = ManualClock(1000)
    clock.jump(-400)
    assert (clock.now_ms(), clock.monotonic_s()) == (600, 0.0)
    with pytest.raises(ValueError, match="jump"):
        clock.advance(-1)


def test_seeded_randomness_repeats() -> None:
    """The same seed gives the same bytes, another seed others."""
    first, second, other = seeded_random(7), seeded_random(7), seeded_random("7")
    drawn = [first(12), first(3)]
    assert [second(12), second(3)] == drawn
    assert other(12) != drawn[0]


async def test_a_call_that_failed_before_did_not_happen(inner: Engine) -> None:
    """`before`: EngineUnavailable, and the store knows nothing of it; the calls beside it succeed."""
    engine = FaultyEngine(inner, scripted(submit=[None, "before"]))
    await engine.submit([job("a")])
    with pytest.raises(EngineUnavailable) as failure:
        await engine.submit([job("b")])
    assert type(failure.value) is EngineUnavailable
    await engine.submit([job("c")])
    assert [found and found.id for found in await engine.get("acme", ["a", "b", "c"])] == ["a", None, "c"]
    assert engine.calls == {"submit": 3, "get": 1}


async def test_a_call_that_failed_after_did_happen(inner: Engine) -> None:
    """`after`: OutcomeUnknown, though the store has it; the repeat is answered as a replay."""
    engine = FaultyEngine(inner, scripted(submit=["after"]))
    with pytest.raises(OutcomeUnknown):
        await engine.submit([job("a")])
    (answer,) = await engine.submit([job("a")])
    assert as_(Receipt, answer).replayed


def fates(plan: Plan, method: str, count: int) -> list[str | None]:
    return [plan(method, nth) for nth in range(count)]


def test_a_seeded_plan_repeats() -> None:
    """The same seed fails the same calls, about as many as asked, and only of the methods named."""
    plan = seeded(3, before=0.2, after=0.2)
    drawn = fates(plan, "commit", 1000)
    assert fates(seeded(3, before=0.2, after=0.2), "commit", 1000) == drawn
    assert fates(seeded(4, before=0.2, after=0.2), "commit", 1000) != drawn
    assert 120 < drawn.count("before") < 280
    assert 120 < drawn.count("after") < 280
    assert set(fates(plan, "get", 1000)) == {None}
    assert set(fates(seeded(3, before=1.0, methods=["get"]), "get", 5)) == {"before"}


async def test_a_faulty_engine_is_an_engine(inner: Engine) -> None:
    """With no fault in its plan it passes every call and every answer through."""
    engine = FaultyEngine(inner, scripted())
    await engine.open()
    await engine.publish([TaskCard("echo")])
    await engine.announce(WorkerCard("s1", "s1", ("chat",)))
    await engine.set_queue([QueueChange("chat", max_depth=9)])
    with engine.listen("queue:chat") as listener:
        await engine.submit([job("a"), job("b"), job("c")])
        assert await listener.wait(0) == {"queue:chat"}
    assert await engine.position("acme", "b") == 1
    held, other = await engine.lease(LeaseRequest("s1", "w", ("chat",), 2))
    assert await engine.append([Append(held.lease, 1, (("log", "1"),))]) == [Appended(2)]
    assert (await engine.renew("s1", 5000)).alive
    assert await engine.commit([Commit(held.lease, Outcome("succeeded"))]) == [State.succeeded]
    await engine.cancel("acme", ["c"], None)
    await engine.wake("acme", ["c"])
    await engine.retry("acme", [("a", "d")])
    assert await engine.purge("acme", ["c"]) == [None]
    page = await engine.read("acme", "a", START, 10)
    assert page is not None
    assert page.ended
    assert [found.id for found in (await engine.find(JobQuery("acme"))).jobs] == ["d", "b", "a"]
    assert [stats.succeeded for stats in await engine.stats()] == [1]
    assert [len(await engine.tasks()), len(await engine.workers())] == [1, 1]
    assert ((await engine.promote(5)).moved, await engine.rescue(5), await engine.prune(5)) == (0, 0, 0)
    assert await engine.elect("upkeep", "a", 1000)
    await engine.close("s1")
    assert [found and found.state for found in await engine.get("acme", [other.job_id])] == [State.queued]
    key = RecordKey("kind", "acme", "r")
    assert await engine.put([Put(key, "{}")]) == await engine.fetch([key]) == await engine.scan("kind", "acme")
    assert await engine.drop([key]) == [True]
    assert [allowance.granted for allowance in await engine.spend([Spend("acme/calls", 1, 1, 1)])] == [True]
    assert engine.info.kind == "memory"
    await engine.shut()
    assert set(engine.calls) > WRITES


async def test_a_faulty_engines_renewer_is_on_the_same_line(inner: Engine) -> None:
    """Its renewals and closings fail by the engine's own plan and are counted with the engine's calls."""
    engine = FaultyEngine(inner, scripted(renew=[None, "before", "after"], close=["after"]))
    await engine.announce(WorkerCard("s1", "s1", ("chat",)))
    assert (await engine.renew("s1", 5000)).alive
    renewer = engine.renewer()
    with pytest.raises(EngineUnavailable):
        renewer.renew("s1", 5000)
    with pytest.raises(OutcomeUnknown):
        renewer.renew("s1", 5000)
    assert renewer.renew("s1", 5000).alive
    with pytest.raises(OutcomeUnknown):
        await asyncio.to_thread(renewer.close_session, "s1")
    assert not renewer.renew("s1", 5000).alive
    renewer.close()
    assert engine.calls["renew"] == 5


async def test_a_broken_promise_is_told() -> None:
    """A check that fails raises AssertionError, and its engine is let go of all the same."""
    stopped: list[Engine] = []

    class Harness(MemoryHarness):
        async def stop(self, engine: Engine) -> None:
            stopped.append(engine)
            await super().stop(engine)

    async def broken(bench: Bench) -> None:
        await bench.add()
        assert await bench.lease() == []

    with pytest.raises(AssertionError):
        await run(Check("broken", "Nothing is ever leased.", broken, durable=False), Harness())
    assert len(stopped) == 1


def test_a_check_needs_a_promise_and_a_name_of_its_own() -> None:
    """A check without a docstring, or with another's name, is no check."""

    async def nothing(bench: Bench) -> None: ...

    async def promotion_is_exact(bench: Bench) -> None:
        """The same name again."""

    for function in (nothing, promotion_is_exact):
        with pytest.raises(ValueError, match="needs a docstring"):
            promise(function)
    assert "nothing" not in CHECKS


def test_what_a_bench_expects_is_told() -> None:
    """An answer of another kind, and a harness that keeps nothing, are named in the failure."""
    with pytest.raises(AssertionError, match="expected Receipt, got 7"):
        as_(Receipt, 7)
    with pytest.raises(AssertionError, match="memory keeps nothing"):
        durable(MemoryHarness())
