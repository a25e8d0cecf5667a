"""How fast one worker process works off a backlog of jobs that do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, own, peer
from benchmarks.table import Case, Column, Ratio, Sample

__all__ = ["DRAIN", "DRAIN_THREADS", "fill_and_drain"]

_SIZES = {
    "ropeway": (100_000, 5_000),
    "huey": (10_000, 1_000),
    "arq": (6_000, 600),
    "saq": (6_000, 600),
    "rq": (2_000, 200),
}
_PEERS: dict[str, tuple[tuple[str, str, dict[str, Any]], ...]] = {
    "huey": (("", "1 thread", {"slots": 1}), (", 4 threads", "4 threads", {"slots": 4})),
    "arq": (("", "max_jobs 100, polls every 10 ms", {"slots": 100, "poll_s": 0.01}),),
    "saq": (("", "concurrency 100", {"slots": 100}),),
    "rq": (("", "SimpleWorker", {}),),
}


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
    count = run.settings.size(*_SIZES[run.subject.environment or "ropeway"])
    result, server_s = await fill_and_drain(run, count)
    return {
        "rate": result["jobs"] / result["wall_s"],
        "worker_us": result["cpu_s"] / result["jobs"] * 1e6,
        "server_us": server_s / count * 1e6,
        "peak_mib": result["peak_kib"] / 1024,
        "jobs": count,
    }


def _peers(settings: Settings) -> list[Subject]:
    return [
        peer(name, suffix=suffix, settings=words, **spec)
        for name in settings.peers
        for suffix, words, spec in _PEERS[name]
    ]


def _subjects(settings: Settings) -> list[Subject]:
    return [
        *(own(engine, settings="1,000 slots", task="noop", slots=1000) for engine in settings.engines),
        *_peers(settings),
    ]


def _thread_subjects(settings: Settings) -> list[Subject]:
    ours = (own(engine, settings="16 threads", task="noop_sync", slots=16) for engine in settings.engines)
    return [*ours, *_peers(settings)]


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

DRAIN = Case(
    name="drain",
    title="Drain: async jobs that do nothing, one worker process, results stored",
    about=_ABOUT.format(kind="async no-op", more="huey and RQ have no async tasks: theirs are plain functions."),
    target="sqlite >= 20,000/s; worker <= 40 us of CPU a job",
    columns=_COLUMNS,
    subjects=_subjects,
    measure=_measure,
    ratios=(Ratio("rate", "x best peer"), Ratio("worker_us", "x less worker CPU", better="less")),
)

DRAIN_THREADS = Case(
    name="drain-threads",
    title="Drain: blocking functions that do nothing, on threads, one worker process, results stored",
    about=_ABOUT.format(kind="sync no-op", more="arq has only coroutines, and RQ one job at a time."),
    target=">= 5x the best peer",
    columns=_COLUMNS,
    subjects=_thread_subjects,
    measure=_measure,
    ratios=(Ratio("rate", "x best peer"), Ratio("worker_us", "x less worker CPU", better="less")),
)
