"""What a tenant that floods a queue does to another's waits; and what limits cost."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.cases.drain import fill_and_drain
from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, own
from benchmarks.table import Case, Column, Ratio, Sample

__all__ = ["FAIRNESS", "LIMITS"]

_DRIVER = "benchmarks.own.fairness"
_SLOTS, _WORK_S = 50, 0.05  # 1,000 jobs a second: the worker's core is not what they wait for
_LIMITED = {
    "noop": "no limits",
    "noop_limited": "at most 100,000 at once",
    "noop_rated": "a rate of 1,000,000,000 a second",
    "noop_keyed": "one at once of a key, and each job a key of its own",
}


async def _waits(run: Run) -> Sample:
    flood = run.settings.size(100_000, 5_000)
    result = await run.do("waits", flood=flood, samples=run.settings.size(400, 50), slots=_SLOTS, work_s=_WORK_S)
    sample: Sample = {"left": result["left"]}
    for when in ("idle", "flooded"):
        milliseconds = [wait * 1000 for wait in result[when]]
        sample[f"{when}_p50"], sample[f"{when}_p99"] = statistics.median(milliseconds), _p99(milliseconds)
    sample["ratio"] = sample["flooded_p99"] / sample["idle_p99"]
    return sample


def _p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def _fairness_subjects(settings: Settings) -> list[Subject]:
    apart = "two tenants, 50 slots, the flood's jobs take 5 to 95 ms"
    return [own(engine, driver=_DRIVER, settings=apart) for engine in settings.engines]


async def _cost(run: Run) -> Sample:
    count = run.settings.size(30_000, 1_500)
    result, server_s = await fill_and_drain(run, count)
    return {
        "rate": result["jobs"] / result["wall_s"],
        "worker_us": result["cpu_s"] / result["jobs"] * 1e6,
        "server_us": server_s / count * 1e6,
        "jobs": count,
    }


def _limit_subjects(settings: Settings) -> list[Subject]:
    return [
        own(engine, suffix=f", {task}", settings=about, task=task, slots=1000)
        for engine in settings.engines
        for task, about in _LIMITED.items()
    ]


FAIRNESS = Case(
    name="fairness",
    title="A small tenant beside one that floods",
    about="One tenant submits a job every 20 ms; its waits from submit to start on an idle system, and after another "
    "tenant has submitted 100,000 jobs of 5 to 95 ms to the same queue, so that all 50 slots are busy and one comes "
    "free about every ms. Client and worker in one process.",
    target="flooded p99 <= 2x idle p99",
    columns=(
        Column("idle_p50", "idle p50 ms", 2),
        Column("idle_p99", "idle p99 ms", 2),
        Column("flooded_p50", "flooded p50 ms", 2),
        Column("flooded_p99", "flooded p99 ms", 2),
        Column("ratio", "p99 flooded / idle", 2),
        Column("left", "of the flood still waiting"),
    ),
    subjects=_fairness_subjects,
    measure=_waits,
    deadline_s=180.0,
)

LIMITS = Case(
    name="limits",
    title="What limits cost",
    about="One worker process works off a backlog of jobs that do nothing and never have to wait for their limits.",
    target="a job without limits costs what it did",
    columns=(
        Column("rate", "jobs/s"),
        Column("worker_us", "worker CPU us/job", 1),
        Column("server_us", "server CPU us/job", 1),
        Column("jobs", "jobs"),
    ),
    ratios=tuple(
        Ratio("rate", f"x {engine} without", against=f"ropeway {engine}, noop")
        for engine in ("memory", "sqlite", "redis")
    ),
    subjects=_limit_subjects,
    measure=_cost,
)
