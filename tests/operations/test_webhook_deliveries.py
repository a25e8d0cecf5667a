"""Deliveries as jobs: made with the end of a job, run by a worker, tried on the schedule, and read from their logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hooks_support import OK, PATIENCE_S, Endpoint, endpoint, until

from ropeway import App, Client
from ropeway.client.deliveries import MOST_DELIVERIES, DeliveryBody
from ropeway.domain.errors import InvalidRequest, JobNotFound, JobNotRetryable
from ropeway.domain.job import DEFAULT_TENANT, Job
from ropeway.domain.lifecycle import State
from ropeway.domain.targets import AllowList
from ropeway.domain.webhook import DELIVERY_RETRY, Webhook, delivery_id
from ropeway.engines.base import Engine
from ropeway.engines.memory import MemoryEngine
from ropeway.operations.webhooks import with_deliveries, with_webhooks
from ropeway.runtime import Context, Worker, WorkerOptions, given
from ropeway.testing import FaultyEngine, ManualClock

TTL_MS = 10_000
GONE = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nlate"
LATER = b"HTTP/1.1 429 Later\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n"

app = App()


@app.task
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@app.task
async def spend(*, ctx: Context = given) -> None:
    ctx.usage(input_tokens=3, cost=0.5)
    ctx.usage(input_tokens=4, model="m")
    if ctx.attempt == 1:
        raise ValueError("not yet")


class Place:
    """A worker that delivers, on an engine whose time the test moves."""

    def __init__(self, engine: Engine, clock: ManualClock, client: Client) -> None:
        self.engine = engine
        self.clock = clock
        self.client = client

    async def job(self, job_id: str) -> Job | None:
        return (await self.engine.get(DEFAULT_TENANT, [job_id]))[0]

    async def when(self, job_id: str, *states: State) -> Job:
        """The job, once it is in one of these states."""
        async with asyncio.timeout(PATIENCE_S):
            with self.engine.listen(f"job:{job_id}") as hints:
                while (job := await self.job(job_id)) is None or job.state not in states:
                    await hints.wait(1.0)
        return job

    async def ended(self, hook: Endpoint | str, **options: Any) -> str:
        """The id of a job with a webhook, once it has ended."""
        url = hook if isinstance(hook, str) else hook.url
        job = await self.client.with_options(webhook=url, **options).submit(greet, name="Ada")
        await job.result(timeout=PATIENCE_S)
        return job.id

    async def delivered(self, job_id: str, number: int = 0) -> Job:
        """The delivery, once it has ended."""
        return await self.when(delivery_id(job_id, number), State.succeeded, State.failed, State.cancelled)

    async def log(self, job_id: str) -> DeliveryBody:
        """The only delivery."""
        (found,) = await self.client.deliveries(job_id)
        return found


@asynccontextmanager
async def place(*allowed: str, engine: Engine | None = None) -> AsyncIterator[Place]:
    clock = ManualClock()
    made = engine or MemoryEngine(clock)
    await made.open()
    delivering = with_webhooks(app, made, AllowList(allowed or ["127.0.0.1"]), clock=clock, timeout_s=10.0)
    options = WorkerOptions(session_ttl_ms=86_400_000_000, upkeep=False)
    worker = Worker(delivering, made, options, clock=clock, jitter=lambda: 0.0)
    running = asyncio.create_task(worker.run())
    await worker.started()
    async with Client(made, clock=clock) as client:
        try:
            yield Place(made, clock, client)
        finally:
            worker.drain()
            await running
            await made.shut()


async def test_the_end_of_a_job_is_told() -> None:
    """The endpoint hears of it at once; the log tells of the attempt."""
    async with endpoint() as hook, place() as here:
        job_id = await here.ended(hook)
        assert (await here.delivered(job_id)).state is State.succeeded
        (got,) = hook.got
        assert '"output":"Hello, Ada!"' in got.body
        log = await here.log(job_id)
        assert (log.id, log.url, log.type, log.state) == (f"{job_id}-d0", hook.url, "job.succeeded", State.succeeded)
        (attempt,) = log.attempts
        assert (attempt.attempt, attempt.status, attempt.error, attempt.next_at) == (1, 204, None, None)


async def test_a_failed_delivery_is_tried_on_the_schedule_and_then_kept() -> None:
    """At once, after 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 h; ten attempts in all, each of them in the log."""
    async with endpoint(BUSY) as hook, place() as here:
        job_id = await here.ended(hook)
        waits = []
        for _ in range(DELIVERY_RETRY.max_attempts - 1):
            waiting = await here.when(delivery_id(job_id), State.scheduled)
            assert waiting.run_at_ms is not None
            waits.append((waiting.run_at_ms - here.clock.now_ms()) / 1000)
            here.clock.advance(waiting.run_at_ms - here.clock.now_ms())
            await here.engine.promote(10)
        assert waits == [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
        dead = await here.delivered(job_id)
        assert (dead.state, len(hook.got), len({got.headers["webhook-id"] for got in hook.got})) == (
            State.failed,
            10,
            1,
        )
        log = await here.log(job_id)
        assert [(one.attempt, one.status, one.excerpt) for one in log.attempts] == [
            (n, 503, "late") for n in range(1, 11)
        ]
        assert all(one.next_at is not None for one in log.attempts[:-1])
        assert (log.attempts[-1].next_at, log.attempts[-1].error) == (None, "webhook_status")


async def test_an_endpoint_that_asks_for_time_gets_it() -> None:
    """Retry-After puts the next attempt off; it does not bring it forward."""
    async with endpoint(LATER, OK) as hook, place() as here:
        job_id = await here.ended(hook)
        waiting = await here.when(delivery_id(job_id), State.scheduled)
        assert waiting.run_at_ms == here.clock.now_ms() + 600_000
        (attempt,) = (await here.log(job_id)).attempts
        assert (attempt.status, (await here.log(job_id)).next_at) == (429, attempt.next_at)


async def test_an_endpoint_that_has_gone_costs_one_attempt() -> None:
    """410 ends the delivery, and the next ones to that URL fail with their reason, without a connection."""
    async with endpoint(GONE) as hook, place() as here:
        first = await here.ended(hook)
        assert (await here.delivered(first)).state is State.failed
        second = await here.ended(hook)
        assert (await here.delivered(second)).state is State.failed
        errors = [(await here.log(job_id)).attempts[0].error for job_id in (first, second)]
        assert (errors, hook.connections) == (["webhook_gone", "webhook_disabled"], 1)


async def test_a_redelivery_is_the_same_message() -> None:
    """The same body and id under a new signature; each is on the list, and names what it repeats."""
    async with endpoint(GONE, OK) as hook, place() as here:
        job_id = await here.ended(hook)
        await here.delivered(job_id)
        await here.client.delete(job_id)
        with pytest.raises(JobNotFound):
            await here.client.redeliver(job_id, "job_none-d0")
        again = await here.client.redeliver(job_id, f"{job_id}-d0")
        assert (again.id, again.redelivery_of, again.attempts) == (f"{job_id}-d1", f"{job_id}-d0", [])
        assert (await here.delivered(job_id, 1)).state is State.failed  # it is silenced
        assert [one.id for one in await here.client.deliveries(job_id)] == [f"{job_id}-d0", f"{job_id}-d1"]
    async with endpoint() as hook, place() as here:
        job_id = await here.ended(hook)
        await here.delivered(job_id)
        await here.client.redeliver(job_id, f"{job_id}-d0")
        await here.delivered(job_id, 1)
        one, other = hook.got
        assert (one.body, one.headers["webhook-id"]) == (other.body, other.headers["webhook-id"])


async def test_a_job_is_delivered_so_often_and_no_more() -> None:
    """Its deliveries are found by their numbers, of which there are 32; and one that goes on is not repeated."""
    async with endpoint(hold=asyncio.Event()) as hook, place() as here:
        job_id = await here.ended(hook)
        await here.when(delivery_id(job_id), State.running)
        with pytest.raises(JobNotRetryable, match="running"):
            await here.client.redeliver(job_id, f"{job_id}-d0")
        assert hook.hold is not None
        hook.hold.set()
        for number in range(1, MOST_DELIVERIES):
            await here.delivered(job_id, number - 1)
            await here.client.redeliver(job_id, f"{job_id}-d0")
        with pytest.raises(JobNotRetryable, match="32"):
            await here.client.redeliver(job_id, f"{job_id}-d0")
        assert len(await here.client.deliveries(job_id)) == MOST_DELIVERIES


async def test_a_sender_that_dies_after_the_answer_sends_again() -> None:
    """Between the 2xx and its commit: the message comes twice, under one id, and is delivered once it is committed."""
    clock = ManualClock()
    faulty = FaultyEngine(MemoryEngine(clock), lambda method, nth: "before" if method == "commit" and nth else None)
    async with endpoint() as hook:
        await faulty.open()
        delivering = with_webhooks(app, faulty, AllowList(["127.0.0.1"]), clock=clock)
        options = WorkerOptions(session_ttl_ms=TTL_MS, upkeep=False, outage_s=0.0)
        first = Worker(delivering, faulty, options, clock=clock, jitter=lambda: 0.5)
        running = asyncio.create_task(first.run())
        await first.started()
        client = Client(faulty, clock=clock)
        job = await client.with_options(webhook=hook.url).submit(greet, name="Ada")
        await until(lambda: bool(hook.got) and faulty.calls["commit"] > 1)
        running.cancel()  # as it dies, its outcome is with nobody
        await asyncio.gather(running, return_exceptions=True)
        for session in [card.session for card in await faulty.engine.workers()]:
            await faulty.engine.close(session)
        second = Worker(with_webhooks(app, faulty.engine, AllowList(["127.0.0.1"]), clock=clock), faulty.engine,
                        options, clock=clock, jitter=lambda: 0.0)  # fmt: skip
        rerunning = asyncio.create_task(second.run())
        here = Place(faulty.engine, clock, Client(faulty.engine, clock=clock))
        done = await here.delivered(job.id)
        assert (done.state, len(hook.got)) == (State.succeeded, 2)
        assert len({got.headers["webhook-id"] for got in hook.got}) == 1
        assert [one.error for one in (await here.log(job.id)).attempts] == ["worker_lost", None]
        second.drain()
        await rerunning
        await faulty.shut()


# -- what is asked for


async def test_only_the_ends_that_were_named_are_told() -> None:
    """And a job without a webhook has no deliveries, which is no error; a job that is not there is one."""
    async with endpoint() as hook, place() as here:
        job = await here.client.with_options(webhook=Webhook(hook.url, ("job.failed",))).submit(greet, name="Ada")
        await job.result(timeout=PATIENCE_S)
        assert await here.client.deliveries(job.id) == []
        with pytest.raises(JobNotFound):
            await here.client.deliveries("job_none")


@pytest.mark.parametrize(
    "webhook",
    [
        "",
        "hooks.example",
        "ftp://hooks.example/",
        "https://u:p@hooks.example/",
        "https://a/#b",
        Webhook("https://a/", ()),
    ],
)
async def test_a_webhook_that_can_be_none_is_refused(webhook: Webhook | str) -> None:
    """At the submit, by its field's name."""
    async with place() as here:
        with pytest.raises(InvalidRequest) as refusal:
            await here.client.with_options(webhook=webhook).submit(greet, name="Ada")
        assert refusal.value.param == "webhook"


