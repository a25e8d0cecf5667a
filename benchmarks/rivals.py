"""The peers as they are measured, each set as its own documents advise, in their words.

Where a default is far from that, it has a row of its own. A new peer is an entry here, a driver in `peers/`, and its
pinned versions in `venvs.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.settings import Settings
from benchmarks.subjects import Subject, peer

__all__ = ["RIVALS", "Rival", "Setting", "rows"]

Table = Literal["drain", "threads", "latency", "sleepers", "blockers", "crash"]


@dataclass(frozen=True)
class Setting:
    """One row: what the driver is told, and the same in words."""

    words: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    suffix: str = ""


@dataclass(frozen=True)
class Rival:
    """A peer.

    Attributes:
        bulk: its own call for many jobs.
        jobs: how many of its jobs make a drain of a few seconds.
        drain, threads, latency, sleepers, blockers, crash: its rows in these tables; none where it has no such thing.
    """

    name: str
    kind: Literal["async", "sync"]
    bulk: str
    jobs: int
    drain: tuple[Setting, ...] = ()
    threads: tuple[Setting, ...] = ()
    latency: tuple[Setting, ...] = ()
    sleepers: tuple[Setting, ...] = ()
    blockers: tuple[Setting, ...] = ()
    crash: tuple[Setting, ...] = ()


def rows(settings: Settings, table: Table, suffix: str = "") -> list[Subject]:
    """The peers' rows of a table, of those that are asked for."""
    return [
        peer(name, suffix=setting.suffix + suffix, settings=setting.words, **setting.spec)
        for name in settings.peers
        for setting in _of(RIVALS[name], table)
    ]


def _of(rival: Rival, table: Table) -> Iterable[Setting]:
    found: tuple[Setting, ...] = getattr(rival, table)
    return found


def _one(words: str, **spec: Any) -> tuple[Setting, ...]:
    return (Setting(words, spec),)


_SLEEPERS = {"task": "sleep", "seconds": 1.0, "slots": 4_000}
_BLOCKERS = {"task": "block", "seconds": 3.5, "slots": 4_000}
_CRASH = {"task": "sleep", "slots": 100}
_NOOP_SYNC = {"task": "noop_sync"}

_EVERY = (
    Rival(
        "huey",
        "sync",
        "task.map",
        10_000,
        drain=(Setting("1 thread", {"slots": 1}), Setting("4 threads", {"slots": 4}, ", 4 threads")),
        threads=(Setting("1 thread", {"slots": 1}), Setting("4 threads", {"slots": 4}, ", 4 threads")),
        latency=(
            Setting("4 threads, notify_result", {"slots": 4, "notify": True}),
            Setting("1 thread, polls for results", {"slots": 1}, " (defaults)"),
        ),
        sleepers=_one("4,000 threads", **{**_SLEEPERS, "task": "block"}),
        blockers=_one("4,000 threads", **_BLOCKERS),
        crash=_one("100 threads", **{**_CRASH, "task": "block"}),
    ),
    Rival(
        "arq",
        "async",
        "100 enqueue_job at once",
        6_000,
        drain=_one("max_jobs 100, polls every 10 ms", slots=100, poll_s=0.01),
        latency=(
            Setting("polls every 10 ms", {"slots": 10, "poll_s": 0.01}),
            Setting("polls every 500 ms", {"slots": 10, "poll_s": 0.5}, " (defaults)"),
        ),
        sleepers=_one("max_jobs 4,000, polls every 10 ms", poll_s=0.01, **_SLEEPERS),
        crash=_one("max_jobs 100", poll_s=0.5, **_CRASH),
    ),
    Rival(
        "saq",
        "async",
        "100 enqueue at once",
        6_000,
        drain=_one("concurrency 100", slots=100),
        threads=_one("concurrency 100", slots=100, **_NOOP_SYNC),
        latency=_one("concurrency 10, Job.refresh", slots=10),
        sleepers=_one("concurrency 4,000", **_SLEEPERS),
        crash=_one("concurrency 100", **_CRASH),
    ),
    Rival(
        "rq",
        "sync",
        "enqueue_many, 500 a call",
        2_000,
        drain=_one("SimpleWorker"),
        threads=_one("SimpleWorker, no threads"),
        latency=_one("SimpleWorker, latest_result"),
    ),
    Rival(
        "dramatiq",
        "sync",
        "one send after the other",
        6_000,
        drain=_one("8 threads", slots=8),
        threads=_one("8 threads", slots=8),
        latency=_one("8 threads, get_result(block=True)", slots=8),
        crash=_one("100 threads", **{**_CRASH, "task": "block"}),
    ),
    Rival(
        "celery",
        "sync",
        "group of signatures, 500 a call",
        2_000,
        drain=_one("prefork, 1 child, prefetch multiplier 64", pool="prefork", slots=1, prefetch=64),
        threads=_one("threads, 4", pool="threads", slots=4, prefetch=64),
        latency=_one("prefork, 1 child", pool="prefork", slots=1, prefetch=1),
        crash=_one("threads, 100", pool="threads", prefetch=1, **{**_CRASH, "task": "block"}),
    ),
    Rival(
        "taskiq",
        "async",
        "100 kiq at once",
        6_000,
        drain=_one("streams, 100 async tasks", slots=100),
        threads=_one("streams, 100 tasks, 4 threads", slots=100, threads=4, **_NOOP_SYNC),
        latency=(
            Setting("streams, looks for results every 5 ms", {"slots": 100, "check_s": 0.005}),
            Setting("streams, looks for results every 200 ms", {"slots": 100, "check_s": 0.2}, " (defaults)"),
        ),
        sleepers=_one("streams, 4,000 async tasks", **_SLEEPERS),
        crash=_one("streams, 100 async tasks", **_CRASH),
    ),
    Rival(
        "bullmq",
        "async",
        "addBulk, 500 a call",
        6_000,
        drain=_one("concurrency 100", slots=100),
        latency=_one("concurrency 10, QueueEvents", slots=10),
        crash=_one("concurrency 100", **_CRASH),
    ),
    Rival(
        "streaq",
        "async",
        "enqueue_many, 500 a call",
        3_000,
        drain=_one("concurrency 100", slots=100),
        threads=_one("concurrency 100", slots=100, **_NOOP_SYNC),
        latency=_one("concurrency 10", slots=10),
        sleepers=_one("concurrency 4,000", **_SLEEPERS),
        crash=_one("concurrency 100", **_CRASH),
    ),
    Rival(
        "pydocket",
        "async",
        "add_many, 1,000 a call",
        4_000,
        drain=(
            Setting("concurrency 100, looks every 10 ms", {"slots": 100, "check_s": 0.01}),
            Setting("concurrency 10, looks every 250 ms", {"slots": 10, "check_s": 0.25, "jobs": 500}, " (defaults)"),
        ),
        latency=_one("concurrency 10", slots=10, check_s=0.25),
        crash=_one("concurrency 100", check_s=0.25, **_CRASH),
    ),
)

RIVALS: Mapping[str, Rival] = {rival.name: rival for rival in _EVERY}
