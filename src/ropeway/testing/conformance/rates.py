"""Buckets: rates that all processes share, all of a call's amounts or none."""

from __future__ import annotations

import asyncio

from ropeway.domain.bucket import Allowance, Spend
from ropeway.domain.errors import InvalidRequest
from ropeway.testing.bench import Bench
from ropeway.testing.conformance.registry import durable_promise, promise

__all__: list[str] = []


def calls(amount: float = 1, *, force: bool = False, owner: str = "acme") -> Spend:
    """Of a bucket of 10, that refills at 2 a second."""
    return Spend(f"{owner}/calls", amount, 2, 10, force)


def tokens(amount: float, *, force: bool = False) -> Spend:
    """Of a bucket of 1000, that refills at 100 a second."""
    return Spend("acme/tokens", amount, 100, 1000, force)


async def spend(bench: Bench, *wishes: Spend) -> list[tuple[bool, float, float]]:
    """What was answered, to a thousandth."""
    answers = await bench.engine.spend(wishes)
    return [(each.granted, round(each.left, 3), each.retry_after_s) for each in answers]


@promise
async def a_bucket_begins_full_and_refills(bench: Bench) -> None:
    """It gives what it holds, tells to the millisecond when there will be enough, and never holds more than it can."""
    assert await spend(bench, calls(7)) == [(True, 3, 0)]
    assert await spend(bench, calls(4)) == [(False, 3, 0.5)]
    assert await spend(bench, calls(3)) == [(True, 0, 0)]
    assert await spend(bench, calls(1)) == [(False, 0, 0.5)]
    bench.clock.advance(499)
    assert (await spend(bench, calls(1)))[0][0] is False
    bench.clock.advance(1)
    assert await spend(bench, calls(1)) == [(True, 0, 0)]
    bench.clock.advance(60_000)
    assert await spend(bench, calls(0)) == [(True, 10, 0)]
    assert await spend(bench, calls(10)) == [(True, 0, 0)]


@promise
async def a_wait_is_long_enough(bench: Bench) -> None:
    """Who waits as long as it was told gets what it asked for, at any rate; a millisecond before it would not."""
    for n, per_s in enumerate((0.1, 0.3, 1 / 3, 3, 7, 33.3, 999)):
        wish = Spend(f"acme/{n}", 1, per_s, 1)
        assert [allowance.granted for allowance in await bench.engine.spend([wish])] == [True]
        retry_after_s = (await bench.engine.spend([wish]))[0].retry_after_s
        bench.clock.advance(round(retry_after_s * 1000) - 1)
        assert [allowance.granted for allowance in await bench.engine.spend([wish])] == [False]
        bench.clock.advance(1)
        assert [allowance.granted for allowance in await bench.engine.spend([wish])] == [True]


@promise
async def all_amounts_are_taken_or_none(bench: Bench) -> None:
    """When one bucket has not enough the others keep what they hold; the answers tell which one must be waited for."""
    assert await spend(bench, calls(1), tokens(900)) == [(True, 9, 0), (True, 100, 0)]
    assert await spend(bench, calls(1), tokens(200)) == [(False, 9, 0), (False, 100, 1)]
    assert await spend(bench, calls(9), tokens(100)) == [(True, 0, 0), (True, 0, 0)]
    assert await spend(bench, calls(1), tokens(10)) == [(False, 0, 0.5), (False, 0, 0.1)]


@promise
async def amounts_of_one_bucket_add_up(bench: Bench) -> None:
    """A bucket named twice in a call must hold both amounts."""
    assert await spend(bench, calls(3), calls(2)) == [(True, 5, 0), (True, 5, 0)]
    assert await spend(bench, calls(3), calls(3)) == [(False, 5, 0.5), (False, 5, 0.5)]
    assert await spend(bench, calls(3), calls(2)) == [(True, 0, 0), (True, 0, 0)]


@promise
async def a_forced_amount_is_taken_in_any_case(bench: Bench) -> None:
    """Though the bucket is in debt thereby, and though the rest of its call is refused; the debt must refill first."""
    assert await spend(bench, calls(14, force=True)) == [(True, -4, 0)]
    assert await spend(bench, calls(1)) == [(False, -4, 2.5)]
    assert await spend(bench, calls(1), tokens(400, force=True)) == [(False, -4, 2.5), (True, 600, 0)]
    bench.clock.advance(2500)
    assert await spend(bench, calls(1)) == [(True, 0, 0)]


@promise
async def a_negative_amount_gives_back(bench: Bench) -> None:
    """Up to the capacity, forced or not, also to a bucket in debt; nothing of it when another amount is refused."""
    assert await spend(bench, calls(15, force=True)) == [(True, -5, 0)]
    assert await spend(bench, calls(-4)) == [(True, -1, 0)]
    assert await spend(bench, calls(-4, force=True)) == [(True, 3, 0)]
    assert await spend(bench, calls(-4), tokens(2000), tokens(1)) == [(True, 7, 0), (True, -1001, 0), (True, -1001, 0)]
    assert await spend(bench, calls(-1), tokens(1)) == [(False, 7, 0), (False, -1001, 10.02)]
    assert await spend(bench, calls(-400)) == [(True, 10, 0)]


