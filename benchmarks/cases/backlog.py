"""What a deep backlog does to the cost of submit and lease."""

from __future__ import annotations

from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, own
from benchmarks.table import Case, Column, Sample

__all__ = ["BACKLOG"]

_DRIVER = "benchmarks.own.backlog"


async def _measure(run: Run) -> Sample:
    deep = run.settings.size(1_000_000, 20_000)
    result = await run.do("cost", shallow=1_000, deep=deep, rounds=run.settings.size(200, 20))
    files = sum(path.stat().st_size for path in run.folder.glob("bench.db*"))
    sample: Sample = {"grown": result["grown"] / deep}
    if files:
        sample["disk"] = files / deep
    for what in ("submit", "lease"):
        shallow, full = result["shallow"][what], result["deep"][what]
        sample |= {f"{what}_shallow": shallow, f"{what}_deep": full, f"{what}_ratio": full / shallow}
    if run.store is not None:
        sample["server_submit"] = result["deep"]["server_submit"]
        sample["server_lease"] = result["deep"]["server_lease"]
    return sample


def _subjects(settings: Settings) -> list[Subject]:
    return [own(engine, driver=_DRIVER, settings="the engine alone, batches of 100") for engine in settings.engines]


BACKLOG = Case(
    name="backlog",
    title="A backlog of 1,000 and of 1,000,000",
    about="Rounds of submit 100, lease 100, commit 100 beside a backlog of 1,000 jobs, then of 1,000,000: CPU us of a "
    "job in submit and in lease, of the process and its server together. Memory is what the process, or the server's "
    "data, grew by while the backlog did; disk is the database. A job's payload is 14 bytes.",
    target="both costs grow <= 1.2x; <= 700 bytes a job beyond its payload on redis",
    columns=(
        Column("submit_shallow", "submit us, 1,000", 1),
        Column("submit_deep", "submit us, 1,000,000", 1),
        Column("submit_ratio", "ratio", 2),
        Column("lease_shallow", "lease us, 1,000", 1),
        Column("lease_deep", "lease us, 1,000,000", 1),
        Column("lease_ratio", "ratio", 2),
        Column("server_submit", "of it server, submit", 1),
        Column("server_lease", "of it server, lease", 1),
        Column("grown", "bytes of memory/job"),
        Column("disk", "bytes of disk/job"),
    ),
    subjects=_subjects,
    measure=_measure,
    deadline_s=300.0,
)
