"""A million requests of the pipeline example, in their async form."""

from __future__ import annotations

from benchmarks.cases.drain import fill_and_drain
from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, own
from benchmarks.table import Case, Column, Sample

__all__ = ["PIPELINE"]

_SLOTS = (30_000, 2_000)


async def _measure(run: Run) -> Sample:
    count = run.settings.size(1_000_000, 4_000)
    result, _ = await fill_and_drain(run, count, task="request")
    return {
        "minutes": result["whole_s"] / 60,
        "rate": count / result["whole_s"],
        "peak": result["peak"],
        "peak_mib": result["peak_kib"] / 1024,
        "worker_us": result["cpu_s"] / result["jobs"] * 1e6,
    }


def _subjects(settings: Settings) -> list[Subject]:
    slots = settings.size(*_SLOTS)
    return [own(engine, settings=f"{slots:,} slots", slots=slots) for engine in settings.engines]


PIPELINE = Case(
    name="pipeline",
    title="1,000,000 requests of 3.5 s each, one worker process",
    about="Each request sleeps 2.5 s and 1 s side by side, then 1 s, as coroutines. They wait in the queue; the clock "
    "runs from the worker's start until every result is stored.",
    target="< 4 minutes on 2 cores (threads took 14.5)",
    columns=(
        Column("minutes", "minutes", 2),
        Column("rate", "requests/s"),
        Column("peak", "in flight at once"),
        Column("peak_mib", "peak MiB"),
        Column("worker_us", "worker CPU us/request", 1),
    ),
    subjects=_subjects,
    measure=_measure,
    deadline_s=540.0,
    long=True,
)
