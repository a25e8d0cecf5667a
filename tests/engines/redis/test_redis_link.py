"""The link: a reply goes to who asked, a line that died is noticed and made again, a lost reply is asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from link_support import Wire, a_job, asks_until_answered, eventually, quick, wire
from proxy import Action, delay, drop, rate, seeded

from ropeway.domain.errors import EngineUnavailable, OutcomeUnknown
from ropeway.domain.job import DEFAULT_TENANT, NewJob, Receipt
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Refusal
from ropeway.engines.redis import RedisEngine
from ropeway.engines.redis.lane import FLIGHTS
from ropeway.engines.redis.route import Unreachable

__all__ = ["quick"]

pytestmark = pytest.mark.usefixtures("quick")


async def fill(on: Wire, count: int) -> list[str]:
    ids = [f"job_{n:03}" for n in range(count)]
    await on.near.engine.submit([a_job(job_id, text=f'"{job_id}"') for job_id in ids])
    return ids


async def test_a_call_gets_its_own_reply_though_others_were_cancelled() -> None:
    """Every seventh of many calls on their way is cancelled; each of the others gets what it asked for."""
    async with wire(timeout_s=10) as on:
        ids = await fill(on, 140)
        on.proxy.plan = delay(0.05)
        for _ in range(3):
            calls = {job_id: asyncio.create_task(on.far.find(job_id)) for job_id in ids}
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for call in list(calls.values())[::7]:
                call.cancel()
            for job_id, call in calls.items():
                job = (await asyncio.gather(call, return_exceptions=True))[0]
                if not call.cancelled():
                    assert getattr(job, "input", None) == f'"{job_id}"'
        assert on.far.connects == 1, "a cancelled call costs no link"


@pytest.mark.parametrize(
    "foreign",
    [b"+PONG\r\n", b":1\r\n", b"_\r\n", b"*4\r\n$1\r\n0\r\n:1\r\n:1\r\n*0\r\n"],
    ids=["text", "number", "nothing", "another call's"],
)
async def test_a_reply_that_is_not_this_call_s_ends_the_link(foreign: bytes) -> None:
    """The nonce tells. The call is made again over another link, and comes to its own."""
    async with wire(timeout_s=10) as on:
        await fill(on, 1)
        on.proxy.plan = delay(0.05)
        call, before = asyncio.create_task(on.far.job("job_000")), on.proxy.pieces
        await eventually(lambda: on.proxy.pieces > before, "the call is on its way")
        on.proxy.inject(foreign)
        on.proxy.heal()
        assert (await call).input == '"job_000"'
        assert on.far.connects == 2


async def test_a_reply_that_nobody_asked_for_ends_the_link() -> None:
    """What stands in the line would be the next call's reply."""
    async with wire() as on:
        await fill(on, 1)
        on.proxy.inject(b"+OK\r\n+OK\r\n+OK\r\n")
        await eventually(lambda: on.far.connects == 2, "there is another link")
        assert (await on.far.job("job_000")).input == '"job_000"'


async def test_a_line_that_is_cut_is_made_again() -> None:
    """At once, by the first call that needs it, or by who listens."""
    async with wire() as on:
        await fill(on, 1)
        for rst in (False, True):
            on.proxy.end_all(rst=rst)
            assert (await on.far.job("job_000")).id == "job_000"
        assert on.far.connects == 3


async def test_a_server_that_is_away_is_called_less_and_less_often() -> None:
    """A call says after a while that nobody answers; the calls between do not storm the server."""
    async with wire() as on:
        await fill(on, 1)
        on.proxy.plan = lambda _connection, _way, _byte: Action("rst")
        on.proxy.end_all()
        before = on.proxy.connections
        for _ in range(3):
            with pytest.raises(EngineUnavailable, match="is not to be reached"):
                await asyncio.gather(*(on.far.job("job_000") for _ in range(50)))
        assert 3 <= on.proxy.connections - before < 60
        on.proxy.heal()
        assert await asks_until_answered(lambda: on.far.job("job_000"))


async def test_those_behind_a_call_that_found_nobody_do_not_wait_in_turn() -> None:
    """Thousands of submits, which go a few scripts at a time: all are told when the first are."""
    async with wire() as on:
        on.proxy.plan = lambda _connection, _way, _byte: Action("rst")
        on.proxy.end_all()
        await eventually(lambda: not on.far.is_linked, "the loss is noticed")
        lane = on.far.engine._fleet.homes[0].submits
        carry, sent = lane._carry, []

        async def counted(jobs: list[NewJob]) -> Sequence[Receipt | Refusal]:
            sent.append(len(jobs))
            return await carry(jobs)

        lane._carry = counted
        submits = (on.far.engine.submit([a_job(f"job_{n}")]) for n in range(3000))
        answers = await asyncio.gather(*submits, return_exceptions=True)
        assert {type(answer) for answer in answers} <= {Unreachable, EngineUnavailable}
        assert len(sent) == FLIGHTS, "scripts that looked for the server"


