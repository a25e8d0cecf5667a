"""Hints over the wire: one worker is woken by one job, and nothing that was told is lost with a line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from link_support import PATIENCE_S, Store, eventually, quick, wire
from proxy import STALL

from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.event import START
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.lease import Append, Assignment
from ropeway.domain.queue import QueueChange
from ropeway.engines.redis import RedisEngine
from servers import shared_server

__all__ = ["quick"]

pytestmark = pytest.mark.usefixtures("quick")


class Idle:
    """A worker that waits for its queue, and takes one job at a time."""

    def __init__(self, store: Store, session: str, queue: str = "q") -> None:
        self.store = store
        self.session = session
        self.queue = queue
        self.woken = 0
        self.got: list[Assignment] = []
        self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        await self.store.announce(self.session)
        with self.store.engine.listen(f"queue:{self.queue}") as hints:
            while True:
                while leased := await self.store.lease(session=self.session, queue=self.queue):
                    self.got += leased
                await hints.wait()
                self.woken += 1

    async def waits(self) -> None:
        """Until the server knows that it waits."""
        board = self.store.engine._fleet.board
        homes = self.store.engine._fleet.homes

        def is_blocked() -> bool:
            link = homes[0].hearing._blocked
            return board.waits(f"queue:{self.queue}") and link is not None and bool(link._waiting)

        await eventually(is_blocked, "it waits")

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def idle(*stores: Store) -> AsyncIterator[list[Idle]]:
    workers = [Idle(store, f"ses_{n}") for n, store in enumerate(stores)]
    try:
        for worker in workers:
            await worker.waits()
        yield workers
    finally:
        for worker in workers:
            await worker.stop()


async def test_one_job_wakes_one_of_those_who_wait() -> None:
    """The others are not disturbed; a hundred jobs, one after the other, cost a hundred wake-ups in all."""
    async with wire(timeout_s=10) as on, idle(on.near, on.far) as workers:
        for n in range(100):
            before = sum(worker.woken for worker in workers)
            await on.near.submit(f"job_{n}")
            await eventually(lambda n=n: sum(len(worker.got) for worker in workers) == n + 1, "it is leased")  # type: ignore[misc]
            assert sum(worker.woken for worker in workers) == before + 1
            for worker in workers:
                await worker.waits()


async def test_many_jobs_wake_many() -> None:
    """Who leases and leaves work behind wakes the next: two workers with room for one job each get one each."""
    async with wire(timeout_s=10) as on:
        for store, session in ((on.near, "ses_a"), (on.far, "ses_b")):
            await store.announce(session)
        got = []

        async def take_one(store: Store, session: str) -> None:
            with store.engine.listen("queue:q") as hints:
                while not (leased := await store.lease(session=session)):
                    assert await hints.wait(PATIENCE_S), "the burst woke only one"
                got.extend(leased)

        takers = asyncio.gather(take_one(on.near, "ses_a"), take_one(on.far, "ses_b"))
        boards = [store.engine._fleet.board for store in (on.near, on.far)]
        await eventually(lambda: all(board.waits("queue:q") for board in boards), "both wait")
        await asyncio.gather(*(on.near.submit(f"job_{n}") for n in range(5)))
        await takers
        assert len({assignment.job_id for assignment in got}) == 2


async def test_a_wake_up_that_nobody_waits_for_any_more_is_put_back() -> None:
    """A worker ceases to wait just when its wake-up comes: the next that waits has it."""
    async with wire(timeout_s=10) as on:
        home = on.far.engine._fleet.homes[0]
        token = f"{home.partition.root}:wake:q"
        await home.hearing._hand_on(await home.hearing._blocking_link(), token)  # as it comes out of a pop
        assert shared_server().do("ZCARD", token) == 1
        with on.near.engine.listen("queue:q") as hints:
            assert await hints.wait(PATIENCE_S) == {"queue:q"}
        assert shared_server().do("EXISTS", token) == 0


async def test_a_wake_up_that_was_lost_is_missed_until_the_next_upkeep() -> None:
    """It went with a worker that died: `promote` leaves another one where work is ready, and nowhere else."""
    async with wire(timeout_s=10) as on:
        server = shared_server()
        root = on.near.engine._fleet.homes[0].partition.root
        await on.near.submit("job_1")
        await on.near.submit("job_2", "held")
        await on.near.submit("job_3", "done")
        await on.near.engine.set_queue([QueueChange("held", paused=True)])
        await on.near.announce()
        await on.near.lease(queue="done")
        for queue in ("q", "held", "done"):
            server.do("DEL", f"{root}:wake:{queue}")  # as a pop does whose reply never came
        await on.near.engine.promote(10)
        assert [server.do("EXISTS", f"{root}:wake:{queue}") for queue in ("q", "held", "done")] == [1, 0, 0]
        with on.far.engine.listen("queue:q") as hints:
            assert await hints.wait(PATIENCE_S) == {"queue:q"}


async def test_who_waits_for_work_is_woken_when_the_line_is_made_again() -> None:
    """What came meanwhile may have been told to a line that was dead."""
    async with wire() as on, idle(on.far) as (worker,):
        on.proxy.plan = lambda _connection, _way, _byte: STALL
        on.proxy.end_all()
        await on.near.submit("job_1")
        on.proxy.heal()
        await eventually(lambda: bool(worker.got), "it has the job")


async def test_no_event_is_missed_over_lines_that_break() -> None:
    """Listen, look, wait: a reader whose connection is cut again and again sees the log grow to its end."""
    async with wire() as on:
        assignment = await on.near.start("job_1")

        async def read_to(count: int) -> None:
            with on.far.engine.listen("job:job_1") as hints:
                while True:
                    try:
                        page = await on.far.engine.read(DEFAULT_TENANT, "job_1", START, 1000)
                    except EngineUnavailable:
                        continue
                    assert page is not None
                    if len(page.events) >= count:
                        return
                    assert await hints.wait(PATIENCE_S), "the wake-up was lost"

        for n in range(20):
            reading = asyncio.create_task(read_to(n + 3))
            for _ in range(n):
                await asyncio.sleep(0)
            on.proxy.end_all(rst=n % 2 == 0)
            await on.near.engine.append([Append(assignment.lease, n + 1, (("log", "1"),))])
            await reading


async def test_a_gateway_holds_one_connection_for_all_its_readers() -> None:
    """Five hundred readers of as many jobs, and all their calls, share one."""
    async with wire(timeout_s=10) as on:
        jobs = [f"job_{n}" for n in range(500)]
        before = on.proxy.connections
        listeners = [on.far.engine.listen(f"job:{job_id}") for job_id in jobs]
        await asyncio.gather(*(on.far.find(job_id) for job_id in jobs))
        await on.near.announce()
        await on.near.submit("job_499")
        await on.near.lease()
        assert await listeners[-1].wait(PATIENCE_S) == {"job:job_499"}
        assert on.proxy.connections == before == 1
        for listener in listeners:
            listener.close()


async def test_a_user_that_may_not_subscribe_is_refused_at_the_start() -> None:
    """With what to allow; else its subscriptions' refusals would come among other calls' replies."""
    server = shared_server()
    server.do("ACL", "SETUSER", "mute", "on", "nopass", "~*", "+@all", "resetchannels")
    with pytest.raises(EngineUnavailable, match="may not subscribe"):
        await RedisEngine(f"redis://mute:x@127.0.0.1:{server.port}?prefix=mute").open()
