"""Order: priorities with a floor, weighted fair shares of tenants, first in first out within one (domain.rank)."""

from __future__ import annotations

from ropeway.domain.job import JobOptions
from ropeway.domain.queue import QueueChange
from ropeway.domain.rank import Priority
from ropeway.testing.bench import QUEUE, TENANT, Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []


@promise
async def a_tenants_jobs_run_first_in_first_out(bench: Bench) -> None:
    """Jobs of one tenant and priority are leased in the order of their submits, across and within batches."""
    jobs = await bench.submit(*(bench.new() for _ in range(3)))
    jobs += await bench.submit(*(bench.new() for _ in range(3)))
    assert await _drained(bench, 2) == [job.id for job in jobs]


@promise
async def a_higher_priority_goes_first(bench: Bench) -> None:
    """Waiting high jobs go before normal ones, and those before low ones."""
    for n in range(2):
        for priority in Priority:
            await bench.add(f"{priority.name}{n}", priority=priority)
    assert await _drained(bench) == ["high0", "high1", "normal0", "normal1", "low0", "low1"]


@promise
async def a_lower_priority_gets_a_tenth(bench: Bench) -> None:
    """Nine leases in a row may pass over a band in which jobs wait; the tenth is its own. So for each lower band."""
    await bench.submit(*(bench.new(f"h{n:02}", priority=Priority.high) for n in range(20)))
    await bench.submit(*(bench.new(f"n{n}") for n in range(2)))
    await bench.submit(*(bench.new(f"l{n}", priority=Priority.low) for n in range(2)))
    order = await _drained(bench, 7)
    assert [place for place, job_id in enumerate(order) if job_id[0] == "n"] == [9, 19]
    assert [place for place, job_id in enumerate(order) if job_id[0] == "l"] == [10, 20]
    assert [job_id for job_id in order if job_id[0] == "h"] == [f"h{n:02}" for n in range(20)]


@promise
async def a_band_in_which_nothing_waits_is_owed_nothing(bench: Bench) -> None:
    """Leases are counted against a band only while its jobs wait; and they are counted across calls."""
    await bench.submit(*(bench.new(f"h{n:02}", priority=Priority.high) for n in range(21)))
    assert len(await bench.lease(10)) == 10
    await bench.add("low", priority=Priority.low)
    assert [(await bench.lease_one()).job_id for _ in range(9)] == [f"h{n:02}" for n in range(10, 19)]
    assert (await bench.lease_one()).job_id == "low"
    assert await _drained(bench) == ["h19", "h20"]


@promise
async def a_position_knows_of_the_floor(bench: Bench) -> None:
    """A job of a lower priority waits for nine jobs of a higher one, not for all of them."""
    await bench.submit(*(bench.new(priority=Priority.high) for _ in range(50)))
    await bench.submit(bench.new("n0"), bench.new("n1"))
    assert [await bench.engine.position(TENANT, job_id) for job_id in ("n0", "n1")] == [9, 19]
    await bench.lease(4)
    assert [await bench.engine.position(TENANT, job_id) for job_id in ("n0", "n1")] == [5, 15]
    await bench.lease(5)
    assert (await bench.lease_one()).job_id == "n0"
    assert await bench.engine.position(TENANT, "n1") == 9


@promise
async def what_a_job_took_moves_its_tenants_next_place(bench: Bench) -> None:
    """A cost in tokens is an estimate: the tenant's next submits pay what the usage told beyond it, or are let off."""
    guess = JobOptions(cost=10.0, cost_measure="tokens")
    for name, took in (("dear", 40), ("cheap", 5)):
        await bench.add(f"{name}0", tenant=name, options=guess)
        held = await bench.lease_one()
        await bench.commit(held, usage=f'{{"input_tokens":{took - 2},"output_tokens":2,"model":"m"}}')
    await bench.submit(*(bench.new(f"dear{n}", tenant="dear", options=guess) for n in (1, 2)))
    await bench.submit(*(bench.new(f"cheap{n}", tenant="cheap", options=guess) for n in (1, 2, 3, 4)))
    ranks = {name: (await bench.job(name, name[:-1])).rank % 1e12 for name in ("dear1", "cheap1", "cheap2")}
    assert ranks == {"dear1": 40.0, "cheap1": 5.0, "cheap2": 15.0}
    assert (await _drained(bench))[:4] == ["cheap1", "cheap2", "cheap3", "cheap4"]


@promise
async def each_attempt_is_paid_for(bench: Bench) -> None:
    """The cost is paid once; what a second attempt took comes on top. Usage without tokens changes nothing."""
    guess = JobOptions(cost=10.0, cost_measure="tokens")
    held = await bench.start_job("a0", options=guess)
    await bench.commit(held, "retry", usage='{"output_tokens":12}')
    await bench.commit(await bench.lease_one(), usage='{"output_tokens":30}')
    await bench.commit(await bench.start_job("a1", options=guess), usage='{"pages":99}')
    assert (await bench.job("a1")).rank % 1e12 == 42.0
    assert (await bench.add("a2", options=guess)).rank % 1e12 == 52.0


@promise
async def tenants_take_turns(bench: Bench) -> None:
    """A tenant with many jobs waiting and one with few are served in turn, not by who came first."""
    await bench.submit(*(bench.new(f"a{n}") for n in range(5)))
    await bench.submit(*(bench.new(f"b{n}", tenant="b") for n in range(3)))
    assert await _drained(bench) == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "a4"]


@promise
async def weights_share_exactly(bench: Bench) -> None:
    """A tenant of weight 2 gets two jobs for every one of weight 1: this very sequence."""
    await bench.engine.set_queue([QueueChange(QUEUE, weights={"b": 2.0})])
    await bench.submit(*(bench.new(f"a{n}") for n in range(3)))
    await bench.submit(*(bench.new(f"b{n}", tenant="b") for n in range(6)))
    assert await _drained(bench) == ["a0", "b0", "b1", "a1", "b2", "b3", "a2", "b4", "b5"]