@promise
async def more_than_the_capacity_needs_a_full_bucket(bench: Bench) -> None:
    """It is then in debt for the rest: a large amount waits, and starves not; the rate holds over time."""
    assert await spend(bench, calls(1)) == [(True, 9, 0)]
    assert await spend(bench, calls(16)) == [(False, 9, 0.5)]
    bench.clock.advance(500)
    assert await spend(bench, calls(16)) == [(True, -6, 0)]
    assert await spend(bench, calls(1)) == [(False, -6, 3.5)]


@promise
async def buckets_are_apart(bench: Bench) -> None:
    """Another owner's bucket of the same kind is another; nothing asked for is granted."""
    assert await spend(bench, calls(10)) == [(True, 0, 0)]
    assert await spend(bench, calls(10, owner="rival")) == [(True, 0, 0)]
    assert await spend(bench, tokens(1)) == [(True, 999, 0)]
    assert await bench.engine.spend([]) == []


@promise
async def a_bucket_is_one_however_it_is_named(bench: Bench) -> None:
    """Spent alone, or with others, in any order: it is the same bucket."""
    assert await spend(bench, calls(1), tokens(1)) == [(True, 9, 0), (True, 999, 0)]
    assert await spend(bench, tokens(1), calls(1)) == [(True, 998, 0), (True, 8, 0)]
    assert await spend(bench, tokens(1)) == [(True, 997, 0)]
    assert await spend(bench, calls(1)) == [(True, 7, 0)]


@promise
async def a_changed_rate_counts_from_the_call_on(bench: Bench) -> None:
    """A larger bucket is not fuller thereby; a smaller one holds no more than it can."""
    assert await spend(bench, Spend("acme/x", 2, 1, 10)) == [(True, 8, 0)]
    assert await spend(bench, Spend("acme/x", 1, 1, 100)) == [(True, 7, 0)]
    bench.clock.advance(1000)
    assert await spend(bench, Spend("acme/x", 1, 5, 100)) == [(True, 11, 0)]
    assert await spend(bench, Spend("acme/x", 1, 5, 4)) == [(True, 3, 0)]


@promise
async def a_clock_that_went_back_refills_nothing_twice(bench: Bench) -> None:
    """What was refilled up to a time is not refilled again when that time comes again."""
    assert await spend(bench, calls(10)) == [(True, 0, 0)]
    bench.clock.jump(-2000)
    assert await spend(bench, calls(0)) == [(True, 0, 0)]
    bench.clock.advance(2000)
    assert await spend(bench, calls(0)) == [(True, 0, 0)]
    bench.clock.advance(1000)
    assert await spend(bench, calls(0)) == [(True, 2, 0)]


@promise
async def a_full_bucket_is_forgotten(bench: Bench) -> None:
    """A prune leaves what is still missing something as it is."""
    assert await spend(bench, calls(10), tokens(1000)) == [(True, 0, 0), (True, 0, 0)]
    bench.clock.advance(5000)
    await bench.engine.prune(1000)
    assert await spend(bench, calls(0), tokens(0)) == [(True, 10, 0), (True, 500, 0)]


@promise
async def what_can_be_no_bucket_is_refused(bench: Bench) -> None:
    """Without a name, a rate or a number; or of several owners: then nothing is taken."""
    nan, infinite = float("nan"), float("inf")
    for bad in (
        Spend("", 1, 1, 1), Spend("a b", 1, 1, 1), Spend("a\n", 1, 1, 1), Spend("x" * 256, 1, 1, 1),
        Spend("acme/x", 1, 0, 1), Spend("acme/x", 1, 1, 0), Spend("acme/x", 1, -1, 1), Spend("acme/x", 1, infinite, 1),
        Spend("acme/x", nan, 1, 1), Spend("acme/x", infinite, 1, 1), Spend("acme/x", 1, nan, 1),
        calls(1, owner="rival"),
    ):  # fmt: skip
        try:
            await bench.engine.spend([calls(1), bad])
        except InvalidRequest:
            pass
        else:
            raise AssertionError(f"{bad} was accepted")
    assert await spend(bench, calls(0)) == [(True, 10, 0)]


@promise
async def many_get_no_more_than_there_is(bench: Bench) -> None:
    """Of many that ask at the same time as many are granted as the buckets hold, and as have refilled since."""
    for wanted in (10, 2):
        asked = await asyncio.gather(*(bench.engine.spend([calls(1), tokens(1)]) for _ in range(40)))
        assert [all(each.granted for each in answer) for answer in asked].count(True) == wanted
        bench.clock.advance(1000)
    assert await spend(bench, tokens(0)) == [(True, 1000, 0)]


@durable_promise
async def engines_share_their_buckets(bench: Bench) -> None:
    """What one engine takes is not there for the next on its store; the time between them refills."""
    assert await spend(bench, calls(9)) == [(True, 1, 0)]
    await bench.reopen()
    assert await bench.engine.spend([calls(2)]) == [Allowance(False, 1, 0.5)]
    bench.clock.advance(500)
    assert await spend(bench, calls(2)) == [(True, 0, 0)]
