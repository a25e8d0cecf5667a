"""How fast one worker process, and two, work off a backlog of jobs that do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.cases.together import drain_together
from benchmarks.rivals import RIVALS, rows
from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, own, synced
from benchmarks.table import Case, Column, Ratio, Sample

__all__ = ["DRAIN", "DRAIN_THREADS", "DRAIN_TWO", "fill_and_drain"]

_OWN_JOBS = 100_000
_QUICK = 20  # a quick run has so many times fewer jobs
_OWN = "1,000 slots"


async def fill_and_drain(run: Run, count: int, **task: Any) -> tuple[Mapping[str, Any], float]:
    """Submit `count` jobs and have one worker process run them: its result, and the server's CPU seconds.

    An engine in memory is filled by the worker's own process: there is no other way.
    """
    if run.subject.engine != "memory":
        await run.do("submit", mode="bulk", count=count, **task)
    before = await run.store_cpu_s()
    result = await run.do("drain", count=count, **task)
    assert result["stored"] == count, f"{count} jobs were submitted, {result['stored']} have a result"
    return result, await run.store_cpu_s() - before


async def _measure(run: Run) -> Sample:
    count = _count(run)
    result, server_s = await fill_and_drain(run, count)
    return {
        "rate": result["jobs"] / result["wall_s"],
        "worker_us": result["cpu_s"] / result["jobs"] * 1e6,
        "server_us": server_s / count * 1e6,
        "peak_mib": result["peak_kib"] / 1024,
        "jobs": count,
    }


async def _measure_two(run: Run) -> Sample:
    count = _count(run)
    await run.do("submit", mode="bulk", count=count)
    before = await run.store_cpu_s()
    result = await drain_together(run, count, workers=2)
    return {
        "rate": result.jobs / result.wall_s,
        "worker_us": result.cpu_s / result.jobs * 1e6,
        "server_us": (await run.store_cpu_s() - before) / count * 1e6,
        "jobs": count,
        "ran": result.ran,
    }


def _count(run: Run) -> int:
    name = run.subject.environment
    full = _OWN_JOBS if name is None else run.subject.spec.get("jobs", RIVALS[name].jobs)
    return run.settings.size(full, max(100, full // _QUICK))


def _subjects(settings: Settings) -> list[Subject]:
    return [
        *(own(engine, settings=_OWN, task="noop", slots=1000) for engine in settings.engines),
        *synced(settings.engines, settings=_OWN, task="noop", slots=1000),
        *rows(settings, "drain"),
    ]


def _two_subjects(settings: Settings) -> list[Subject]:
    ours = [own(engine, settings=_OWN, task="noop", slots=1000) for engine in settings.engines if engine != "memory"]
    return [*ours, *(row for row in rows(settings, "drain") if "defaults" not in row.name)]


def _thread_subjects(settings: Settings) -> list[Subject]:
    ours = (own(engine, settings="16 threads", task="noop_sync", slots=16) for engine in settings.engines)
    return [*ours, *rows(settings, "threads")]


_COLUMNS = (
    Column("rate", "jobs/s"),
    Column("worker_us", "worker CPU us/job", 1),
    Column("server_us", "server CPU us/job", 1),
    Column("peak_mib", "peak MiB"),
    Column("jobs", "jobs"),
)
_ABOUT = (
    "A backlog of {kind} jobs, then one worker process. The first 5 % warm up and are not counted; "
    "the clock stops when every result is stored. {more}"
)
_RATIOS = (
    Ratio("rate", "x best peer"),
    Ratio("worker_us", "x less worker CPU", better="less"),
    Ratio("server_us", "x less server CPU", better="less"),
)

DRAIN = Case(
    name="drain",
    title="Drain: async jobs that do nothing, one worker process, results stored",
    about=_ABOUT.format(
        kind="async no-op", more="huey, RQ, Dramatiq and Celery have no async tasks: theirs are plain functions."
    ),
    target="redis >= 10x the best peer, worker <= 40 and server <= 30 us of CPU a job; sqlite >= 20,000/s",
    columns=_COLUMNS,
    subjects=_subjects,
    measure=_measure,
    ratios=_RATIOS,
)

DRAIN_TWO = Case(
    name="drain-2",
    title="Drain: the same by two worker processes on one store",
    about="As above; the two begin together, the 5 % of warm-up are of both, and CPU is theirs together.",
    target="more than one process does, and no job twice",
    columns=(*(column for column in _COLUMNS if column.key != "peak_mib"), Column("ran", "jobs run")),
    subjects=_two_subjects,
    measure=_measure_two,
    ratios=_RATIOS,
)

DRAIN_THREADS = Case(
    name="drain-threads",
    title="Drain: blocking functions that do nothing, on threads, one worker process, results stored",
    about=_ABOUT.format(
        kind="sync no-op", more="arq, BullMQ and pydocket run coroutines alone, and RQ one job at a time."
    ),
    target=">= 5x the best peer",
    columns=_COLUMNS,
    subjects=_thread_subjects,
    measure=_measure,
    ratios=_RATIOS,
)
