"""The outbox: who asked to be told of a job's end has a delivery from the very step that ended it (guarantee G9)."""

from __future__ import annotations

from typing import Any

import msgspec

from ropeway.domain.delivery import BODY_LIMIT_BYTES
from ropeway.domain.errors import LeaseLost
from ropeway.domain.instants import timestamp
from ropeway.domain.job import Job, JobOptions, JobQuery
from ropeway.domain.lease import Commit, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueChange
from ropeway.domain.retry import Retry
from ropeway.domain.webhook import DELIVERY_QUEUE, DELIVERY_RETRY, DELIVERY_TASK, Webhook, WebhookEvent, delivery_id
from ropeway.testing.bench import TENANT, Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []

URL = "https://hooks.example/ropeway"
ERROR = '{"code":"task_error","message":"no","traceback":"secret frames"}'


def told(*events: WebhookEvent, **options: Any) -> JobOptions:
    """Options of a job whose end is to be told."""
    return JobOptions(webhook=Webhook(URL, events) if events else Webhook(URL), **options)


async def delivery(bench: Bench, job_id: str) -> Job | None:
    (found,) = await bench.engine.get(TENANT, [delivery_id(job_id)])
    return found


async def deliveries(bench: Bench) -> list[str]:
    """The ids of all deliveries that this tenant has, by what they tell of."""
    page = await bench.engine.find(JobQuery(TENANT, queue=DELIVERY_QUEUE, limit=100))
    return sorted(job.id for job in page.jobs)


async def body(bench: Bench, job_id: str) -> dict[str, Any]:
    found = await delivery(bench, job_id)
    assert found is not None, f"nobody will tell of the end of {job_id}"
    return msgspec.json.decode(found.input, type=dict[str, Any])


@promise
async def a_commit_leaves_a_delivery(bench: Bench) -> None:
    """The end of a job with a webhook makes one that tells of it: queued, the same tenant's, with what it will say."""
    job = await bench.finish("job_1", options=told(tags=("x",), metadata={"k": "v"}))
    found = await delivery(bench, "job_1")
    assert found is not None
    assert (found.tenant, found.queue, found.task) == (TENANT, DELIVERY_QUEUE, DELIVERY_TASK)
    assert (found.state, found.attempt, found.created_at_ms) == (State.queued, 0, bench.clock.now_ms())
    assert found.options.retry == DELIVERY_RETRY
    assert found.options.webhook is None
    input_ = await body(bench, "job_1")
    assert (input_["url"], input_["type"], input_["job_id"]) == (URL, "job.succeeded", "job_1")
    assert input_["timestamp"] == timestamp(job.finished_at_ms or 0)
    data = input_["data"]
    assert (data["id"], data["state"], data["output"], data["tags"]) == ("job_1", "succeeded", None, ["x"])
    assert await deliveries(bench) == ["job_1-d0"]


@promise
async def a_delivery_can_be_leased_and_ends_like_any_job(bench: Bench) -> None:
    """A worker of the queue gets it, and its own end makes no other."""
    await bench.finish("job_1", options=told())
    (held,) = await bench.lease(queues=(DELIVERY_QUEUE,))
    assert (held.job_id, held.task) == ("job_1-d0", DELIVERY_TASK)
    assert await bench.commit(held) is State.succeeded
    assert await deliveries(bench) == ["job_1-d0"]


@promise
async def every_way_to_end_is_told(bench: Bench) -> None:
    """Success, failure, attempts spent, cancel of who waits, runs or is rescued, queue timeouts, crashes spent."""
    kinds = ("succeeded", "failed", "cancelled")
    for kind in kinds:
        await bench.finish(kind, kind, options=told())
    held = await bench.start_job("spent", options=told(retry=Retry(max_attempts=1)))
    await bench.commit(held, "retry", error=ERROR)
    await bench.add("waiting", options=told())
    await bench.add("later", options=told(), delay_ms=10**6)
    await bench.cancel("waiting")
    await bench.cancel("later")
    held = await bench.start_job("asked", options=told())
    await bench.cancel("asked")
    await bench.commit(held)
    await bench.add("late", options=told(queue_timeout_s=1), queue="idle")
    await bench.add("met-late", options=told(queue_timeout_s=1), queue="met")
    bench.clock.advance(1_000)
    assert await bench.lease(queues=("met",)) == []
    await bench.engine.promote(10)
    await bench.start_job("crashed", options=told(max_crashes=1))
    await bench.start_job("doomed", options=told())
    await bench.cancel("doomed")
    await bench.expire()
    ended = [*kinds, "spent", "waiting", "later", "asked", "late", "met-late", "crashed", "doomed"]
    assert await deliveries(bench) == sorted(delivery_id(job_id) for job_id in ended)
    for job_id, state in zip(ended, await bench.states(*ended), strict=True):
        input_ = await body(bench, job_id)
        assert (input_["type"], input_["data"]["state"]) == (f"job.{state}", state), job_id


@promise
async def a_closed_session_leaves_deliveries(bench: Bench) -> None:
    """What a session held when it was closed, and thereby ended, is told too."""
    await bench.start_job("crashed", options=told(max_crashes=1))
    await bench.engine.close("s1")
    assert await bench.states("crashed", "crashed-d0") == [State.failed, State.queued]


