"""Repeats: a holder whose reply was lost asks again and is told what the first call came to."""

from __future__ import annotations

from ropeway.domain.errors import LeaseLost
from ropeway.domain.job import JobOptions
from ropeway.domain.lease import Append, Appended, Commit, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.testing.bench import Bench, as_
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []

DELTA = "output.delta"


@promise
async def a_repeated_append_is_written_once(bench: Bench) -> None:
    """The same events at the same number again are answered as the first time, and stand in the log once."""
    held = await bench.start_job()
    await bench.append(held, 1, (DELTA, "1"))
    first = await bench.append(held, 2, (DELTA, "2"), (DELTA, "3"))
    version = (await bench.job(held.job_id)).version
    again = await bench.append(held, 2, (DELTA, "2"), (DELTA, "3"))
    assert again == first == Appended(4)
    assert [event.data for event in (await bench.log(held.job_id))[2:]] == ["1", "2", "3"]
    assert (await bench.job(held.job_id)).version == version


@promise
async def a_repeated_append_learns_of_a_cancel(bench: Bench) -> None:
    """A repeat tells of a cancel asked since the first call."""
    held = await bench.start_job()
    await bench.append(held, 1, (DELTA, "1"))
    await bench.cancel(held.job_id)
    assert await bench.append(held, 1, (DELTA, "1")) == Appended(2, cancel_requested=True)


@promise
async def a_repeat_must_be_the_same(bench: Bench) -> None:
    """Other events at a number that is written, or more of them, are no repeat: refused, nothing written."""
    held = await bench.start_job()
    await bench.append(held, 1, (DELTA, "1"), (DELTA, "2"))
    for drafts in (((DELTA, "9"), (DELTA, "2")), ((DELTA, "1"), (DELTA, "2"), (DELTA, "3")), (("log", "1"),)):
        (answer,) = await bench.engine.append([Append(held.lease, 1, drafts)])
        assert isinstance(answer, LeaseLost), drafts
    assert [event.data for event in (await bench.log(held.job_id))[2:]] == ["1", "2"]


@promise
async def a_repeated_append_in_one_batch_is_written_once(bench: Bench) -> None:
    """Twice the same append in one batch is one write, answered twice."""
    held = await bench.start_job()
    append = Append(held.lease, 1, ((DELTA, "1"),))
    assert await bench.engine.append([append, append]) == [Appended(2), Appended(2)]
    assert len(await bench.log(held.job_id)) == 3


@promise
async def a_repeated_commit_is_answered_again(bench: Bench) -> None:
    """The holder's repeat of its own commit, of any outcome, is answered with the state and changes nothing."""
    for kind in ("succeeded", "failed", "cancelled", "retry", "release"):
        held = await bench.start_job()
        delay_ms = 50 if kind == "retry" else 0
        outcome = Outcome(kind, output='"x"', error='{"code":"x","message":"y"}', delay_ms=delay_ms)
        (first,) = await bench.engine.commit([Commit(held.lease, outcome)])
        row, log = await bench.job(held.job_id), await bench.log(held.job_id)
        (again,) = await bench.engine.commit([Commit(held.lease, outcome)])
        assert again is as_(State, first), kind
        assert (await bench.job(held.job_id), await bench.log(held.job_id)) == (row, log), kind
        await bench.cancel(held.job_id)


@promise
async def a_repeated_commit_in_one_batch_counts_once(bench: Bench) -> None:
    """Twice the same commit in one batch ends the attempt once, answered twice."""
    held = await bench.start_job(options=JobOptions(retry=Retry(max_attempts=2)))
    commit = Commit(held.lease, Outcome("retry"))
    assert await bench.engine.commit([commit, commit]) == [State.queued, State.queued]
    assert (await bench.lease_one()).attempt == 2


@promise
async def a_repeat_of_a_spent_retry_is_answered_failed(bench: Bench) -> None:
    """A retry that had no attempt left is answered `failed` each time it is told."""
    held = await bench.start_job(options=JobOptions(retry=Retry(max_attempts=1)))
    assert await bench.commit(held, "retry") is State.failed
    assert await bench.commit(held, "retry") is State.failed


@promise
async def a_repeat_after_a_cancel_is_answered_cancelled(bench: Bench) -> None:
    """A commit that a cancel overrode is answered `cancelled` each time it is told."""
    held = await bench.start_job()
    await bench.cancel(held.job_id)
    assert await bench.commit(held) is State.cancelled
    assert await bench.commit(held) is State.cancelled


@promise
async def another_outcome_is_no_repeat(bench: Bench) -> None:
    """Once committed, the holder cannot change its mind."""
    held = await bench.start_job()
    await bench.commit(held, output='"x"')
    (answer,) = await bench.engine.commit([Commit(held.lease, Outcome("failed"))])
    as_(LeaseLost, answer)
    assert await bench.state(held.job_id) is State.succeeded


@promise
async def a_repeat_ends_with_the_next_lease(bench: Bench) -> None:
    """Once another attempt holds the job, the earlier holder's repeat is stale."""
    held = await bench.start_job()
    await bench.commit(held, "retry")
    await bench.lease_one()
    (answer,) = await bench.engine.commit([Commit(held.lease, Outcome("retry"))])
    as_(LeaseLost, answer)


@promise
async def a_repeated_cancel_changes_nothing(bench: Bench) -> None:
    """Cancelling again is answered with the job as it stands: time and reason of the first cancel stay."""
    held = await bench.start_job()
    first = await bench.cancel(held.job_id, "first")
    bench.clock.advance(1000)
    assert await bench.cancel(held.job_id, "second") == first
    assert (first.cancel_requested_at_ms, first.cancel_reason) == (bench.clock.now_ms() - 1000, "first")
