"""What a waiting job takes."""

from __future__ import annotations

from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, own, peer
from benchmarks.table import Case, Column, Sample

__all__ = ["MEMORY"]

_SIZES = {"own": (100_000, 5_000), "peer": (10_000, 1_000)}


async def _measure(run: Run) -> Sample:
    count = run.settings.size(*_SIZES[run.subject.group])
    before = 0 if run.store is None else await run.store.memory_bytes()
    result = await run.do("submit", mode="bulk", count=count)
    if run.store is not None:
        return {"memory": (await run.store.memory_bytes() - before) / count, "jobs": count}
    if run.subject.engine == "memory":
        return {"memory": result["grown_kib"] * 1024 / count, "jobs": count}
    files = sum(path.stat().st_size for path in run.folder.glob("bench.db*"))
    return {"disk": files / count, "jobs": count}


def _subjects(settings: Settings) -> list[Subject]:
    return [*(own(engine) for engine in settings.engines), *(peer(name) for name in settings.peers)]


MEMORY = Case(
    name="memory",
    title="What a waiting job takes",
    about="Jobs with a payload of some 10 bytes, submitted and left to wait. Memory is what the engine's process grew "
    "by (on a server: what that counts); disk is the database with its log.",
    target="<= 700 bytes a waiting job beyond its payload on redis",
    columns=(Column("memory", "bytes of memory/job"), Column("disk", "bytes of disk/job"), Column("jobs", "jobs")),
    subjects=_subjects,
    measure=_measure,
)
