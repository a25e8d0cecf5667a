"""The server goes away, stands still, is full, refuses, or comes back older than it was."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
from collections.abc import Iterator

import pytest
from link_support import SESSION, asks_until_answered, eventually, quick, wire
from proxy import CUT

from ropeway.domain.errors import EngineUnavailable, LeaseLost
from ropeway.domain.event import SNAPSHOT, START
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.lease import Append, Appended
from ropeway.domain.lifecycle import State
from ropeway.engines.redis import engine as engine_module
from servers import Server

__all__ = ["quick"]

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(name="server")
def a_server() -> Iterator[Server]:
    """One of the test's own, which syncs every write."""
    server = Server().start()
    yield server
    server.delete()


async def test_a_server_that_stood_still_is_used_again(server: Server) -> None:
    """Stopped for longer than a reply may take, and continued: callers were told, and nothing is wrong after."""
    async with wire(server) as on:
        assignment = await on.far.start("job_1")
        server.signal(signal.SIGSTOP)
        with pytest.raises(EngineUnavailable):
            await on.far.submit("job_2")
        server.signal(signal.SIGCONT)
        await asks_until_answered(lambda: on.far.submit("job_2"))
        assert await on.far.succeed(assignment) is State.succeeded
        assert [(stats.queued, stats.succeeded) for stats in await on.near.engine.stats()] == [(1, 1)]


async def test_a_server_that_was_killed_and_started_again_has_everything(server: Server) -> None:
    """With its append-only file synced: a call that meets the gap waits for its end, and the lease is good still."""
    async with wire(server) as on:
        assignment = await on.far.start("job_1")
        server.kill()
        call = asyncio.create_task(asks_until_answered(lambda: on.far.submit("job_2")))
        await asyncio.to_thread(server.start)
        await call
        assert (await on.far.engine.renew(SESSION, 60_000)).alive
        assert await on.far.succeed(assignment) is State.succeeded
        assert (await on.near.job("job_1")).crashes == 0
        assert on.far.engine.info.warnings == (), "nothing was lost, and nothing is said to be"


