"""What operations cost, counted in SQLite's own steps and in statements: figures that no machine changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import apsw
import pytest
from sqlite_support import SESSION, TENANT, add, announce, lease, new, opened

from ropeway.domain.event import START, Cursor
from ropeway.domain.job import JobQuery
from ropeway.domain.lease import Append, Assignment, Commit, Outcome
from ropeway.domain.lifecycle import State
from ropeway.engines.sqlite import SqliteEngine

SMALL, LARGE = 200, 20_000
TOLERANCE = 1.2


class Meter:
    """Adds up what all connections made since do."""

    def __init__(self) -> None:
        self.steps = 0
        self.statements: list[str] = []

    def __call__(self, event: dict[str, object]) -> None:
        status = event["stmt_status"]
        assert isinstance(status, dict)
        self.steps += status["SQLITE_STMTSTATUS_VM_STEP"]
        self.statements.append(str(event["sql"]))

    async def of(self, act: Callable[[], Awaitable[object]]) -> int:
        """The steps of this act."""
        self.steps = 0
        self.statements.clear()
        await act()
        return self.steps


@pytest.fixture
def meter() -> Iterator[Meter]:
    meter = Meter()

    def attach(connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, meter)

    apsw.connection_hooks.append(attach)
    yield meter
    apsw.connection_hooks.remove(attach)


@pytest.mark.slow
async def test_costs_do_not_grow_with_the_backlog(tmp_path: Path, meter: Meter) -> None:
    """With a hundred times as many jobs waiting and ended, each operation takes the same steps but for a fifth."""
    steps = [await _round(tmp_path / f"{backlog}.db", meter, backlog) for backlog in (SMALL, LARGE)]
    grown = {act: (small, large) for act, small, large in zip(steps[0], *map(dict.values, steps), strict=True)}
    assert {act: cost for act, cost in grown.items() if cost[1] > TOLERANCE * cost[0]} == {}


async def _round(path: Path, meter: Meter, backlog: int) -> dict[str, int]:
    """One of each operation, with so many jobs waiting and half as many ended."""
    async with opened(path) as engine:
        await announce(engine)
        for start in range(0, backlog, 1000):
            await engine.submit([new(n) for n in range(start, min(backlog, start + 1000))])
        while (await engine.stats())[0].succeeded < backlog // 2:
            await engine.commit([Commit(held.lease, Outcome("succeeded")) for held in await lease(engine, 1000)])
        await engine.submit([new(f"more_{n}") for n in range(backlog // 2)])
        held = await lease(engine, 20)
        appends = [Append(one.lease, one.next_seq, (("log", "1"),) * 3) for one in held]
        commits = [Commit(one.lease, Outcome("succeeded", "42")) for one in held[:10]]
        job_id = held[-1].job_id
        acts: dict[str, Callable[[], Awaitable[object]]] = {
            "submit": lambda: engine.submit([new(f"new_{n}") for n in range(20)]),
            "lease": lambda: lease(engine, 20),
            "append": lambda: engine.append(appends),
            "commit": lambda: engine.commit(commits),
            "renew": lambda: engine.renew(SESSION, 60_000),
            "cancel": lambda: engine.cancel(TENANT, ["new_3"], None),
            "promote": lambda: engine.promote(100),
            "prune": lambda: engine.prune(100),
            "get": lambda: engine.get(TENANT, ["new_4"]),
            "read": lambda: engine.read(TENANT, job_id, START, 10),
            "find": lambda: engine.find(JobQuery(TENANT, limit=5)),
            "find one state": lambda: engine.find(JobQuery(TENANT, (State.succeeded,), limit=5)),
            "find what runs": lambda: engine.find(JobQuery(TENANT, (State.running,), limit=5)),
            "stats": lambda: engine.stats(TENANT),
            "close": lambda: engine.close(SESSION),
        }
        return {name: await meter.of(act) for name, act in acts.items()}


async def test_a_long_log_is_not_read_from_its_beginning(tmp_path: Path, meter: Meter) -> None:
    """A reader near the end of a long log pays for what is new, not for what it has read."""
    async with opened(tmp_path / "jobs.db") as engine:
        await announce(engine)
        await add(engine, 1)
        (held,) = await lease(engine)
        costs = {}
        seq = held.next_seq
        for length in (20, 400):
            while seq < length:
                await engine.append([Append(held.lease, seq, (("log", "1"), ("log", "2")))])
                seq += 2
            tail = Cursor(held.lease.epoch, seq - 4)
            costs[length] = await meter.of(lambda tail=tail: engine.read(TENANT, "job_1", tail, 100))  # type: ignore[misc]
        assert costs[400] <= TOLERANCE * costs[20]


@pytest.mark.parametrize("size", [1, 300])
async def test_a_batch_is_a_handful_of_statements(tmp_path: Path, meter: Meter, size: int) -> None:
    """However large, a submit is at most 9 statements, a lease 8, an append 6, a commit 6, those of its transaction
    included: each gives the interpreter lock away."""
    async with opened(tmp_path / "jobs.db") as engine:
        await announce(engine)
        await engine.submit([new("first")])
        allowed = {"submit": 9, "lease": 8, "append": 6, "commit": 6}
        spent = {}
        await meter.of(lambda: engine.submit([new(n) for n in range(size)]))
        spent["submit"] = _count(meter)
        held = await lease(engine, 1)
        await meter.of(lambda: _keep(held, engine, size))
        spent["lease"] = _count(meter)
        await meter.of(lambda: engine.append([Append(one.lease, one.next_seq, (("log", "1"),)) for one in held]))
        spent["append"] = _count(meter)
        await meter.of(lambda: engine.commit([Commit(one.lease, Outcome("succeeded")) for one in held]))
        spent["commit"] = _count(meter)
        assert {name: (cost, allowed[name]) for name, cost in spent.items() if cost > allowed[name]} == {}


async def _keep(held: list[Assignment], engine: SqliteEngine, size: int) -> None:
    held[:] = await lease(engine, size)


def _count(meter: Meter) -> int:
    return len(meter.statements)
