"""Limits and the floor in the file: what an older one gets, what each costs, who hears of it, what is forgotten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest
from sqlite_support import QUEUE, TENANT, add, announce, as_, lease, look, new, opened

from ropeway.domain.job import Job, JobOptions, Receipt
from ropeway.domain.lease import Assignment, Commit, Outcome
from ropeway.domain.limit import CALLED_AT_ONCE, Limit, LimitPolicy, LimitSignal
from ropeway.domain.rank import Priority
from ropeway.engines.sqlite import SqliteEngine, SqliteOptions, connection, limits, reading, schema, turns, upkeep
from ropeway.engines.sqlite.fsck import inspect
from ropeway.testing.clock import ManualClock

ONE = JobOptions(limits=(Limit("gpt", max_running=1),))
TEN = JobOptions(limits=(Limit("gpt", max_running=10), Limit("calls", per_s=100.0, burst=50.0)))
DONE = Outcome("succeeded")

OLD_ROWS = """
INSERT INTO jobs(n, id, tenant, queue, task, priority, state, shelf, rank, version, attempt, crashes, runs, epoch, seq,
    started_epoch, created_at_ms)
    VALUES(1, 'old_1', 'default', 'chat', 'echo', 1, 1, 1, 1e12 + 2, 1, 0, 0, 0, 0, 2, 0, 1),
    (2, 'old_2', 'default', 'chat', 'echo', 1, 1, 1, 1e12, 1, 0, 0, 0, 0, 2, 0, 1),
    (3, 'old_3', 'default', 'chat', 'echo', 1, 1, 1, 1e12 + 1, 1, 0, 0, 0, 0, 2, 0, 1);
INSERT INTO inputs VALUES(1, '{}'), (2, '{}'), (3, '{}');
INSERT INTO queues VALUES('chat', '{"queue":"chat"}', 0);
INSERT INTO counts VALUES('chat', '', 0, 3, 0, 0, 0, 0), ('chat', 'default', 0, 3, 0, 0, 0, 0);
INSERT INTO flows VALUES('chat', 1, 'default', 3.0);
"""


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """What all connections made since execute."""
    told: list[str] = []

    def attach(made: apsw.Connection) -> None:
        made.trace_v2(apsw.SQLITE_TRACE_PROFILE, lambda event: told.append(str(event["sql"])))

    apsw.connection_hooks.append(attach)
    yield told
    apsw.connection_hooks.remove(attach)


async def many(engine: SqliteEngine, count: int, name: str = "", **fields: Any) -> None:
    for answer in await engine.submit([new(f"{name}{n:05}", **fields) for n in range(count)]):
        as_(Receipt, answer)


async def finish(engine: SqliteEngine, held: Sequence[Assignment]) -> None:
    await engine.commit([Commit(one.lease, DONE) for one in held])


async def test_an_older_file_keeps_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of schema 3 keeps who waits, in their order, and limits hold in it from then on."""
    path = tmp_path / "jobs.db"
    with monkeypatch.context() as older:
        older.setattr(schema, "VERSION", 3)
        older.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:3])
        db = connection.open_writer(path, SqliteOptions())
        db.execute(OLD_ROWS)
        db.close()
    async with opened(path) as engine:
        await announce(engine)
        await many(engine, 2, "limited_", options=ONE)
        assert [held.job_id for held in await lease(engine, 9)] == ["old_2", "old_3", "old_1", "job_limited_00000"]
        (told,) = await engine.limits()
        assert (told.key, told.running, told.parked) == ("gpt", 1, 1)
    assert inspect(path) == []


async def test_jobs_under_limits_are_moved_together(tmp_path: Path, statements: list[str]) -> None:
    """However many of a key start, end or are parked in one call, the statements are the same few."""

    async def count(act: Callable[[], Awaitable[object]]) -> int:
        statements.clear()
        await act()
        return len(statements)

    async with opened(tmp_path / "jobs.db") as engine:
        await announce(engine)
        costs = []
        for size in (5, 30):
            await engine.set_limits({"gpt": LimitPolicy(max_running=size)})
            await many(engine, size * 2, f"{size}_", options=TEN)
            held: list[Assignment] = []

            async def start(held: list[Assignment] = held, size: int = size) -> None:
                held += await lease(engine, size * 2)

            async def end(held: list[Assignment] = held) -> None:
                await finish(engine, held)

            costs.append((await count(start), await count(end)))
            while left := await lease(engine, size * 2):
                await finish(engine, left)
        assert costs[0] == costs[1]
        assert max(costs[1]) <= 24


async def test_several_priorities_cost_two_statements_more(tmp_path: Path, statements: list[str]) -> None:
    """Whose turn it is takes a look at each band, and only where several wait."""

    async with opened(tmp_path / "jobs.db") as engine:
        await announce(engine)
        await many(engine, 20, "first_")
        await lease(engine, 10)
        await many(engine, 20, "second_")
        statements.clear()
        await lease(engine, 10)
        plain = len(statements)
        await many(engine, 30, "high_", priority=Priority.high)
        statements.clear()
        held = await lease(engine, 20)
        assert [place for place, one in enumerate(held) if not one.job_id.startswith("job_high")] == [9, 19]
        assert len(statements) <= plain + 2


