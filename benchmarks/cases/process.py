"""What it costs to run a job in a process of its own."""

from __future__ import annotations

from benchmarks.measure import quantile
from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, own
from benchmarks.table import Case, Column, Sample

__all__ = ["PROCESS"]

_DRIVER = "benchmarks.own.isolated"


async def _measure(run: Run) -> Sample:
    size = run.settings.size
    result = await run.do("run", count=size(20_000, 1_000), pings=size(400, 40), words=size(200_000, 5_000))
    return {
        "wall_us": result["wall_s"] / result["jobs"] * 1e6,
        "worker_us": result["worker_s"] / result["jobs"] * 1e6,
        "child_us": result["child_s"] / result["jobs"] * 1e6,
        "p50": quantile(result["waits_ms"], 0.5),
        "p99": quantile(result["waits_ms"], 0.99),
        "words": result["words_per_s"],
        "up_s": result["up_s"],
    }


def _subjects(settings: Settings) -> list[Subject]:
    return [
        own(engine, driver=_DRIVER, suffix=f", {where}", settings=f"one {what}", run=where)
        for engine in settings.engines
        for where, what in (("thread", "thread"), ("process", "child"))
    ]


PROCESS = Case(
    name="process",
    title="A job on a thread, and in a warm child",
    about="A function that does nothing, on one thread of the worker and in one child: a backlog; one at a time, from "
    "submit to result; and a generator's words, a job of them. Client and worker in one process. `up` is the worker's "
    "start, with the child's where it has one.",
    target="less than 150 us more a job",
    columns=(
        Column("wall_us", "us/job"),
        Column("worker_us", "worker CPU us/job"),
        Column("child_us", "child CPU us/job"),
        Column("p50", "to result p50 ms", 2),
        Column("p99", "to result p99 ms", 2),
        Column("words", "words/s"),
        Column("up_s", "up after s", 2),
    ),
    subjects=_subjects,
    measure=_measure,
)
