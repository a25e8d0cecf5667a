"""How many jobs one worker process has in flight at once: coroutines that sleep, and threads that block."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.cases.drain import fill_and_drain
from benchmarks.rivals import rows
from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, own
from benchmarks.table import Case, Column, Ratio, Sample

__all__ = ["SLEEPERS", "THREADS"]


async def _measure(run: Run) -> Sample:
    count, seconds = run.subject.spec["slots"], run.subject.spec["seconds"]
    result, server_s = await fill_and_drain(run, count, task=run.subject.spec["task"], args=[seconds])
    return {
        "whole_s": result["whole_s"],
        "peak": result["peak"],
        "peak_mib": result["peak_kib"] / 1024,
        "each_kib": (result["peak_kib"] - result["base_kib"]) / count,
        "worker_us": result["cpu_s"] / result["jobs"] * 1e6,
        "server_us": server_s / count * 1e6,
    }


def _sleepers(settings: Settings) -> list[Subject]:
    counts = (settings.size(4_000, 400), settings.size(20_000, 2_000))
    ours = [
        own(engine, suffix=f", {count:,}", settings=f"{count:,} slots", task="sleep", seconds=1.0, slots=count)
        for count in counts
        for engine in settings.engines
    ]
    return [*ours, *_sized(rows(settings, "sleepers", f", {counts[0]:,}"), counts[0])]


def _blockers(settings: Settings) -> list[Subject]:
    count = settings.size(4_000, 400)
    spec: dict[str, Any] = {"task": "block", "seconds": 1.0 if settings.quick else 3.5, "slots": count}
    ours = [own(engine, settings=f"{count:,} threads", **spec) for engine in settings.engines]
    return [*ours, *_sized(rows(settings, "blockers"), count)]


def _sized(theirs: list[Subject], count: int) -> list[Subject]:
    """Fewer jobs in a quick run."""
    return [
        replace(
            subject, spec={**subject.spec, "slots": count}, settings=subject.settings.replace("4,000", f"{count:,}")
        )
        for subject in theirs
    ]


_COLUMNS = (
    Column("whole_s", "all done after s", 2),
    Column("peak", "in flight at once"),
    Column("peak_mib", "peak MiB"),
    Column("each_kib", "KiB a job in flight", 1),
    Column("worker_us", "worker CPU us/job"),
    Column("server_us", "server CPU us/job"),
)

SLEEPERS = Case(
    name="sleepers",
    title="4,000 and 20,000 jobs that sleep for 1 s, one worker process",
    about="The jobs wait; the clock runs from the worker's start (its imports done) until every result is stored. "
    "RQ, Dramatiq, Celery, BullMQ and pydocket are left out: one job at a time, or threads, or a minute.",
    target="4,000 in <= 1.4 s and <= 90 MiB; 20,000 in <= 3 s",
    columns=_COLUMNS,
    subjects=_sleepers,
    measure=_measure,
    ratios=(Ratio("whole_s", "x best peer", better="less"),),
)

THREADS = Case(
    name="threads",
    title="4,000 jobs that block a thread for 3.5 s, one worker process",
    about="As above, with `time.sleep` in plain functions. `KiB a job in flight` is what the process grew by, each.",
    target="all 4,000 at once; <= 32 KiB of resident memory a thread",
    columns=_COLUMNS,
    subjects=_blockers,
    measure=_measure,
    ratios=(Ratio("whole_s", "x best peer", better="less"),),
)
