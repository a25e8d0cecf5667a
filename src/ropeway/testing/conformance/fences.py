"""Fences: a write counts only under the lease that holds the job (guarantees G3 and G4)."""

from __future__ import annotations

from ropeway.domain.errors import LeaseLost
from ropeway.domain.lease import Append, Appended, Assignment, Commit, Lease, Outcome
from ropeway.domain.lifecycle import State
from ropeway.testing.bench import Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []

DELTA = "output.delta"
OUTCOMES = ("succeeded", "failed", "cancelled", "retry", "release")


@promise
async def a_rescued_worker_can_write_nothing(bench: Bench) -> None:
    """After a rescue the old holder's appends and commits are refused and leave no trace, while the job waits."""
    held = await bench.start_job()
    await bench.expire()
    await _assert_powerless(bench, held)


@promise
async def a_zombie_cannot_touch_its_successor(bench: Bench) -> None:
    """While another attempt runs, the old holder's writes are refused and leave no trace."""
    zombie = await bench.start_job()
    await bench.expire()
    successor = await bench.lease_one()
    await _assert_powerless(bench, zombie)
    assert await bench.commit(successor, output='"right"') is State.succeeded
    assert (await bench.job(zombie.job_id)).output == '"right"'


@promise
async def a_released_lease_is_over(bench: Bench) -> None:
    """Who gave a job back cannot write to it any more, though the same session holds it again."""
    held = await bench.start_job()
    await bench.commit(held, "release")
    await bench.lease_one()
    await _assert_powerless(bench, held)


@promise
async def an_ended_job_takes_no_more(bench: Bench) -> None:
    """After the end nothing can be appended by its own holder, and no other outcome committed."""
    held = await bench.start_job()
    await bench.commit(held, output='"first"')
    await _assert_powerless(bench, held, OUTCOMES[1:])


@promise
async def the_fence_is_the_token(bench: Bench) -> None:
    """Knowing job and epoch is not enough: a lease with another token is refused."""
    held = await bench.start_job()
    for token in ("", "0" * 24, held.lease.token[:-1], held.lease.token + "0", held.lease.token.upper() + " "):
        forged = Lease(held.job_id, held.lease.epoch, token)
        await _assert_refused(bench, forged)
    assert await bench.commit(held) is State.succeeded


@promise
async def an_earlier_token_does_not_hold_a_later_epoch(bench: Bench) -> None:
    """An old token under the new attempt's epoch is as stale as ever, and so is the new token's job under another."""
    old = await bench.start_job()
    await bench.expire()
    new = await bench.lease_one()
    other = await bench.start_job()
    await _assert_refused(bench, Lease(new.job_id, new.lease.epoch, old.lease.token))
    await _assert_refused(bench, Lease(new.job_id, new.lease.epoch, other.lease.token))
    await _assert_refused(bench, Lease("absent", new.lease.epoch, new.lease.token))


@promise
async def an_append_is_a_compare_and_set(bench: Bench) -> None:
    """Events are written only at the number that comes next; anything else is refused and writes nothing."""
    held = await bench.start_job()
    await bench.append(held, 1, (DELTA, "1"))
    before = await bench.log(held.job_id)
    for seq in (0, 1, 3, 10):
        (answer,) = await bench.engine.append([Append(held.lease, seq, ((DELTA, '"else"'),))])
        assert isinstance(answer, LeaseLost), seq
    assert await bench.log(held.job_id) == before
    assert await bench.append(held, 2, (DELTA, "2")) == Appended(3)


@promise
async def a_batch_of_writes_is_fenced_one_by_one(bench: Bench) -> None:
    """Stale and good leases in one batch: each is answered in place, and the good ones count."""
    stale = await bench.start_job()
    await bench.commit(stale, "release")
    good = await bench.lease_one()
    other = await bench.start_job()
    drafts = ((DELTA, "1"),)
    appends = [
        Append(stale.lease, 1, drafts),
        Append(good.lease, good.next_seq, drafts),
        Append(other.lease, 1, drafts),
    ]
    answers = await bench.engine.append(appends)
    assert [type(answer) for answer in answers] == [LeaseLost, Appended, Appended]
    outcome = Outcome("succeeded")
    ends = await bench.engine.commit([Commit(held.lease, outcome) for held in (other, stale, good)])
    assert [end if isinstance(end, State) else type(end) for end in ends] == [
        State.succeeded,
        LeaseLost,
        State.succeeded,
    ]


@promise
async def appends_of_one_batch_follow_each_other(bench: Bench) -> None:
    """Two appends of one attempt in one batch are written in order, each at its own number."""
    held = await bench.start_job()
    batch = [
        Append(held.lease, 1, ((DELTA, "1"), (DELTA, "2"))),
        Append(held.lease, 3, ((DELTA, "3"),)),
        Append(held.lease, 5, ((DELTA, "5"),)),
    ]
    answers = await bench.engine.append(batch)
    assert answers[:2] == [Appended(3), Appended(4)]
    assert isinstance(answers[2], LeaseLost)
    assert [event.data for event in (await bench.log(held.job_id))[2:]] == ["1", "2", "3"]


@promise
async def a_lost_lease_does_not_stop_its_session(bench: Bench) -> None:
    """A session that lost one job keeps its others."""
    await bench.submit(bench.new(), bench.new())
    lost, kept = await bench.lease(2)
    await bench.commit(lost, "release")
    await bench.announce("s2")
    await bench.lease_one("s2")
    await _assert_refused(bench, lost.lease)
    assert (await bench.engine.renew("s1", 10_000)).alive
    assert await bench.commit(kept) is State.succeeded


async def _assert_powerless(bench: Bench, held: Assignment, outcomes: tuple[str, ...] = OUTCOMES) -> None:
    await _assert_refused(bench, held.lease, outcomes)


async def _assert_refused(bench: Bench, lease: Lease, outcomes: tuple[str, ...] = OUTCOMES) -> None:
    """No write under this lease counts, or leaves a trace."""
    rows = await bench.engine.get("acme", [lease.job_id])
    log = await bench.log(lease.job_id) if rows[0] else []
    seqs = range(rows[0].seq + 2 if rows[0] else 2)
    appends = [Append(lease, seq, ((DELTA, '"zombie"'),)) for seq in seqs]
    for answer in await bench.engine.append(appends):
        assert isinstance(answer, LeaseLost)
    commits = [Commit(lease, Outcome(kind, output='"zombie"', error="{}", usage="{}")) for kind in outcomes]
    for state in await bench.engine.commit(commits):
        assert isinstance(state, LeaseLost)
    assert await bench.engine.get("acme", [lease.job_id]) == rows
    assert (await bench.log(lease.job_id) if rows[0] else []) == log
