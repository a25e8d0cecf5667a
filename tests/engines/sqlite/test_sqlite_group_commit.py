"""Group commit: how many transactions callers cost, and what they are told when one goes wrong."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import apsw
import pytest
from sqlite_support import QUEUE, SESSION, TENANT, Transactions, add, announce, as_, lease, new, opened

from ropeway.domain.errors import EngineUnavailable, OutcomeUnknown, PayloadTooLarge
from ropeway.domain.event import LOG
from ropeway.domain.job import Job, Receipt
from ropeway.domain.lease import Append, Appended, Commit, LeaseRequest, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueChange
from ropeway.engines.sqlite import SqliteOptions


async def test_calls_of_one_tick_share_a_transaction(tmp_path: Path) -> None:
    """A thousand submits started in one tick of the loop are one transaction; so are their commits."""
    transactions = Transactions()
    async with opened(tmp_path / "jobs.db", SqliteOptions(failpoint=transactions)) as engine:
        await announce(engine)
        before = transactions.count
        answers = await asyncio.gather(*(engine.submit([new(n)]) for n in range(1000)))
        assert transactions.count == before + 1
        assert [as_(Receipt, answer).depth for (answer,) in answers] == list(range(1, 1001))
        leased = await lease(engine, 1000)
        before = transactions.count
        commits = [Commit(held.lease, Outcome("succeeded")) for held in leased]
        states = await asyncio.gather(*(engine.commit([commit]) for commit in commits))
        assert transactions.count == before + 1
        assert states == [[State.succeeded]] * 1000


async def test_all_that_waits_goes_into_the_next_transaction(tmp_path: Path) -> None:
    """While a transaction runs, calls of many ticks and kinds gather; one more transaction answers them all."""
    reached, gate = threading.Event(), threading.Event()
    points: list[str] = []

    def hold(point: str) -> None:
        points.append(point)
        if points == ["pre_commit"]:
            reached.set()
            gate.wait(30)

    async with opened(tmp_path / "jobs.db", SqliteOptions(failpoint=hold)) as engine:
        first = asyncio.ensure_future(announce(engine))
        await asyncio.to_thread(reached.wait)
        submitting = asyncio.ensure_future(engine.submit([new(0)]))
        await asyncio.sleep(0)
        changing = asyncio.ensure_future(engine.set_queue([QueueChange(QUEUE, max_depth=5)]))
        await asyncio.sleep(0)
        leasing = asyncio.ensure_future(lease(engine))
        for _ in range(5):
            await asyncio.sleep(0)  # the loop's turns in which the calls are handed over
        gate.set()
        await first
        assert as_(Receipt, (await submitting)[0]).job.id == "job_0"
        assert (await changing)[0].max_depth == 5
        assert [held.job_id for held in await leasing] == ["job_0"]
        assert points.count("post_commit") == 2


async def test_what_waits_together_is_answered_in_a_legal_order(tmp_path: Path) -> None:
    """An append and a commit of the same attempt, started in one breath, both succeed: the append goes first."""
    async with opened(tmp_path / "jobs.db") as engine:
        await announce(engine)
        await add(engine, 1)
        (held,) = await lease(engine)
        committed, appended = await asyncio.gather(
            engine.commit([Commit(held.lease, Outcome("succeeded"))]),
            engine.append([Append(held.lease, held.next_seq, ((LOG, "1"),))]),
        )
        assert (committed, appended) == ([State.succeeded], [Appended(held.next_seq + 1)])


async def test_only_the_guilty_fails(tmp_path: Path) -> None:
    """One impossible call among those of a transaction fails with its own error; the others are done."""
    async with opened(tmp_path / "jobs.db") as engine:
        answers = await asyncio.gather(
            engine.submit([new(1)]),
            engine.submit([new(2, input="\ud800")]),  # a lone surrogate is no text
            engine.set_queue([QueueChange(QUEUE, max_depth=0)]),
            engine.submit([new(3)]),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [list, UnicodeEncodeError, ValueError, list]
        found = await engine.get(TENANT, ["job_1", "job_2", "job_3"])
        assert [job and job.id for job in found] == ["job_1", None, "job_3"]
        assert [stats.queued for stats in await engine.stats()] == [2]


async def test_a_fault_before_the_commit_leaves_nothing(tmp_path: Path) -> None:
    """An operation that fails in its transaction is told so, and nothing of it is there."""
    transactions = Transactions()
    async with opened(tmp_path / "jobs.db", SqliteOptions(failpoint=transactions)) as engine:
        transactions.raises["pre_commit"] = apsw.FullError("disk full")
        with pytest.raises(EngineUnavailable) as told:
            await engine.submit([new(1)])
        assert not isinstance(told.value, OutcomeUnknown)
        assert await engine.get(TENANT, ["job_1"]) == [None]
        transactions.raises["pre_commit"] = apsw.TooBigError("string or blob too big")
        with pytest.raises(PayloadTooLarge):
            await engine.submit([new(1)])
        assert (await add(engine, 1)).version == 1


async def test_a_fault_after_the_commit_is_an_unknown_outcome(tmp_path: Path) -> None:
    """What may have happened is told as that; a repeat with the same id finds what did happen."""
    transactions = Transactions()
    async with opened(tmp_path / "jobs.db", SqliteOptions(failpoint=transactions)) as engine:
        transactions.raises["post_commit"] = RuntimeError("the reply was lost")
        with pytest.raises(OutcomeUnknown):
            await engine.submit([new(1)])
        (answer,) = await engine.submit([new(1)])
        assert as_(Receipt, answer).replayed


async def test_a_lease_whose_caller_has_gone_is_given_back(tmp_path: Path) -> None:
    """A lease that nobody waits for any more puts its jobs back in line, no attempt spent."""
    reached, gate = threading.Event(), threading.Event()
    holding: list[str] = []

    def hold(point: str) -> None:
        if holding and point == "post_commit":
            holding.clear()
            reached.set()
            gate.wait(30)

    async with opened(tmp_path / "jobs.db", SqliteOptions(failpoint=hold)) as engine:
        await announce(engine)
        await add(engine, 1)
        holding.append("the lease")
        leasing = asyncio.ensure_future(lease(engine))
        await asyncio.to_thread(reached.wait)
        leasing.cancel()
        with engine.listen(f"queue:{QUEUE}") as listener:
            gate.set()
            assert await listener.wait(30) == {f"queue:{QUEUE}"}
        (job,) = await engine.get(TENANT, ["job_1"])
        assert (as_(Job, job).state, as_(Job, job).attempt) == (State.queued, 0)


async def test_a_call_whose_caller_has_gone_before_it_began_is_dropped(tmp_path: Path) -> None:
    """A submit cancelled while it waits its turn does not happen."""
    async with opened(tmp_path / "jobs.db") as engine:
        submitting = asyncio.ensure_future(engine.submit([new(1)]))
        await asyncio.sleep(0)
        submitting.cancel()
        await add(engine, 2)
        assert await engine.get(TENANT, ["job_1"]) == [None]


async def test_a_shut_engine_has_done_what_it_accepted(tmp_path: Path) -> None:
    """Shutting answers the calls that were waiting, and refuses later ones."""
    async with opened(tmp_path / "jobs.db") as engine:
        waiting = [asyncio.ensure_future(engine.submit([new(n)])) for n in range(5)]
        await asyncio.sleep(0)
        await engine.shut()
        assert [as_(Receipt, answer).job.id for (answer,) in await asyncio.gather(*waiting)] == [
            f"job_{n}" for n in range(5)
        ]
        with pytest.raises(EngineUnavailable):
            await engine.lease(LeaseRequest(SESSION, "worker", (QUEUE,), 1))
        with pytest.raises(EngineUnavailable):
            await engine.get(TENANT, ["job_1"])
    async with opened(tmp_path / "jobs.db") as again:
        assert [stats.queued for stats in await again.stats()] == [5]


async def test_only_durable_transactions_wait_for_the_disk(tmp_path: Path) -> None:
    """A submit, commit, cancel or policy change is synced; a lease, append or renewal alone is not."""
    synced: list[tuple[int, ...]] = []

    class CountingFile(apsw.VFSFile):
        def xSync(self, flags: int) -> None:  # noqa: N802 (SQLite's name)
            synced.append((flags,))
            super().xSync(flags)

    class CountingVfs(apsw.VFS):
        def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
            return CountingFile("", name, flags)

    vfs = CountingVfs("ropeway-counting", "")
    async with opened(tmp_path / "jobs.db", SqliteOptions(vfs="ropeway-counting")) as engine:
        await announce(engine)
        await engine.submit([new(1), new(2)])
        synced.clear()
        held, other = await lease(engine, 2)
        await engine.append([Append(held.lease, held.next_seq, ((LOG, "1"),))])
        await engine.renew(SESSION, 1000)
        assert synced == []
        await engine.commit([Commit(held.lease, Outcome("succeeded"))])
        await engine.cancel(TENANT, [other.job_id], None)
        await engine.set_queue([QueueChange(QUEUE, max_depth=5)])
        await engine.retry(TENANT, [(held.job_id, "job_again")])
        await engine.purge(TENANT, [held.job_id])
        await engine.submit([new(3)])
        assert len(synced) == 6
    vfs.unregister()