async def test_usage_is_told_with_every_outcome() -> None:
    """Also of an attempt that failed and is tried again; the job's own is that of its last attempt."""
    async with place() as here:
        job = await here.client.submit(spend)
        waiting = await here.when(job.id, State.scheduled, State.queued)
        if waiting.run_at_ms is not None:
            here.clock.advance(waiting.run_at_ms - here.clock.now_ms())
        await here.engine.promote(10)
        await job.result(timeout=PATIENCE_S)
        (row,) = (await here.client.usage()).data
        assert (row.task, row.jobs, row.amounts) == ("spend", 1, {"input_tokens": 14, "cost": 1})
        assert (await job.get()).usage == {"input_tokens": 7, "cost": 0.5, "model": "m"}


# -- the application


def test_the_task_that_delivers_is_nobodys_to_submit() -> None:
    """It is in a copy of the application, off its catalogue; and nobody can declare one under such a name."""
    delivering = with_webhooks(app, MemoryEngine(), AllowList())
    assert "ropeway.webhook" in delivering.tasks
    assert "ropeway.webhook" not in app.tasks
    assert [card.name for card in delivering.cards] == [card.name for card in app.cards]
    assert delivering.queues == ("default", "webhooks")
    with pytest.raises(ValueError, match="Ropeway's own"):

        @app.task(name="ropeway.mine")
        async def mine() -> None: ...


def test_named_queues_are_served_with_the_deliveries_behind_them() -> None:
    """None named: all that the application declares, which has them."""
    assert with_deliveries(()) == ()
    assert with_deliveries(("gpu", "webhooks", "chat")) == ("gpu", "webhooks", "chat")
    assert with_deliveries(("gpu",)) == ("gpu", "webhooks")
