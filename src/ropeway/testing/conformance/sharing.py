"""Single flight: submits of the same content share one job while it is under way (domain/cache.py)."""

from __future__ import annotations

import asyncio

from ropeway.domain.cache import HITS, JOINS, home_of
from ropeway.domain.job import Job, JobOptions, Receipt
from ropeway.domain.lifecycle import State
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.testing.bench import TENANT, Bench, as_, durable
from ropeway.testing.conformance.caching import OTHER, answer, ask, counted, made, served
from ropeway.testing.conformance.registry import durable_promise, promise

__all__: list[str] = []


@promise
async def equal_submits_share_a_waiting_job(bench: Bench) -> None:
    """A submit of content that waits already is answered with that job, which counts it; nothing else is stored."""
    first = await made(bench, ask(bench))
    second = await answer(bench, ask(bench))
    assert second.job == await bench.job(first.id)
    assert (second.job.joined, second.job.version, second.depth) == (1, first.version + 1, 1)
    assert (await bench.stats()).waiting == 1
    assert await counted(bench) == {JOINS: 1}
    assert (await answer(bench, ask(bench))).job.joined == 2


@promise
async def a_running_job_is_joined_with_its_log(bench: Bench) -> None:
    """One that runs is joined too, and its log is there from the start; its holder notices nothing."""
    await made(bench, ask(bench))
    held = await bench.lease_one()
    await bench.append(held, held.next_seq, ("output.delta", '"a"'))
    joined = await served(bench, ask(bench))
    assert (joined.id, joined.state, joined.joined) == (held.job_id, State.running, 1)
    await bench.append(held, held.next_seq + 1, ("output.delta", '"b"'))
    assert await bench.commit(held, output='"ab"') is State.succeeded
    types = ["job.queued", "job.started", "output.delta", "output.delta", "job.succeeded"]
    assert await bench.log_types(joined.id) == types


@promise
async def a_job_that_waits_for_its_next_attempt_is_joined(bench: Bench) -> None:
    """Between two attempts a job lives, and is joined."""
    await made(bench, ask(bench, options=JobOptions(retry=Retry(max_attempts=3))))
    await bench.commit(await bench.lease_one(), "retry", delay_ms=5000)
    assert (await served(bench, ask(bench))).state is State.scheduled


@promise
async def a_job_asked_to_stop_is_not_joined(bench: Bench) -> None:
    """One that runs and was asked to stop is nobody's: a new job takes the key, and keeps it when the old one ends."""
    await made(bench, ask(bench))
    held = await bench.lease_one()
    await bench.cancel(held.job_id)
    new = await made(bench, ask(bench))
    await bench.commit(held)
    await bench.engine.purge(TENANT, [held.job_id])
    assert (await served(bench, ask(bench))).id == new.id


@promise
async def one_cancel_takes_one_sharer(bench: Bench) -> None:
    """Of three who share a job two may cancel and the third has its result; the last cancel is for the job."""
    for runs in (False, True):
        job = await made(bench, ask(bench))
        held = await bench.lease_one() if runs else None
        await served(bench, ask(bench))
        await served(bench, ask(bench))
        for left in (1, 0):
            kept = await bench.cancel(job.id, "not me")
            assert (kept.joined, kept.cancel_requested_at_ms, kept.cancel_reason) == (left, None, None)
            assert kept == await bench.job(job.id)
        asked = await bench.cancel(job.id, "nor me")
        assert (asked.cancel_requested_at_ms, asked.cancel_reason) == (bench.clock.now_ms(), "nor me")
        if held is not None:
            assert await bench.commit(held) is State.cancelled
        assert await bench.state(job.id) is State.cancelled


@promise
async def a_sharer_who_left_stops_nothing(bench: Bench) -> None:
    """An attempt goes on as if nothing was when one of two leaves: no worker is told, and the result is kept."""
    job = await made(bench, ask(bench))
    held = await bench.lease_one()
    await served(bench, ask(bench))
    await bench.cancel(job.id)
    assert not (await bench.append(held, held.next_seq, ("progress", "1"))).cancel_requested
    assert (await bench.engine.renew("s1", 10_000)).cancelled == ()
    assert await bench.commit(held, output="1") is State.succeeded
    assert (await bench.job(job.id)).output == "1"


@promise
async def a_cancel_for_all_ends_a_shared_job(bench: Bench) -> None:
    """Whoever cancels for all need not count them."""
    job = await made(bench, ask(bench))
    await served(bench, ask(bench))
    (cancelled,) = await bench.engine.cancel(TENANT, [job.id], "enough", for_all=True)
    assert as_(Job, cancelled).state is State.cancelled


