"""How long one job takes on an idle system, from submit to its start and to its result in the caller's hands."""

from __future__ import annotations

from typing import Any

from benchmarks.measure import quantile
from benchmarks.rivals import rows
from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, own, synced
from benchmarks.table import Case, Column, Ratio, Sample

__all__ = ["LATENCY"]

_PAUSE_S = 0.005  # long enough for everything to have gone idle again
_SLOW = " (defaults)"  # they poll: half a second for each
_APART = ("sqlite", "redis")


async def _measure(run: Run) -> Sample:
    if run.subject.spec.get("one_process"):
        return _sample(await run.do("ping", **_spec(run)))
    async with run.start("serve") as worker:
        await worker.ready()
        return _sample(await run.do("ping", **_spec(run)))


def _spec(run: Run) -> dict[str, Any]:
    slow = _SLOW in run.subject.name
    count = run.settings.size(20 if slow else 400, 3 if slow else 40)
    return {"count": count, "warm": count // 10, "pause_s": _PAUSE_S}


def _sample(result: Any) -> Sample:
    return {
        f"{what}_p{round(q * 100)}": quantile(result[f"{what}_ms"], q)
        for what in ("start", "result")
        for q in (0.5, 0.99)
    }


def _subjects(settings: Settings) -> list[Subject]:
    ours = [own(engine, settings="client and worker in one process", one_process=True) for engine in settings.engines]
    words = "client and worker apart"
    apart = [own(engine, suffix=", 2 processes", settings=words) for engine in settings.engines if engine in _APART]
    return [
        *ours,
        *apart,
        *synced(settings.engines, suffix=", 2 processes", settings=words),
        *rows(settings, "latency"),
    ]


LATENCY = Case(
    name="latency",
    title="Latency on an idle system",
    about="One job at a time: submit, wait for the result, pause 5 ms; `start` is the task's first line. Peers' "
    "workers have a process of their own.",
    target="to result p50 / p99 <= 0.8 / 3 ms on sqlite in one process, <= 1.0 / 3 ms on redis, below the best peer; "
    "to start p50 <= 0.4 ms",
    columns=(
        Column("start_p50", "to start p50 ms", 2),
        Column("start_p99", "to start p99 ms", 2),
        Column("result_p50", "to result p50 ms", 2),
        Column("result_p99", "to result p99 ms", 2),
    ),
    subjects=_subjects,
    measure=_measure,
    ratios=(
        Ratio("result_p50", "x best peer, p50", better="less"),
        Ratio("result_p99", "x best peer, p99", better="less"),
    ),
)