@promise
async def costs_weigh(bench: Bench) -> None:
    """A tenant whose jobs cost three times as much is leased a third as many."""
    dear = JobOptions(cost=3.0)
    await bench.submit(*(bench.new(f"a{n}", options=dear) for n in range(3)))
    await bench.submit(*(bench.new(f"b{n}", tenant="b") for n in range(7)))
    assert await _drained(bench) == ["a0", "b0", "b1", "b2", "a1", "b3", "b4", "b5", "a2", "b6"]


@promise
async def a_late_tenant_starts_at_virtual_time(bench: Bench) -> None:
    """Who comes late neither waits behind the backlog nor is paid for the time away."""
    await bench.submit(*(bench.new(f"a{n}") for n in range(8)))
    await bench.lease(4)
    await bench.submit(*(bench.new(f"b{n}", tenant="b") for n in range(3)))
    assert await _drained(bench) == ["b0", "a4", "b1", "a5", "b2", "a6", "a7"]


@promise
async def an_idle_tenant_saves_nothing_up(bench: Bench) -> None:
    """A tenant that was served long ago starts anew at virtual time, after a prune too."""
    await bench.add("b0", tenant="b")
    await bench.submit(*(bench.new(f"a{n}") for n in range(6)))
    await bench.lease(5)
    await bench.engine.prune(10)
    await bench.submit(*(bench.new(f"b{n}", tenant="b") for n in (1, 2, 3)))
    await bench.add("a6")
    assert await _drained(bench) == ["b1", "a4", "b2", "a5", "b3", "a6"]


@promise
async def an_expired_job_moves_no_virtual_time(bench: Bench) -> None:
    """Virtual time is that of the job leased last; one that only failed on the way was not served."""
    await bench.add("a0", options=JobOptions(queue_timeout_s=1, cost=50.0))
    await bench.add("a1", options=JobOptions(queue_timeout_s=1))
    bench.clock.advance(1000)
    assert await bench.lease() == []
    await bench.add("b0", tenant="b")
    await bench.add("b1", tenant="b")
    assert (await bench.job("b0", "b")).rank < (await bench.job("a1")).rank


@promise
async def bands_keep_their_own_time(bench: Bench) -> None:
    """Fair sharing is kept within each priority: much work in one owes nothing in another."""
    await bench.submit(*(bench.new(f"a{n}", priority=Priority.high) for n in range(3)))
    await bench.lease(3)
    await bench.submit(bench.new("n0"), bench.new("n1"), bench.new("b0", tenant="b"))
    assert await _drained(bench) == ["n0", "b0", "n1"]


@promise
async def queues_keep_their_own_time(bench: Bench) -> None:
    """What a tenant did in one queue does not count in another."""
    await bench.submit(*(bench.new(queue="other") for _ in range(5)))
    await bench.lease(5, queues=("other",))
    await bench.submit(bench.new("a0"), bench.new("b0", tenant="b"), bench.new("a1"))
    assert await _drained(bench) == ["a0", "b0", "a1"]


@promise
async def a_job_comes_back_to_its_place(bench: Bench) -> None:
    """A job that is released, retried or rescued goes before those submitted after it."""
    jobs = await bench.submit(bench.new(), bench.new(), bench.new(), bench.new())
    released, retried = await bench.lease(2)
    await bench.commit(released, "release")
    await bench.commit(retried, "retry")
    assert [held.job_id for held in await bench.lease(1)] == [jobs[0].id]
    await bench.expire()
    assert await _drained(bench) == [job.id for job in jobs]


@promise
async def a_promoted_job_has_the_place_of_its_submit(bench: Bench) -> None:
    """A delayed job is ranked when it is submitted: due, it goes before those that came after."""
    await bench.add("late", delay_ms=1000)
    await bench.submit(bench.new("a"), bench.new("b"))
    bench.clock.advance(1000)
    await bench.engine.promote(10)
    assert await _drained(bench) == ["late", "a", "b"]


@promise
async def position_counts_who_goes_before(bench: Bench) -> None:
    """The position of a queued job is how many queued jobs of its queue are leased before it."""
    await bench.submit(*(bench.new(f"a{n}") for n in range(4)))
    await bench.add("b0", tenant="b")
    await bench.add("elsewhere", queue="other")
    positions = [await bench.engine.position(TENANT, f"a{n}") for n in range(4)]
    assert positions == [0, 2, 3, 4]
    assert await bench.engine.position("b", "b0") == 1
    await bench.cancel("a0")
    assert await bench.engine.position(TENANT, "a3") == 3


@promise
async def position_is_for_queued_jobs_alone(bench: Bench) -> None:
    """A job that is not queued, or has more than `limit` before it, has no position."""
    scheduled = await bench.add(delay_ms=1000)
    held = await bench.start_job()
    ended = await bench.finish(queue=QUEUE)
    for job_id in (scheduled.id, held.job_id, ended.id, "absent"):
        assert await bench.engine.position(TENANT, job_id) is None
    await bench.submit(*(bench.new(f"q{n}") for n in range(4)))
    assert await bench.engine.position(TENANT, "q2", limit=2) == 2
    assert await bench.engine.position(TENANT, "q3", limit=2) is None


async def _drained(bench: Bench, limit: int = 1) -> list[str]:
    """The ids of all jobs of the queue in the order in which they are leased, `limit` at a time."""
    ids: list[str] = []
    while leased := await bench.lease(limit):
        ids += [held.job_id for held in leased]
    return ids