@promise
async def ends_that_nobody_asked_for_are_not_told(bench: Bench) -> None:
    """Of a job without a webhook there is no delivery, nor of an event that it does not name."""
    await bench.finish("silent")
    await bench.finish("only-failures", options=told("job.failed"))
    await bench.finish("told", "failed", options=told("job.failed", "job.cancelled"))
    assert await deliveries(bench) == ["told-d0"]


@promise
async def a_pause_is_no_end(bench: Bench) -> None:
    """An attempt that is tried again, given back or rescued makes no delivery: only the end does."""
    await bench.add("job_1", options=told())
    for kind in ("retry", "release"):
        await bench.commit(await bench.lease_one(), kind, error=ERROR)
    await bench.lease_one()
    await bench.expire()
    assert await deliveries(bench) == []
    await bench.commit(await bench.lease_one())
    assert await deliveries(bench) == ["job_1-d0"]


@promise
async def a_repeated_commit_tells_once(bench: Bench) -> None:
    """The holder's repeat, in the same batch or later, and a stale commit add nothing; nor does a late cancel."""
    held = await bench.start_job("job_1", options=told())
    twice = [Commit(held.lease, Outcome("succeeded"))] * 2
    assert await bench.engine.commit(twice) == [State.succeeded] * 2
    assert await bench.engine.commit(twice[:1]) == [State.succeeded]
    (stale,) = await bench.engine.commit([Commit(held.lease, Outcome("failed", error=ERROR))])
    assert isinstance(stale, LeaseLost)
    await bench.cancel("job_1")
    assert await deliveries(bench) == ["job_1-d0"]


@promise
async def a_full_queue_takes_every_delivery(bench: Bench) -> None:
    """No limit of the queue of deliveries, and no pause of it, keeps an end from being told."""
    limits = QueueChange(DELIVERY_QUEUE, max_depth=1, max_depth_per_tenant=1, paused=True)
    await bench.engine.set_queue([limits])
    for n in range(3):
        await bench.finish(f"job_{n}", options=told())
    assert await deliveries(bench) == ["job_0-d0", "job_1-d0", "job_2-d0"]
    assert (await bench.stats(DELIVERY_QUEUE)).queued == 3


@promise
async def many_ends_in_one_call_are_all_told(bench: Bench) -> None:
    """A batch of commits, of jobs with webhooks and without, leaves the deliveries of the former, in their order."""
    jobs = [bench.new(f"job_{n}", options=told() if n % 2 else JobOptions()) for n in range(6)]
    await bench.submit(*jobs)
    held = await bench.lease(6)
    states = await bench.engine.commit([Commit(one.lease, Outcome("succeeded", output="1")) for one in held])
    assert states == [State.succeeded] * 6
    assert await deliveries(bench) == ["job_1-d0", "job_3-d0", "job_5-d0"]
    counts = await bench.stats(DELIVERY_QUEUE)
    assert (counts.queued, counts.oldest_queued_at_ms) == (3, bench.clock.now_ms())


@promise
async def strangers_see_no_delivery(bench: Bench) -> None:
    """A delivery is its tenant's: for another it is not there."""
    await bench.finish("job_1", options=told())
    assert await bench.engine.get("rival", ["job_1-d0"]) == [None]
    assert (await bench.engine.find(JobQuery("rival", queue=DELIVERY_QUEUE))).jobs == ()


@promise
async def a_delivery_outlives_its_job(bench: Bench) -> None:
    """Purged or expired, the job that ended is still told of: its delivery carries what it will say."""
    await bench.finish("brief", options=told(retention_s=0))
    await bench.finish("purged", options=told())
    await bench.engine.purge(TENANT, ["purged"])
    await bench.engine.prune(10)
    assert await bench.states("brief", "purged") == [None, None]
    assert await deliveries(bench) == ["brief-d0", "purged-d0"]


@promise
async def a_known_delivery_is_not_made_again(bench: Bench) -> None:
    """Another job under a deleted one's id ends as it should, and the earlier delivery stays as it is."""
    await bench.finish("job_1", options=told())
    await bench.engine.purge(TENANT, ["job_1"])
    before = await delivery(bench, "job_1")
    assert (await bench.finish("job_1", "failed", options=told())).state is State.failed
    assert await delivery(bench, "job_1") == before


@promise
async def a_big_output_is_left_out(bench: Bench) -> None:
    """A delivery holds the output while it is small, and says that it left it out when it is not."""
    for job_id, size in (("small", 1_000), ("big", BODY_LIMIT_BYTES)):
        held = await bench.start_job(job_id, options=told())
        await bench.commit(held, output=f'"{"x" * size}"')
    assert (await body(bench, "small"))["data"]["output"] == "x" * 1_000
    data = (await body(bench, "big"))["data"]
    assert ("output" in data, data["output_omitted"]) == (False, True)
    assert data["links"]["result"] == "/v1/jobs/big/result"


@promise
async def a_delivery_tells_the_error_and_not_where(bench: Bench) -> None:
    """A failed job's error is told without its traceback."""
    held = await bench.start_job("job_1", options=told())
    await bench.commit(held, "failed", error=ERROR, usage='{"tokens":7}')
    data = (await body(bench, "job_1"))["data"]
    assert data["error"] == {"code": "task_error", "message": "no"}
    assert data["usage"] == {"tokens": 7}
