"""How fast jobs are accepted: in bulk, and one by one."""

from __future__ import annotations

from benchmarks.rivals import RIVALS
from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, own, peer, synced
from benchmarks.table import Case, Column, Ratio, Sample

__all__ = ["SUBMIT_BULK", "SUBMIT_ONE"]

_COLUMNS = (
    Column("rate", "jobs/s"),
    Column("producer_us", "producer CPU us/job", 1),
    Column("server_us", "server CPU us/job", 1),
    Column("jobs", "jobs"),
)
_ASYNC = "|".join(rival.name for rival in RIVALS.values() if rival.kind == "async")
_BULK_SIZES = {"own": (100_000, 5_000), "peer": (5_000, 1_000)}
_ONE_SIZES = {"own": (20_000, 1_000), "peer": (5_000, 500)}


async def _bulk(run: Run) -> Sample:
    return await _submit(run, "bulk", run.settings.size(*_BULK_SIZES[run.subject.group]))


async def _one(run: Run) -> Sample:
    return await _submit(run, "one", run.settings.size(*_ONE_SIZES[run.subject.group]))


async def _submit(run: Run, mode: str, count: int) -> Sample:
    before = await run.store_cpu_s()
    result = await run.do("submit", mode=mode, count=count)
    server_s = await run.store_cpu_s() - before
    return {
        "rate": count / result["wall_s"],
        "producer_us": result["cpu_s"] / count * 1e6,
        "server_us": server_s / count * 1e6,
        "jobs": count,
    }


def _bulk_subjects(settings: Settings) -> list[Subject]:
    words = "Client.submit_many, 512 a call"
    ours = [own(engine, settings=words) for engine in settings.engines]
    theirs = [peer(name, settings=RIVALS[name].bulk) for name in settings.peers]
    return [*ours, *synced(settings.engines, settings=words), *theirs]


def _one_subjects(settings: Settings) -> list[Subject]:
    ours = [own(engine, settings="async client") for engine in settings.engines]
    blocking = [own(engine, suffix=", sync client", settings="sync", sync=True) for engine in settings.engines]
    return [*ours, *blocking, *(peer(name, settings=RIVALS[name].kind) for name in settings.peers)]


SUBMIT_BULK = Case(
    name="submit-bulk",
    title="Submit in bulk",
    about="One producer process submits no-op jobs by the library's own bulk call; no worker runs.",
    target=">= 60,000/s",
    columns=_COLUMNS,
    subjects=_bulk_subjects,
    measure=_bulk,
    ratios=(Ratio("rate", "x best peer"),),
)

SUBMIT_ONE = Case(
    name="submit-one",
    title="Submit one by one",
    about="One producer process submits no-op jobs, each acknowledged before the next; no worker runs.",
    target="async client >= 2x the best async peer; sync client >= huey",
    columns=_COLUMNS,
    subjects=_one_subjects,
    measure=_one,
    ratios=(
        Ratio("rate", "x best peer"),
        Ratio("rate", "x best async peer", against=_ASYNC),
        Ratio("rate", "x huey", against="huey"),
    ),
)
