"""Budgets: limits in a time, as a provider has them: rates, measured amounts, pauses (domain.limit)."""

from __future__ import annotations

from ropeway.domain.limit import Limit, LimitSignal
from ropeway.testing.bench import Bench
from ropeway.testing.conformance.limits import RATE, TWO, add, leased, limit_of, parked
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []


@promise
async def a_rate_is_kept(bench: Bench) -> None:
    """A burst at once, then as many as the bucket refills; who must wait is called at its time, and not before."""
    await add(bench, *(f"j{n}" for n in range(7)), limits=(RATE,))
    assert await leased(bench) == ["j0", "j1", "j2", "j3"]
    promotion = await bench.engine.promote(100)
    assert (promotion.moved, promotion.next_at_ms) == (0, bench.clock.now_ms() + 500)
    bench.clock.advance(499)
    assert (await bench.engine.promote(100)).moved == 0
    assert await leased(bench) == []
    bench.clock.advance(1)
    assert (await bench.engine.promote(100)).moved == 1
    assert await leased(bench) == ["j4"]
    bench.clock.advance(1000)
    await bench.engine.promote(100)
    assert await leased(bench) == ["j5", "j6"]


@promise
async def a_bucket_refills_to_its_burst(bench: Bench) -> None:
    """What was not used for long does not add up."""
    await add(bench, *(f"j{n}" for n in range(4)), limits=(RATE,))
    assert len(await bench.lease(4)) == 4
    bench.clock.advance(60_000)
    await bench.announce()
    await add(bench, *(f"k{n}" for n in range(6)), limits=(RATE,))
    assert await leased(bench) == ["k0", "k1", "k2", "k3"]


@promise
async def a_place_is_free_at_the_end_and_a_rate_is_not(bench: Bench) -> None:
    """A job that ended gives back its place, and nothing of what it took from the bucket."""
    both = Limit("both", max_running=1, per_s=1.0, burst=2.0)
    await add(bench, "a", "b", "c", limits=(both,))
    await bench.commit(await bench.lease_one())
    await bench.commit(await bench.lease_one())
    assert await leased(bench) == []
    bench.clock.advance(1000)
    await bench.engine.promote(10)
    assert await leased(bench) == ["c"]


@promise
async def an_estimate_is_put_right(bench: Bench) -> None:
    """A measured amount is corrected by the usage: what was too much goes back at once, what was too little is owed."""

    def tokens(amount: float) -> Limit:
        return Limit("tpm", per_s=1.0, burst=100.0, amount=amount, measure="tokens")

    await add(bench, "a", limits=(tokens(80),))
    await add(bench, "b", limits=(tokens(60),))
    held = await bench.lease_one()
    assert await leased(bench) == []
    await bench.commit(held, usage='{"input_tokens":30,"output_tokens":10}')
    b = await bench.lease_one()
    assert (await limit_of(bench, "tpm")).level == 0.0
    await bench.commit(b, usage='{"input_tokens":60,"output_tokens":20}')
    assert (await limit_of(bench, "tpm")).level == -20.0
    await add(bench, "c", limits=(tokens(10),))
    assert await leased(bench) == []
    assert (await bench.engine.promote(10)).next_at_ms == bench.clock.now_ms() + 30_000


@promise
async def more_than_a_burst_can_be_had_of_a_full_bucket(bench: Bench) -> None:
    """A job that is larger than the bucket starts when it is full, and leaves it in debt: it is not stuck for ever."""
    await add(bench, "huge", limits=(Limit("tpm", per_s=1.0, burst=10.0, amount=25.0),))
    await add(bench, "next", limits=(Limit("tpm", per_s=1.0, burst=10.0, amount=1.0),))
    assert await leased(bench) == ["huge"]
    assert (await bench.engine.promote(10)).next_at_ms == bench.clock.now_ms() + 16_000


@promise
async def a_small_job_does_not_pass_a_large_one(bench: Bench) -> None:
    """Under a key the order of the line is kept: else a large job would wait for ever."""

    def tokens(amount: float) -> tuple[Limit]:
        return (Limit("tpm", per_s=1.0, burst=100.0, amount=amount),)

    await add(bench, "first", limits=tokens(60))
    await add(bench, "large", limits=tokens(90))
    await add(bench, "small", limits=tokens(1))
    assert await leased(bench) == ["first"]
    assert await parked(bench, "large", "small") == ["tpm", "tpm"]
    bench.clock.advance(50_000)
    await bench.announce()
    await bench.engine.promote(10)
    assert await leased(bench) == ["large"]
    bench.clock.advance(1_000)
    await bench.engine.promote(10)
    assert await leased(bench) == ["small"]


@promise
async def what_was_released_took_nothing(bench: Bench) -> None:
    """A job given back untouched, at a drain or by its provider, gives back what it took."""
    await add(bench, "a", limits=(Limit("tpm", per_s=1.0, burst=10.0, amount=10.0),))
    await bench.commit(await bench.lease_one(), "release")
    assert await leased(bench) == ["a"]


@promise
async def a_pause_holds_a_key(bench: Bench) -> None:
    """A provider that asks to wait is waited for, by all jobs of the key, which start when the time is over."""
    await add(bench, "a", "b", "c", limits=(TWO,))
    held = await bench.lease_one()
    await bench.engine.signal([LimitSignal(TWO, pause_ms=3_000)])
    await bench.commit(held, "release")
    assert await leased(bench) == []
    assert await parked(bench, "a", "b") == ["gpt", "gpt"]
    assert (await bench.engine.promote(10)).next_at_ms == bench.clock.now_ms() + 3_000
    bench.clock.advance(3_000)
    await bench.engine.promote(10)
    assert await leased(bench) == ["a", "b"]
    assert (await bench.job("a")).attempt == 1, "the pause cost no attempt"


@promise
async def a_provider_knows_what_is_left(bench: Bench) -> None:
    """What it tells lowers the bucket, and never fills it: what is left there is for others too."""
    await add(bench, "a", "b", limits=(RATE,))
    await bench.engine.signal([LimitSignal(RATE, left=1.0)])
    assert await leased(bench) == ["a"]
    await bench.engine.signal([LimitSignal(RATE, left=4.0)])
    assert await leased(bench) == []
