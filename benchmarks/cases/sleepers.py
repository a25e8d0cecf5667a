"""How many jobs one worker process has in flight at once: coroutines that sleep, and threads that block."""

from __future__ import annotations

from typing import Any

from benchmarks.cases.drain import fill_and_drain
from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, own, peer
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
    found = [
        own(engine, suffix=f", {count:,}", settings=f"{count:,} slots", task="sleep", seconds=1.0, slots=count)
        for count in counts
        for engine in settings.engines
    ]
    if "arq" in settings.peers:
        words = f"max_jobs {counts[0]:,}, polls every 10 ms"
        spec: dict[str, Any] = {"task": "sleep", "seconds": 1.0, "slots": counts[0], "poll_s": 0.01}
        found.append(peer("arq", suffix=f", {counts[0]:,}", settings=words, **spec))
    if "saq" in settings.peers:
        spec = {"task": "sleep", "seconds": 1.0, "slots": counts[0]}
        found.append(peer("saq", suffix=f", {counts[0]:,}", settings=f"concurrency {counts[0]:,}", **spec))
    if "huey" in settings.peers:
        spec = {"task": "block", "seconds": 1.0, "slots": counts[0]}
        found.append(peer("huey", suffix=f", {counts[0]:,}", settings=f"{counts[0]:,} threads", **spec))
    return found


def _blockers(settings: Settings) -> list[Subject]:
    count = settings.size(4_000, 400)
    seconds = 1.0 if settings.quick else 3.5
    spec: dict[str, Any] = {"task": "block", "seconds": seconds, "slots": count}
    words = f"{count:,} threads"
    found = [own(engine, settings=words, **spec) for engine in settings.engines]
    return [*found, *(peer(name, settings=words, **spec) for name in settings.peers if name == "huey")]


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
    "RQ runs one job at a time and is left out.",
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
