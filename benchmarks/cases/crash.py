"""How soon the jobs of a killed worker run again."""

from __future__ import annotations

import os
import signal
import time

from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, own
from benchmarks.table import Case, Column, Sample

__all__ = ["CRASH"]

_JOBS = 100
_SLEEP_S = 3.0


async def _measure(run: Run) -> Sample:
    await run.do("submit", mode="bulk", count=_JOBS, task="sleep", args=[_SLEEP_S])
    async with run.start("drain", count=_JOBS, slots=_JOBS) as victim:
        await victim.said("all run")
        os.kill(victim.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        result = await run.do("drain", count=_JOBS, slots=_JOBS)
    assert result["stored"] == _JOBS, f"{result['stored']} of {_JOBS} jobs have a result"
    return {"back_s": time.monotonic() - killed_at - _SLEEP_S, "stored": result["stored"]}


def _subjects(settings: Settings) -> list[Subject]:
    return [own(engine, settings="defaults, no supervisor") for engine in settings.engines if engine != "memory"]


CRASH = Case(
    name="crash",
    title="kill -9 of a worker that runs 100 jobs",
    about="A second worker starts as the first dies. The time from the kill until all of its jobs have a result, less "
    "the 3 s that they take. There is no supervisor process here, which would see the death at once: the dead worker's "
    "session has to expire.",
    target="run elsewhere within 10 s, none lost",
    columns=(Column("back_s", "back after s", 1), Column("stored", "results of 100")),
    subjects=_subjects,
    measure=_measure,
)
