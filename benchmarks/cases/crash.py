"""How soon the jobs of a killed worker run again."""

from __future__ import annotations

import os
import signal
import time

from benchmarks.rivals import rows
from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, own
from benchmarks.table import Case, Column, Sample

__all__ = ["CRASH"]

_JOBS = 100
_SLEEP_S = 3.0


async def _measure(run: Run) -> Sample:
    await run.do("submit", mode="bulk", count=_JOBS, args=[_SLEEP_S])
    async with run.start("drain", count=_JOBS) as victim:
        await victim.said("all run")
        os.kill(victim.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        result = await run.do("drain", count=_JOBS)
    assert result["stored"] == _JOBS, f"{result['stored']} of {_JOBS} jobs have a result"
    return {"back_s": time.monotonic() - killed_at - _SLEEP_S, "stored": result["stored"]}


def _subjects(settings: Settings) -> list[Subject]:
    ours = [
        own(engine, settings="defaults, no supervisor", task="sleep", slots=_JOBS)
        for engine in settings.engines
        if engine != "memory"
    ]
    return [*ours, *(rows(settings, "crash") if settings.long else [])]


CRASH = Case(
    name="crash",
    title="kill -9 of a worker that runs 100 jobs",
    about="A second worker starts as the first dies. The time from the kill until all of its jobs have a result, less "
    "the 3 s that they take. There is no supervisor process here, which would see the death at once: the dead worker's "
    "session has to expire. Peers, whose recovery is as they set it by default, are run with --long, and given 120 s.",
    target="run elsewhere within 10 s, none lost",
    columns=(Column("back_s", "back after s", 1), Column("stored", "results of 100")),
    subjects=_subjects,
    measure=_measure,
    deadline_s=130.0,
)
