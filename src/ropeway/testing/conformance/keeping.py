"""What attempts made is kept: by ends that no attempt commits, and for the next attempt of a resumable job."""

from __future__ import annotations

import json

from ropeway.domain.job import JobOptions
from ropeway.domain.lease import Assignment
from ropeway.domain.lifecycle import State
from ropeway.testing.bench import Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []

DELTA = "output.delta"
RESUMABLE = JobOptions(resumable=True, max_crashes=2)


def delta(index: int, item: object) -> tuple[str, str]:
    return DELTA, json.dumps({"index": index, "delta": item}, ensure_ascii=False)


async def made(bench: Bench, held: Assignment, *items: object) -> None:
    """Append these items of output, after a line of log."""
    drafts = [delta(index, item) for index, item in enumerate(items)]
    await bench.append(held, held.next_seq, ("log", '{"message":"here"}'), *drafts)


@promise
async def a_lost_worker_leaves_its_output(bench: Bench) -> None:
    """A job that ends because its worker is gone offers what the worker had appended; so does its last event."""
    text = await bench.start_job(options=JobOptions(max_crashes=1))
    await made(bench, text, "ja — ", '"日本" ', "\\ 🚠")
    items = await bench.start_job(options=JobOptions(max_crashes=1))
    await made(bench, items, "a", {"n": 1.50}, None)
    silent = await bench.start_job(options=JobOptions(max_crashes=1))
    assert await bench.expire() == 3
    rows = [await bench.job(held.job_id) for held in (text, items, silent)]
    assert [row.state for row in rows] == [State.failed] * 3
    assert [None if row.output is None else json.loads(row.output) for row in rows] == [
        'ja — "日本" \\ 🚠',
        ["a", {"n": 1.5}, None],
        None,
    ]
    last = (await bench.log(text.job_id))[-1]
    assert json.loads(last.data)["output"] == 'ja — "日本" \\ 🚠'


@promise
async def a_lost_worker_of_a_cancelled_job_leaves_its_output(bench: Bench) -> None:
    """A job that was asked to stop, and whose worker died before it did, is cancelled with what was appended."""
    held = await bench.start_job()
    await made(bench, held, "half")
    await bench.cancel(held.job_id)
    await bench.engine.close("s1")
    job = await bench.job(held.job_id)
    assert (job.state, job.output) == (State.cancelled, '"half"')


@promise
async def a_job_cancelled_between_attempts_keeps_its_output(bench: Bench) -> None:
    """A waiting job that is cancelled offers what its last attempt made; one that never ran has nothing."""
    held = await bench.start_job()
    await made(bench, held, "half")
    await bench.commit(held, "retry", delay_ms=700)
    cancelled = await bench.cancel(held.job_id)
    assert (cancelled.state, cancelled.output) == (State.cancelled, '"half"')
    assert (await bench.job(held.job_id)).output == '"half"'
    fresh = await bench.add()
    assert (await bench.cancel(fresh.id)).output is None


@promise
async def what_an_attempt_before_made_is_not_output(bench: Bench) -> None:
    """Each attempt begins from nothing: of a job that is not resumable the last attempt's output alone is kept."""
    held = await bench.start_job(options=JobOptions(max_crashes=2))
    await made(bench, held, "first")
    await bench.expire()
    again = await bench.lease_one()
    await made(bench, again, "second")
    await bench.expire()
    assert (await bench.job(held.job_id)).output == '"second"'


@promise
async def a_resumable_job_keeps_all_its_output(bench: Bench) -> None:
    """The next attempt of a resumable job goes on: no event tells readers to discard what they have."""
    held = await bench.start_job(options=RESUMABLE)
    await made(bench, held, "one ")
    await bench.expire()
    again = await bench.lease_one()
    assert again.options.resumable
    await made(bench, again, "two")
    await bench.expire()
    assert (await bench.job(held.job_id)).output == '"one two"'
    types = await bench.log_types(held.job_id)
    assert types == [
        "job.queued",
        *("job.started", "log", DELTA, "job.retrying"),
        *("job.started", "output.resumed", "log", DELTA, "job.failed"),
    ]


@promise
async def a_page_of_a_resumable_log_is_as_any(bench: Bench) -> None:
    """Each event of a resumed attempt is read from every cursor before it, stored or told by the row."""
    held = await bench.start_job(options=RESUMABLE)
    await made(bench, held, "one ")
    await bench.commit(held, "retry")
    await made(bench, await bench.lease_one(), "two")
    whole = await bench.log(held.job_id)
    for place, event in enumerate(whole):
        assert await bench.log(held.job_id, event.cursor) == whole[place + 1 :]


@promise
async def a_long_output_is_kept_whole(bench: Bench) -> None:
    """However many events it is in."""
    held = await bench.start_job(options=JobOptions(max_crashes=1))
    for start in range(0, 2500, 500):
        drafts = [delta(n, n) for n in range(start, start + 500)]
        await bench.append(held, held.next_seq + start, *drafts)
    await bench.expire()
    assert json.loads((await bench.job(held.job_id)).output or "null") == list(range(2500))
