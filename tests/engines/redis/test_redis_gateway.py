"""A gateway and a worker on a line that breaks: what a client is answered, and what becomes of the jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from link_support import PATIENCE_S, Wire, a_job, asks_until_answered, eventually, quick, wire
from proxy import CUT, drop

from ropeway.domain.lifecycle import State
from ropeway.domain.worker import TaskCard
from ropeway.runtime import App, Context, Worker, WorkerOptions, given
from ropeway.serving import Gateway, GatewayOptions
from servers import Server

__all__ = ["quick"]

pytestmark = pytest.mark.usefixtures("quick")


@asynccontextmanager
async def gateway(on: Wire) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway whose engine is behind the proxy."""
    await on.near.engine.publish([TaskCard("echo", queue="q")])
    app = Gateway(on.far.engine, GatewayOptions(allowed_hosts=("gateway.test",)))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
        await http.get("/v1/tasks")
        yield http
    await app.stop()


async def submit(http: httpx.AsyncClient, key: str = "k") -> tuple[int, dict[str, Any]]:
    answer = await http.post("/v1/jobs", json={"task": "echo"}, headers={"Idempotency-Key": key})
    return answer.status_code, answer.json()


async def statuses(http: httpx.AsyncClient) -> list[int]:
    return [(await http.get(path)).status_code for path in ("/livez", "/healthz", "/readyz")]


async def test_submits_while_the_server_is_away_are_503_and_leave_nothing() -> None:
    """`engine_unavailable`, to be tried again; and the gateway is not ready, until the server is back."""
    async with wire() as on, gateway(on) as http:
        assert await statuses(http) == [200, 200, 200]
        on.proxy.plan = lambda _connection, _way, _byte: CUT
        on.proxy.end_all()
        await eventually(lambda: not on.far.is_linked, "the loss is noticed")
        status, problem = await submit(http)
        assert (status, problem["code"], problem["retryable"]) == (503, "engine_unavailable", True)
        assert await statuses(http) == [200, 503, 503]
        on.proxy.heal()

        async def is_ready() -> bool:
            return await statuses(http) == [200, 200, 200]

        await eventually(is_ready, "it is ready again")
        assert sum(stats.queued for stats in await on.near.engine.stats()) == 0
        assert (await submit(http))[0] == 202


async def test_a_submit_whose_reply_is_lost_for_good_is_an_unknown_outcome() -> None:
    """503 `outcome_unknown`; the same call under the same key gives the job that was made."""
    async with wire() as on, gateway(on) as http:
        on.proxy.plan = drop("replies")
        status, problem = await submit(http)
        assert (status, problem["code"], problem["retryable"]) == (503, "outcome_unknown", True)
        on.proxy.heal()
        replies: list[tuple[int, dict[str, Any]]] = []

        async def is_answered() -> bool:
            replies.append(await submit(http))
            return replies[-1][0] == 202

        await eventually(is_answered, "the repeat is answered")
        assert sum(stats.queued for stats in await on.near.engine.stats()) == 1


async def test_a_gateway_whose_server_refuses_jobs_is_not_ready() -> None:
    """Its memory is full: it answers and reads, and takes none. Balancers are to send new work elsewhere."""
    server = Server().start()
    try:
        async with wire(server) as on, gateway(on) as http:
            assert await statuses(http) == [200, 200, 200]
            server.do("CONFIG", "SET", "maxmemory", "100kb")
            assert await statuses(http) == [200, 200, 503]
            assert "OOM" in (await http.get("/readyz")).json()["detail"]
            status, problem = await submit(http)
            assert (status, problem["code"]) == (503, "engine_unavailable")
            server.do("CONFIG", "SET", "maxmemory", "0")
            assert await statuses(http) == [200, 200, 200]
    finally:
        server.delete()


async def test_running_jobs_outlive_an_outage_and_commit_after_it() -> None:
    """The server is killed under a worker, for longer than its session lives: no job is lost, no attempt is burnt."""
    server = Server().start()
    app = App()
    began: list[int] = []
    go = asyncio.Event()

    @app.task(queue="q")
    async def echo() -> str:
        began.append(1)
        await go.wait()
        return "done"

    try:
        async with wire(server) as on:
            worker = Worker(app, on.far.engine, WorkerOptions(session_ttl_ms=500))
            run = asyncio.create_task(worker.run())
            await worker.started()
            for n in range(20):
                await on.near.engine.submit([a_job(f"job_{n}", text="{}")])
            await eventually(lambda: len(began) == 20, "they run")
            server.kill()
            crew = worker._crew
            assert crew is not None
            session = crew.sessions.current
            assert session is not None
            silent_since_s = session.renewed_at_s
            go.set()
            await eventually(lambda: worker.snapshot().committing == 20, "they have ended, and wait to commit")
            clock = crew.keeper._clock
            await eventually(lambda: clock.monotonic_s() - silent_since_s > 0.6, "the session would be over")
            await asyncio.to_thread(server.start)
            await eventually(lambda: worker.snapshot().outcomes == {"succeeded": 20}, "all are committed")
            await asks_until_answered(lambda: on.near.job("job_0"))
            jobs = [await on.near.job(f"job_{n}") for n in range(20)]
            assert {(job.state, job.attempt, job.crashes) for job in jobs} == {(State.succeeded, 1, 0)}
            await worker.stop()
            await asyncio.wait_for(run, PATIENCE_S)
    finally:
        server.delete()


async def test_a_full_worker_takes_no_wake_up_from_an_idle_one() -> None:
    """It waits for hints only while it has room; at a drain it waits for none."""
    app = App()
    began: list[str] = []
    go = asyncio.Event()

    @app.task(queue="q")
    async def echo(*, ctx: Context = given) -> str:
        began.append(ctx.job_id)
        await go.wait()
        return "done"

    @app.task(queue="narrow", concurrency=5)  # room on the loop, which it shares, and room of its own
    async def other() -> None: ...

    async with wire(timeout_s=10) as on:
        stores = (on.near, on.far)
        boards = [store.engine._fleet.board for store in stores]
        options = WorkerOptions(concurrency=1, upkeep=False, safety_poll_s=3600)
        workers = [Worker(app, store.engine, options) for store in stores]
        runs = []
        for n, worker in enumerate(workers):
            runs.append(asyncio.create_task(worker.run()))
            await worker.started()
            await eventually(lambda n=n: boards[n].waits("queue:q"), "the idle worker waits")  # type: ignore[misc]
            await on.near.engine.submit([a_job(f"job_{n}", text="{}")])
            if n == 0:
                await eventually(lambda: began == ["job_0"], "it runs")
                await eventually(lambda: not any(map(boards[0].waits, ("queue:q", "queue:narrow"))), "it is full")
        await eventually(lambda: began == ["job_0", "job_1"], "the idle one was woken")
        await eventually(lambda: not any(board.waits("queue:q") for board in boards), "both are full")
        workers[0].drain()
        go.set()
        await asyncio.wait_for(runs[0], PATIENCE_S)
        assert not boards[0].waits("queue:q")
        await eventually(lambda: boards[1].waits("queue:q"), "there is room again")
        await on.near.engine.submit([a_job("job_2", text="{}")])
        await eventually(lambda: began == ["job_0", "job_1", "job_2"], "it is woken")
        await workers[1].stop()
        await asyncio.wait_for(runs[1], PATIENCE_S)
