"""Finding: filters over a tenant's jobs, newest first, page by page."""

from __future__ import annotations

from typing import Any

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.job import JobOptions, JobQuery
from ropeway.domain.lifecycle import State
from ropeway.testing.bench import TENANT, Bench
from ropeway.testing.conformance.registry import promise

__all__: list[str] = []


@promise
async def jobs_are_found_newest_first(bench: Bench) -> None:
    """Found jobs stand in the reverse order of their submits, of one batch and millisecond too, as they are now."""
    await bench.submit(*(bench.new(f"job_{n}") for n in (3, 1, 2)))
    bench.clock.jump(-5000)
    await bench.add("job_0")
    page = await bench.engine.find(JobQuery(TENANT))
    assert [job.id for job in page.jobs] == ["job_0", "job_2", "job_1", "job_3"]
    assert page.next_cursor is None
    await bench.cancel("job_1")
    assert (await bench.engine.find(JobQuery(TENANT))).jobs[2] == await bench.job("job_1")


@promise
async def filters_narrow_together(bench: Bench) -> None:
    """State, queue, task and tag each narrow, and together; a filter that nothing meets finds nothing."""
    tagged = JobOptions(tags=("x", "y"))
    await bench.submit(
        bench.new("plain"),
        bench.new("drawn", task="draw"),
        bench.new("gpu", queue="gpu", options=tagged),
        bench.new("gpu-draw", queue="gpu", task="draw", options=JobOptions(tags=("y",))),
        bench.new("later", delay_ms=1000, options=tagged),
    )
    assert await _found(bench, task="draw") == ["gpu-draw", "drawn"]
    assert await _found(bench, queue="gpu") == ["gpu-draw", "gpu"]
    assert await _found(bench, tag="x") == ["later", "gpu"]
    assert await _found(bench, states=(State.scheduled,)) == ["later"]
    assert await _found(bench, states=(State.scheduled, State.queued), tag="y", queue="gpu") == ["gpu-draw", "gpu"]
    assert await _found(bench, queue="gpu", task="draw", tag="x") == []
    assert await _found(bench, tag="x%", task="_") == []


@promise
async def pages_join_without_gap_or_repeat(bench: Bench) -> None:
    """Page after page, of any size, gives every job once, and the last page says that it is the last."""
    expected = [job.id for job in await bench.submit(*(bench.new(task="odd" if n % 2 else "even") for n in range(9)))]
    expected.reverse()
    for limit in range(1, 11):
        assert await _pages(bench, limit) == expected
        assert await _pages(bench, limit, task="odd") == expected[1::2]


@promise
async def pages_stand_still_while_jobs_come_and_go(bench: Bench) -> None:
    """Jobs submitted or purged between two pages neither shift the next page nor show twice."""
    jobs = await bench.submit(*(bench.new() for _ in range(6)))
    first = await bench.engine.find(JobQuery(TENANT, limit=3))
    await bench.add("newer")
    await bench.cancel(jobs[1].id)
    await bench.cancel(jobs[3].id)
    await bench.engine.purge(TENANT, [jobs[1].id, jobs[3].id])
    second = await bench.engine.find(JobQuery(TENANT, limit=3, before=first.next_cursor))
    assert [job.id for job in second.jobs] == [jobs[2].id, jobs[0].id]
    assert second.next_cursor is None


@promise
async def a_foreign_page_cursor_is_refused(bench: Bench) -> None:
    """A cursor that no page gave raises InvalidRequest, naming the parameter."""
    await bench.add()
    for cursor in ("", "x", "-1", "1.5", "१", "9" * 60, "1 OR 1=1"):
        try:
            await bench.engine.find(JobQuery(TENANT, before=cursor))
        except InvalidRequest as error:
            assert error.param == "cursor", cursor
        else:
            raise AssertionError(f"cursor {cursor!r} was taken")


async def _found(bench: Bench, **filters: Any) -> list[str]:
    return [job.id for job in (await bench.engine.find(JobQuery(TENANT, **filters))).jobs]


async def _pages(bench: Bench, limit: int, **filters: Any) -> list[str]:
    """The ids of all pages, joined."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = await bench.engine.find(JobQuery(TENANT, limit=limit, before=cursor, **filters))
        assert len(page.jobs) <= limit
        ids += [job.id for job in page.jobs]
        cursor = page.next_cursor
        if cursor is None:
            return ids