@promise
async def a_repeated_cancel_counts_once(bench: Bench) -> None:
    """A cancel that is sent again under its word takes no second sharer, not even the last one."""
    job = await made(bench, ask(bench))
    held = await bench.lease_one()
    await served(bench, ask(bench))
    for _ in range(3):
        (left,) = await bench.engine.cancel(TENANT, [job.id], None, "w1")
        assert (as_(Job, left).joined, as_(Job, left).cancel_requested_at_ms) == (0, None)
    (asked,) = await bench.engine.cancel(TENANT, [job.id], None, "w2")
    assert as_(Job, asked).cancel_requested_at_ms is not None
    assert await bench.commit(held) is State.cancelled


@promise
async def a_repeated_submit_joins_once(bench: Bench) -> None:
    """A submit whose reply was lost is sent again under its id, and shares the job once; so does a maker's."""
    new, other = ask(bench), ask(bench)
    job = await made(bench, new)
    for _ in range(3):
        assert (await served(bench, other)).joined == 1
    again = await answer(bench, new)
    assert (again.job.id, again.job.joined, again.replayed, again.cached) == (job.id, 1, True, False)
    assert await counted(bench) == {JOINS: 1}


@promise
async def a_more_urgent_submit_waits_for_no_lesser_job(bench: Bench) -> None:
    """A job that waits at a lower priority is not joined: the new one has the key. One that runs is joined."""
    low = await made(bench, ask(bench, priority=Priority.low))
    normal = await made(bench, ask(bench))
    assert (await served(bench, ask(bench, priority=Priority.low))).id == normal.id
    held = await bench.lease_one()
    assert held.job_id == normal.id
    assert (await served(bench, ask(bench, priority=Priority.high))).id == normal.id
    assert (await bench.job(low.id)).joined == 0


@promise
async def equal_submits_in_one_batch_share_a_job(bench: Bench) -> None:
    """Within one batch the first of the same content makes the job, and the others share it."""
    news = [ask(bench), ask(bench, OTHER), ask(bench), ask(bench), bench.new()]
    receipts = [as_(Receipt, told) for told in await bench.engine.submit(news)]
    assert [receipt.cached for receipt in receipts] == [False, False, True, True, False]
    assert [receipts[n].job.id for n in (0, 2, 3)] == [news[0].id] * 3
    assert (await bench.job(news[0].id)).joined == 2
    assert (await bench.stats()).queued == 3


@promise
async def parallel_submits_of_the_same_content_run_once(bench: Bench) -> None:
    """Of fifty submits at the same time one makes the job, and all the others share it."""
    news = [ask(bench) for _ in range(50)]
    answers = await asyncio.gather(*(bench.engine.submit([new]) for new in news))
    receipts = [as_(Receipt, told) for (told,) in answers]
    assert len({receipt.job.id for receipt in receipts}) == 1
    assert [receipt.cached for receipt in receipts].count(False) == 1
    assert (await bench.job(receipts[0].job.id)).joined == 49
    assert (await bench.stats()).queued == 1
    assert await counted(bench) == {JOINS: 49}


@durable_promise
async def processes_that_submit_at_the_same_time_share_jobs(bench: Bench) -> None:
    """Two engines on one store, asked ten questions by twenty callers each at once, make one job for each question."""
    engines = (bench.engine, await durable(bench.harness).beside(bench.engine))
    keys = [f"{n:08x}" + "7" * 24 for n in range(10)]
    news = [ask(bench, key) for _ in range(20) for key in keys]
    answers = await asyncio.gather(*(engines[n % 3 % 2].submit([new]) for n, new in enumerate(news)))
    receipts = [as_(Receipt, told) for (told,) in answers]
    assert [receipt.cached for receipt in receipts].count(False) == 10
    jobs = {receipt.job.id for receipt in receipts}
    assert {home_of(job_id) for job_id in jobs} == {key[:8] for key in keys}
    assert all(home_of(receipt.job.id) == home_of(new.id) for new, receipt in zip(news, receipts, strict=True))
    assert [(await bench.job(job_id)).joined for job_id in jobs] == [19] * 10
    assert (await bench.stats()).queued == 10
    assert await counted(bench) == {JOINS: 190}


@durable_promise
async def sharers_outlive_the_engine(bench: Bench) -> None:
    """After a restart a job knows its sharers, and its key its job."""
    job = await made(bench, ask(bench))
    other = ask(bench)
    await served(bench, other)
    await bench.reopen()
    assert (await served(bench, other)).joined == 1
    assert (await served(bench, ask(bench))).joined == 2
    assert (await bench.cancel(job.id)).joined == 1


@promise
async def a_rescued_job_keeps_its_sharers(bench: Bench) -> None:
    """The death of a worker changes nothing for those who share its job."""
    job = await made(bench, ask(bench))
    await bench.lease_one()
    await served(bench, ask(bench))
    assert await bench.expire() == 1
    assert (await served(bench, ask(bench))).joined == 2
    await bench.commit(await bench.lease_one(), output="1")
    assert (await served(bench, ask(bench))).id == job.id
    assert await counted(bench) == {JOINS: 2, HITS: 1}
