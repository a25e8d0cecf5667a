"""Reading a log: from every cursor, in pages of every size, and from cursors that are not of this store."""

from __future__ import annotations

import json

from ropeway.domain.event import START, Cursor, Event
from ropeway.domain.job import JobOptions
from ropeway.domain.log import LogQuery
from ropeway.testing.bench import TENANT, Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []

DELTA = "output.delta"


@promise
async def every_cursor_resumes_exactly(bench: Bench) -> None:
    """From any event's id, with any page size, a reader gets the events after it: none missing, none twice.

    For a running job, one between attempts, one rescued and one ended, whose output is whole wherever its end is.
    """
    held = await _eventful(bench)
    await _assert_resumable(bench, held)
    for end in ("release", "retry", "succeeded"):
        leased = await bench.lease_one()
        await bench.append(leased, leased.next_seq, (DELTA, '"again"'))
        await _assert_resumable(bench, held)
        await bench.commit(leased, end, output='"whole"' if end == "succeeded" else None)
        await _assert_resumable(bench, held)
    assert json.loads((await bench.log(held))[-1].data) == {"output": "whole"}


@promise
async def a_page_tells_when_all_is_read(bench: Bench) -> None:
    """`ended` is True on the page that holds the terminal event and on those after it, and on no other."""
    held = await bench.start_job()
    await bench.append(held, 1, (DELTA, "1"))
    live = await bench.engine.read(TENANT, held.job_id, START, 100)
    assert live is not None
    assert not live.ended
    await bench.commit(held)
    events = await bench.log(held.job_id)
    for limit in range(1, 6):
        for n, cursor in enumerate([START, *(event.cursor for event in events)]):
            page = await bench.engine.read(TENANT, held.job_id, cursor, limit)
            assert page is not None
            assert page.ended == (n + limit >= len(events)), (cursor, limit)


@promise
async def the_end_of_a_live_log_is_an_empty_page(bench: Bench) -> None:
    """A reader that has it all gets nothing, and is not told that it is over."""
    held = await bench.start_job()
    last = (await bench.log(held.job_id))[-1].cursor
    page = await bench.engine.read(TENANT, held.job_id, last, 10)
    assert page is not None
    assert (page.events, page.ended) == ((), False)


@promise
async def a_cursor_beyond_the_log_gets_a_snapshot(bench: Bench) -> None:
    """A cursor that this store never gave out, ahead of its log, is answered with the job as it stands."""
    held = await bench.start_job()
    epoch = held.lease.epoch
    job = await bench.job(held.job_id)
    for cursor in (Cursor(epoch, 1), Cursor(epoch + 1, 0), Cursor(10**30, 10**8)):
        page = await bench.engine.read(TENANT, held.job_id, cursor, 10)
        assert page is not None
        (event,) = page.events
        assert (event.type, event.cursor, event.attempt) == ("snapshot", job.last_cursor, 1)
        assert json.loads(event.data)["state"] == "running"
        assert not page.ended


@promise
async def a_snapshot_of_an_ended_job_ends(bench: Bench) -> None:
    """A snapshot of a job that has ended tells its state and output, and that nothing more will come."""
    held = await bench.start_job()
    await bench.commit(held, output='"out"')
    page = await bench.engine.read(TENANT, held.job_id, Cursor(held.lease.epoch + 5, 0), 10)
    assert page is not None
    (event,) = page.events
    assert json.loads(event.data) == {"state": "succeeded", "attempt": 1, "output": "out"}
    assert page.ended


@promise
async def a_job_that_is_not_there_has_no_log(bench: Bench) -> None:
    """Reading an unknown or purged job gives None, which is not an empty page."""
    job = await bench.finish()
    await bench.engine.purge(TENANT, [job.id])
    assert await bench.engine.read(TENANT, job.id, START, 10) is None
    assert await bench.engine.read(TENANT, "absent", START, 10) is None


@promise
async def many_logs_are_read_as_each_alone(bench: Bench) -> None:
    """`read_many` answers in place as `read` does: from any cursor, twice when asked twice, None for what is not there.

    A log longer than its page, a snapshot, an ended job and another tenant's job are among them.
    """
    eventful = await _eventful(bench)
    ended = await bench.finish()
    others = await bench.submit(bench.new(tenant="other"))
    cursors = [START, *(event.cursor for event in await bench.log(eventful)), Cursor(10**30, 10**8)]
    queries = [LogQuery(TENANT, eventful, cursor, limit) for cursor in cursors for limit in (1, 3, 100)]
    queries += [LogQuery(TENANT, id_, START, 9) for id_ in (ended.id, "absent", others[0].id, ended.id)]
    queries.append(LogQuery("other", others[0].id, START, 9))
    alone = [await bench.engine.read(*query) for query in queries]
    assert await bench.engine.read_many(queries) == alone
    assert [page is None for page in alone[-5:]] == [False, True, True, False, False]
    assert await bench.engine.read_many([]) == []


@promise
async def jobs_come_back_in_the_order_asked(bench: Bench) -> None:
    """`get` answers in place, None for what is not there, and a job twice when asked twice."""
    jobs = await bench.submit(*(bench.new() for _ in range(3)))
    ids = [jobs[2].id, "absent", jobs[0].id, jobs[2].id]
    assert await bench.engine.get(TENANT, ids) == [jobs[2], None, jobs[0], jobs[2]]


async def _eventful(bench: Bench) -> str:
    """A queued job with a retried, a released and a lost attempt behind it."""
    held = await bench.start_job(options=JobOptions(max_crashes=9))
    await bench.append(held, 1, (DELTA, '"a"'), (DELTA, '"b"'))
    await bench.commit(held, "retry", error='{"code":"x","message":"y"}')
    held = await bench.lease_one()
    await bench.commit(held, "release")
    held = await bench.lease_one()
    await bench.append(held, held.next_seq, ("progress", "1"))
    await bench.expire()
    return held.job_id


async def _assert_resumable(bench: Bench, job_id: str) -> None:
    whole = await bench.log(job_id)
    assert [event.cursor for event in whole] == sorted({event.cursor for event in whole})
    for start, cursor in enumerate([START, *(event.cursor for event in whole)]):
        for limit in range(1, len(whole) + 2):
            assert await bench.log(job_id, cursor, limit) == whole[start : start + limit], (cursor, limit)
    assert await _followed(bench, job_id, 2) == whole


async def _followed(bench: Bench, job_id: str, limit: int) -> list[Event]:
    """The whole log, read page by page."""
    events: list[Event] = []
    cursor = START
    while page := await bench.log(job_id, cursor, limit):
        events += page
        cursor = page[-1].cursor
    return events
