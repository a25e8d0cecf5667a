"""Usage: what attempts told, added up by tenant, day and task in the step of their commit."""

from __future__ import annotations

from datetime import date, timedelta

from ropeway.domain.errors import LeaseLost
from ropeway.domain.job import JobOptions
from ropeway.domain.lease import Commit, Outcome
from ropeway.domain.usage import KEPT_DAYS, UsageRow, day_of
from ropeway.domain.webhook import Webhook
from ropeway.testing.bench import TENANT, Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []

DAY_MS = 86_400_000
ERROR = '{"code":"task_error","message":"no"}'


def today(bench: Bench) -> date:
    return day_of(bench.clock.now_ms())


async def usage(bench: Bench, tenant: str = TENANT) -> list[UsageRow]:
    """All of a tenant's rows."""
    return await bench.engine.usage(tenant, date.min, date.max)


@promise
async def usage_adds_up_by_task(bench: Bench) -> None:
    """The numbers of commits are summed for each task, and the jobs that ended with them are counted."""
    for task, tokens in (("chat", 5), ("chat", 7), ("embed", 2)):
        held = await bench.start_job(task=task)
        await bench.commit(held, usage=f'{{"input_tokens":{tokens},"cost":0.25}}')
    day = today(bench)
    assert await usage(bench) == [
        UsageRow(TENANT, day, "chat", 2, {"cost": 0.5, "input_tokens": 12}),
        UsageRow(TENANT, day, "embed", 1, {"cost": 0.25, "input_tokens": 2}),
    ]


@promise
async def usage_of_failed_attempts_counts(bench: Bench) -> None:
    """An attempt that is tried again, fails or is cancelled used what it used; its job is counted once, at its end."""
    await bench.add("job_1")
    await bench.commit(await bench.lease_one(), "retry", usage='{"tokens":1}', error=ERROR)
    await bench.commit(await bench.lease_one(), "release", usage='{"tokens":2}')
    held = await bench.lease_one()
    await bench.cancel("job_1")
    await bench.commit(held, usage='{"tokens":4}')
    held = await bench.start_job("job_2", options=JobOptions(webhook=Webhook("https://hooks.example/")))
    await bench.commit(held, "failed", usage='{"tokens":8}', error=ERROR)
    assert await usage(bench) == [UsageRow(TENANT, today(bench), "echo", 2, {"tokens": 15})]


@promise
async def usage_is_counted_once(bench: Bench) -> None:
    """A repeat of a commit, and one that lost its lease, add nothing; nor does one that tells nothing."""
    held = await bench.start_job()
    one = Commit(held.lease, Outcome("succeeded", usage='{"tokens":3}'))
    assert len(set(await bench.engine.commit([one, one]))) == 1
    await bench.engine.commit([one])
    (stale,) = await bench.engine.commit([Commit(held.lease, Outcome("failed", error=ERROR, usage='{"tokens":9}'))])
    assert isinstance(stale, LeaseLost)
    await bench.finish()
    assert await usage(bench) == [UsageRow(TENANT, today(bench), "echo", 1, {"tokens": 3})]


@promise
async def usage_is_by_day_and_tenant(bench: Bench) -> None:
    """A commit counts on the day (UTC) of the engine's clock; another tenant's counts are its own."""
    first = today(bench)
    for tenant, tokens in ((TENANT, 1), ("rival", 2)):
        held = await bench.start_job(tenant=tenant)
        await bench.commit(held, usage=f'{{"tokens":{tokens}}}')
    bench.clock.advance(DAY_MS)
    await bench.announce()
    held = await bench.start_job()
    await bench.commit(held, usage='{"tokens":4}')
    second = first + timedelta(1)
    rows = [UsageRow(TENANT, first, "echo", 1, {"tokens": 1}), UsageRow(TENANT, second, "echo", 1, {"tokens": 4})]
    assert await usage(bench) == rows
    assert await usage(bench, "rival") == [UsageRow("rival", first, "echo", 1, {"tokens": 2})]
    assert await usage(bench, "nobody") == []
    for since, until, expected in ((first, first, rows[:1]), (second, second, rows[1:]), (second, first, [])):
        assert await bench.engine.usage(TENANT, since, until) == expected


@promise
async def only_numbers_are_counted(bench: Bench) -> None:
    """Of what a task told, finite numbers under plain names count; usage that is no object counts for nothing."""
    told = '{"tokens":2,"model":"m","ok":true,"nested":{"a":1},"none":null,"a b":5,"":6,"huge":1e300}'
    for usage_text in (told, "[1]", '"x"'):
        held = await bench.start_job()
        await bench.commit(held, usage=usage_text)
    assert await usage(bench) == [UsageRow(TENANT, today(bench), "echo", 1, {"tokens": 2})]


@promise
async def usage_outlives_its_jobs_and_goes_in_the_end(bench: Bench) -> None:
    """A purge takes nothing from it; after 400 days it is pruned."""
    held = await bench.start_job("job_1")
    await bench.commit(held, usage='{"tokens":2}')
    await bench.engine.purge(TENANT, ["job_1"])
    bench.clock.advance(KEPT_DAYS * DAY_MS)
    await bench.engine.prune(10)
    assert len(await usage(bench)) == 1
    bench.clock.advance(DAY_MS)
    await bench.engine.prune(10)
    assert await usage(bench) == []