async def test_nobody_is_rescued_right_after_an_outage(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions ran out while nobody could renew them: who lives comes first, and has not crashed."""
    async with wire(server) as on:
        await on.far.announce(ttl_ms=1)
        await on.far.submit("job_1")
        await on.far.announce("ses_2", ttl_ms=300)
        await on.far.lease(session="ses_2")
        on.proxy.end_all()
        await asks_until_answered(lambda: on.far.job("job_1"))

        async def is_over() -> bool:
            return await on.far.lease(session="ses_2") == []

        await eventually(is_over, "the session is over")
        assert await on.far.engine.rescue(10) == 0
        assert (await on.far.engine.renew("ses_2", 60_000)).alive
        monkeypatch.setattr(engine_module, "STEADY_S", 0.0)
        assert await on.far.engine.rescue(10) == 0
        assert (await on.far.job("job_1")).crashes == 0


async def test_scripts_that_the_server_has_forgotten_are_sent_again(server: Server) -> None:
    """As after SCRIPT FLUSH, or on a new server: a call does not notice."""
    async with wire(server) as on:
        await on.far.submit("job_1")
        assert server.ask("SCRIPT FLUSH SYNC") == "+OK"
        await on.far.submit("job_2")
        assert (await on.far.job("job_2")).state is State.queued
        assert on.far.connects == 1


async def test_a_full_server_takes_no_jobs_and_lets_the_running_ones_end(server: Server) -> None:
    """maxmemory is reached: submits are refused, with the reason; running jobs go on and end; then there is room."""
    async with wire(server) as on:
        assignment = await on.far.start("job_1")
        assert await on.far.engine.submit([]) == []
        assert server.ask("CONFIG SET maxmemory 100kb") == "+OK"
        with pytest.raises(EngineUnavailable, match="OOM"):
            await on.far.submit("job_2")
        with pytest.raises(EngineUnavailable, match="OOM"):
            await on.far.engine.submit([])
        assert (await on.far.engine.renew(SESSION, 60_000)).alive
        (appended,) = await on.far.engine.append([Append(assignment.lease, 1, (("log", "1"),))])
        assert appended == Appended(2, False)
        assert await on.far.succeed(assignment) is State.succeeded
        assert server.ask("CONFIG SET maxmemory 100mb") == "+OK"
        assert await on.far.engine.submit([]) == []
        assert (await on.far.submit("job_2")).state is State.queued


async def test_a_server_that_cannot_write_its_disk_takes_no_jobs() -> None:
    """MISCONF: every write is refused until its disk is well again; what was accepted is still read."""
    server = Server("--appendonly", "no", "--save", "3600 1").start()
    try:
        async with wire(server, options="&durability=memory") as on:
            await on.far.submit("job_1")
            shutil.rmtree(server.folder)
            server.ask("BGSAVE")
            with pytest.raises(EngineUnavailable, match="MISCONF"):
                for n in range(10_000):
                    await on.far.submit(f"more_{n}")
            with pytest.raises(EngineUnavailable, match="MISCONF"):
                await on.far.engine.submit([])
            assert (await on.far.job("job_1")).state is State.queued
            server.folder.mkdir()
            assert server.ask("CONFIG SET stop-writes-on-bgsave-error no") == "+OK"
            assert (await on.far.submit("job_2")).state is State.queued
    finally:
        server.delete()


class Past:
    """What a server's disk held at some moment, to be put back."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.copy = server.folder.with_name(server.folder.name + "-past")
        shutil.copytree(server.folder / "appendonlydir", self.copy)

    def come_back(self) -> None:
        self.server.kill()
        shutil.rmtree(self.server.folder / "appendonlydir")
        self.copy.rename(self.server.folder / "appendonlydir")
        self.server.start()


async def test_a_server_set_back_to_an_older_state_is_noticed(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By all who were there, though one has written since: an alarm, another epoch, stale leases, readers told."""
    caplog.set_level(logging.CRITICAL, logger="ropeway.engine")
    async with wire(server) as on:
        early = await on.far.start("job_1")
        past = Past(server)
        await on.far.submit("job_2")
        (late,) = await on.far.lease()
        await on.far.engine.append([Append(late.lease, 1, (("log", "1"), ("log", "2")))])
        page = await on.far.engine.read(DEFAULT_TENANT, "job_2", START, 10)
        assert page is not None
        await on.near.job("job_2")
        epoch = server.do("HGET", _meta(server), "epoch")

        past.come_back()
        for n in range(20):  # so that it counts more writes than before, when the other engine comes
            await asks_until_answered(lambda n=n: on.far.submit(f"new_{n}"))  # type: ignore[misc]
        await asks_until_answered(lambda: on.near.job("job_1"))

        assert caplog.text.count("acked_data_may_be_lost") == 2, "each engine tells"
        for store in (on.far, on.near):
            (warning,) = store.engine.info.warnings
            assert "acked_data_may_be_lost" in warning
        assert server.do("HGET", _meta(server), "epoch") != epoch
        assert isinstance(await on.far.succeed(early), LeaseLost), "an old lease, though its job is as it was"
        assert isinstance(await on.far.succeed(late), LeaseLost)
        assert not (await on.far.engine.renew(SESSION, 60_000)).alive
        monkeypatch.setattr(engine_module, "STEADY_S", 0.0)
        assert await on.far.engine.rescue(10) == 1, "what nobody runs any more runs again"
        assert (await on.far.job("job_1")).state is State.queued

        await on.far.submit("job_2")  # its client, which had no answer, asks again
        beyond = await on.far.engine.read(DEFAULT_TENANT, "job_2", page.events[-1].cursor, 10)
        assert beyond is not None
        assert [event.type for event in beyond.events] == [SNAPSHOT]


async def test_a_rollback_is_noticed_by_who_comes_late(server: Server) -> None:
    """Others, who had seen nothing of what was lost, came first and have written more than that since."""
    async with wire(server) as on:
        await on.far.submit("job_1")
        await on.near.job("job_1")
        past = Past(server)
        for n in range(5):
            await on.far.submit(f"lost_{n}")
        on.proxy.plan = lambda _connection, _way, _byte: CUT
        on.proxy.end_all()
        past.come_back()
        for n in range(20):
            await asks_until_answered(lambda n=n: on.near.submit(f"new_{n}"))  # type: ignore[misc]
        assert on.near.engine.info.warnings == ()
        on.proxy.heal()
        assert await asks_until_answered(lambda: on.far.find("lost_0")) is None
        assert "acked_data_may_be_lost" in on.far.engine.info.warnings[0]


async def test_a_store_that_was_emptied_is_noticed(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """FLUSHALL under a running engine, which never lost its line: the next reply tells."""
    caplog.set_level(logging.CRITICAL, logger="ropeway.engine")
    async with wire(server) as on:
        for n in range(5):
            await on.far.submit(f"job_{n}")
        assert server.ask("FLUSHALL") == "+OK"
        with on.far.engine.listen("job:job_0") as hints:
            assert await on.far.find("job_0") is None
            assert await hints.wait(20) == {"job:job_0"}, "who waits looks again"
        assert "acked_data_may_be_lost" in caplog.text


def _meta(server: Server) -> str:
    (key,) = server.do("KEYS", "*:meta")
    found: str = key
    return found