async def test_an_end_makes_room_for_a_lease_of_the_same_transaction(tmp_path: Path) -> None:
    """Commits and leases that meet in one transaction: whoever was parked starts in it."""
    async with opened(tmp_path / "jobs.db") as engine:
        await announce(engine)
        await many(engine, 2, options=ONE)
        held = await lease(engine, 2)
        assert await lease(engine, 1) == []
        import asyncio

        _, started = await asyncio.gather(finish(engine, held), lease(engine, 1))
        assert [one.job_id for one in started] == ["job_00001"]


async def test_other_processes_hear_that_a_place_is_free(tmp_path: Path) -> None:
    """Engines on one file share limits, and a worker that waits at one is woken by an end at the other."""
    async with opened(tmp_path / "jobs.db") as here, opened(tmp_path / "jobs.db") as there:
        await announce(here)
        await announce(there, "s2")
        await many(here, 2, options=ONE)
        (held,) = await lease(here, 2)
        assert await lease(there, 1, "s2") == []
        with there.listen(f"queue:{QUEUE}") as hints:
            await finish(here, [held])
            assert await hints.wait(30) == {f"queue:{QUEUE}"}
        assert [one.job_id for one in await lease(there, 1, "s2")] == ["job_00001"]


async def test_so_many_at_most_are_called_at_once(tmp_path: Path) -> None:
    """A key that becomes free with a multitude behind it: one step calls a part, promotions the rest."""
    async with opened(tmp_path / "jobs.db", clock=ManualClock()) as engine:
        await announce(engine)
        paused = JobOptions(limits=(Limit("gpt", per_s=1e6, burst=1e6),))
        await engine.signal([LimitSignal(paused.limits[0], pause_ms=1_000)])
        await many(engine, CALLED_AT_ONCE + 500, options=paused)
        for _ in range(8):
            assert await lease(engine, 10) == []
        await engine.set_limits({"gpt": LimitPolicy()})
        told = await engine.promote(100)
        assert told.moved == 0
        engine._clock.advance(1_000)  # type: ignore[attr-defined]
        first, second = await engine.promote(100), await engine.promote(100)
        assert (first.moved, second.moved, second.next_at_ms) == (CALLED_AT_ONCE, 500, None)


async def test_nothing_is_kept_of_keys_that_are_idle(tmp_path: Path) -> None:
    """Keys may be as many as users: a row is there while something is taken, set, paused or waited for."""
    clock = ManualClock()
    async with opened(tmp_path / "jobs.db", clock=clock) as engine:
        await announce(engine, ttl_ms=10**9)
        for n in range(20):
            await add(engine, n, options=JobOptions(limits=(Limit(f"user:{n}", max_running=1),)))
        held = await lease(engine, 20)
        assert rows(tmp_path) == 20
        await finish(engine, held)
        assert rows(tmp_path) == 0
        await add(engine, "rate", options=JobOptions(limits=(Limit("rate", per_s=1.0, burst=5.0),)))
        await finish(engine, await lease(engine))
        clock.advance(86_400_000)
        await engine.prune(10)
        assert rows(tmp_path) == 1
        clock.advance(1)
        await engine.prune(10)
        assert rows(tmp_path) == 0


def rows(home: Path) -> object:
    with look(home / "jobs.db") as db:
        return db.execute("SELECT count(*) FROM limits").get


async def test_a_cancelled_job_leaves_its_key(tmp_path: Path) -> None:
    """A parked job that ends names no key any more, and the store is in order at each step."""
    async with opened(tmp_path / "jobs.db") as engine:
        await announce(engine)
        await many(engine, 3, options=ONE)
        (held,) = await lease(engine, 3)
        assert inspect(tmp_path / "jobs.db") == []
        await engine.cancel(TENANT, ["job_00001"], None)
        assert as_(Job, (await engine.get(TENANT, ["job_00001"]))[0]).parked is None
        assert inspect(tmp_path / "jobs.db") == []
        await finish(engine, [held])
        assert inspect(tmp_path / "jobs.db") == []


@pytest.mark.parametrize(
    ("statement", "bindings"),
    [
        (turns._LINE, ("q", 10, 0)),
        (turns._BANDS, ("q", 10)),
        (turns._ROWS, ("[]",)),
        (limits._LEARN, ("[]",)),
        (limits._PARKED, ("k", 0.0, 0, 10)),
        (limits._COUNT_PARKED, ("k",)),
        (limits._DUE, (1, 10)),
        (limits._FORGET, (1, 1, 10)),
        (reading._AHEAD, ("q", 0.0, 1, 0.0, 1, 10)),
        (reading._PARKED_AHEAD, ("k", 0.0, 1, 10)),
        (upkeep._NEXT, ()),
    ],
)
async def test_no_statement_reads_all_the_jobs(tmp_path: Path, statement: str, bindings: tuple[object, ...]) -> None:
    """Each finds its rows by an index, and sorts none."""
    async with opened(tmp_path / "jobs.db"):
        with look(tmp_path / "jobs.db") as db:
            steps = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", bindings)]
    assert any("SEARCH" in step for step in steps), steps
    bad = [step for step in steps if step in ("SCAN jobs", "SCAN limits") or "TEMP B-TREE" in step]
    assert bad == [], steps