async def test_a_half_open_line_is_noticed() -> None:
    """Calls go out and nothing comes back for ever: the caller is told, and the line is made again."""
    async with wire() as on:
        await fill(on, 1)
        on.proxy.plan = drop("replies")
        with pytest.raises(EngineUnavailable, match=r"is not to be reached|was lost"):
            await on.far.job("job_000")
        on.proxy.heal()
        assert await asks_until_answered(lambda: on.far.job("job_000"))
        assert on.far.connects == 2


async def test_a_quiet_line_that_died_is_noticed_without_a_call() -> None:
    """Who only listens is on a good line again, though neither side ever closed the old one."""
    async with wire() as on:
        with on.far.engine.listen("job:job_1") as hints:
            first = on.proxy.connections
            on.proxy.plan = lambda connection, _way, _byte: Action("drop" if connection <= first else "pass")
            assert await hints.wait(20) == {"job:job_1"}, "fired: something may have been missed"
            await on.near.submit("job_1")
            await on.near.announce()
            await on.near.lease()
            assert await hints.wait(20) == {"job:job_1"}


async def test_a_submit_whose_reply_was_lost_is_stored_once() -> None:
    """The server took it, the reply never came: the call is repeated, and tells of the job that there is."""
    async with wire(timeout_s=1.0) as on:
        on.proxy.plan = drop("replies")
        call = asyncio.create_task(on.far.engine.submit([a_job("job_1")]))

        async def is_there() -> bool:
            return await on.near.find("job_1") is not None

        await eventually(is_there, "the server has the job")
        on.proxy.heal()
        (receipt,) = await call
        assert isinstance(receipt, Receipt)
        assert (receipt.job.id, receipt.job.state) == ("job_1", State.queued)
        assert sum(stats.queued for stats in await on.near.engine.stats()) == 1


async def test_a_lease_whose_reply_was_lost_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as it takes: the jobs that it gave are running nowhere until their worker knows of them."""
    async with wire() as on:
        await on.near.announce()
        assert await on.near.lease(1) == [], "the server knows the script: that it does not would be a lost reply too"
        await fill(on, 3)
        on.proxy.plan = drop("replies")
        call = asyncio.create_task(on.far.lease(2))

        async def is_leased() -> bool:
            return (await on.near.job("job_001")).state is State.running

        await eventually(is_leased, "the server has leased")
        with pytest.raises(OutcomeUnknown):
            await on.far.submit("job_x")  # this one gives up meanwhile
        assert not call.done()
        on.proxy.heal()
        assert [assignment.job_id for assignment in await call] == ["job_000", "job_001"]
        assert (await on.near.job("job_001")).attempt == 1


async def test_a_storm_of_resets_loses_nothing_and_doubles_nothing() -> None:
    """Connections end at any byte, in both directions; who repeats with the same id has each job once."""
    async with wire() as on:
        on.proxy.plan = seeded(7, rst=0.05, cut=0.05, delay=0.1)
        for n in range(100):
            await asks_until_answered(lambda n=n: on.far.submit(f"job_{n}"))  # type: ignore[misc]
        on.proxy.heal()
        assert on.proxy.connections > 5, "the storm reached us"
        assert sum(stats.queued for stats in await on.near.engine.stats()) == 100


async def test_a_slow_line_is_only_slow() -> None:
    """Delays, stalls that end, and a narrow line break nothing."""
    async with wire(timeout_s=20) as on:
        on.proxy.plan = rate(200_000)
        await asyncio.gather(*(on.far.submit(f"job_{n}") for n in range(300)))
        on.proxy.plan = lambda _connection, _way, _byte: Action("stall")
        calls, before = asyncio.gather(*(on.far.job(f"job_{n}") for n in range(20))), on.proxy.pieces
        await eventually(lambda: on.proxy.pieces > before, "the calls are on their way")
        on.proxy.plan = delay(0.01)
        assert [job.id for job in await calls] == [f"job_{n}" for n in range(20)]
        assert on.far.connects == 1


async def test_an_engine_opens_when_its_server_comes() -> None:
    """A server that is not there yet is waited for; one that never comes is told of."""
    async with wire() as on:
        on.proxy.plan = lambda _connection, _way, _byte: Action("cut")
        late = RedisEngine(f"redis://127.0.0.1:{on.proxy.port}?prefix=late")
        opening = asyncio.create_task(late.open())
        before = on.proxy.connections
        await eventually(lambda: on.proxy.connections > before, "it has tried")
        on.proxy.heal()
        await opening
        assert await late.get(DEFAULT_TENANT, ["job_1"]) == [None]
        await late.shut()
        with pytest.raises(EngineUnavailable, match="not open"):
            await late.get(DEFAULT_TENANT, ["job_1"])
