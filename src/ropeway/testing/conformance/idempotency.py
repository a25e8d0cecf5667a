"""Idempotency keys: one key of a tenant makes one job (guarantee G2)."""

from __future__ import annotations

import asyncio

from ropeway.domain.errors import IdempotencyKeyReused, QueueFull
from ropeway.domain.job import JobOptions, Receipt
from ropeway.domain.queue import QueueChange
from ropeway.testing.bench import QUEUE, TENANT, Bench, as_
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []

CLAIM_S = 86_400


@promise
async def the_same_key_and_body_give_the_same_job(bench: Bench) -> None:
    """A repeat with the same key and body is answered with the first job, marked as replayed."""
    first = await bench.add(idempotency_key="k", fingerprint="f")
    (answer,) = await bench.engine.submit([bench.new(idempotency_key="k", fingerprint="f")])
    assert as_(Receipt, answer) == Receipt(first, replayed=True, depth=1)
    assert (await bench.stats()).waiting == 1


@promise
async def the_same_key_with_another_body_is_refused(bench: Bench) -> None:
    """A key that comes with another body is refused, and makes nothing."""
    await bench.add(idempotency_key="k", fingerprint="f")
    (answer,) = await bench.engine.submit([bench.new("job_y", idempotency_key="k", fingerprint="g")])
    as_(IdempotencyKeyReused, answer)
    assert await bench.engine.get(TENANT, ["job_y"]) == [None]


@promise
async def a_key_twice_in_one_batch_makes_one_job(bench: Bench) -> None:
    """Within one batch the first use of a key makes the job, and the others are its replays or refusals."""
    answers = await bench.engine.submit(
        [
            bench.new("a", idempotency_key="k", fingerprint="f"),
            bench.new("b", idempotency_key="k", fingerprint="f"),
            bench.new("c", idempotency_key="k", fingerprint="g"),
        ]
    )
    assert [as_(Receipt, answer).job.id for answer in answers[:2]] == ["a", "a"]
    assert [as_(Receipt, answer).replayed for answer in answers[:2]] == [False, True]
    as_(IdempotencyKeyReused, answers[2])


@promise
async def parallel_submits_of_one_key_make_one_job(bench: Bench) -> None:
    """Of fifty submits of a key at the same time one makes the job, and all are answered with it."""
    jobs = [bench.new(idempotency_key="k", fingerprint="f") for _ in range(50)]
    answers = await asyncio.gather(*(bench.engine.submit([job]) for job in jobs))
    receipts = [as_(Receipt, answer) for (answer,) in answers]
    assert len({receipt.job.id for receipt in receipts}) == 1
    assert [receipt.replayed for receipt in receipts].count(False) == 1
    assert (await bench.stats()).queued == 1


@promise
async def keys_belong_to_a_tenant(bench: Bench) -> None:
    """Two tenants may use one key, each for a job of its own."""
    mine = await bench.add(idempotency_key="k", fingerprint="f")
    theirs = await bench.add(tenant="rival", idempotency_key="k", fingerprint="g")
    assert mine.id != theirs.id


@promise
async def a_key_stays_claimed_after_a_purge(bench: Bench) -> None:
    """The key of a purged job cannot make another while its claim lasts: the caller is told, whatever the body."""
    await bench.finish("job_x", idempotency_key="k", fingerprint="f")
    await bench.engine.purge(TENANT, ["job_x"])
    bench.clock.advance(s=CLAIM_S - 1)
    await bench.engine.prune(100)
    answers = await bench.engine.submit(
        [
            bench.new("same", idempotency_key="k", fingerprint="f"),
            bench.new("other", idempotency_key="k", fingerprint="g"),
        ]
    )
    assert [type(answer) for answer in answers] == [IdempotencyKeyReused] * 2
    assert await bench.engine.get(TENANT, ["same", "other"]) == [None, None]


@promise
async def a_key_is_free_when_job_and_claim_are_gone(bench: Bench) -> None:
    """After a day, with the job gone, pruning frees its key."""
    await bench.finish("job_x", idempotency_key="k", fingerprint="f")
    await bench.engine.purge(TENANT, ["job_x"])
    bench.clock.advance(s=CLAIM_S)
    await bench.engine.prune(100)
    (answer,) = await bench.engine.submit([bench.new("job_y", idempotency_key="k", fingerprint="g")])
    assert as_(Receipt, answer) == Receipt(await bench.job("job_y"), replayed=False, depth=1)


@promise
async def a_key_lives_as_long_as_its_job(bench: Bench) -> None:
    """While its job is kept a key stays claimed, however old the claim."""
    job = await bench.finish(idempotency_key="k", fingerprint="f", options=JobOptions(retention_s=None))
    bench.clock.advance(s=10 * CLAIM_S)
    await bench.engine.prune(100)
    (answer,) = await bench.engine.submit([bench.new(idempotency_key="k", fingerprint="f")])
    assert (as_(Receipt, answer).replayed, as_(Receipt, answer).job.id) == (True, job.id)


@promise
async def a_refused_submit_claims_no_key(bench: Bench) -> None:
    """A submit that met a full queue leaves its key free for the try that gets in."""
    await bench.engine.set_queue([QueueChange(QUEUE, max_depth=1)])
    await bench.add()
    (refused,) = await bench.engine.submit([bench.new("job_x", idempotency_key="k", fingerprint="f")])
    as_(QueueFull, refused)
    await bench.lease_one()
    (answer,) = await bench.engine.submit([bench.new("job_y", idempotency_key="k", fingerprint="g")])
    assert as_(Receipt, answer).job.id == "job_y"


@promise
async def a_replay_gets_through_a_full_queue(bench: Bench) -> None:
    """A repeat is answered with its job even when the queue takes no more: it adds nothing."""
    await bench.engine.set_queue([QueueChange(QUEUE, max_depth=1)])
    job = await bench.add(idempotency_key="k", fingerprint="f")
    (answer,) = await bench.engine.submit([bench.new(idempotency_key="k", fingerprint="f")])
    assert as_(Receipt, answer).job.id == job.id
