"""The engine alone: what submit and lease cost beside a small and beside a large backlog."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import uvloop

from benchmarks import asking
from benchmarks.driver import Spec, emit, main
from benchmarks.measure import cpu_s, resident_kib
from ropeway import connect
from ropeway.domain.ids import SEED_BYTES, job_id
from ropeway.domain.job import DEFAULT_TENANT, NewJob
from ropeway.domain.lease import Assignment, Commit, LeaseRequest, Outcome
from ropeway.domain.queue import QueueChange
from ropeway.domain.worker import WorkerCard
from ropeway.engines.base import Engine

__all__: list[str] = []

_QUEUE, _SESSION = "default", "bench"
_BATCH = 100
_FILL = 1_000
_TTL_MS = 3_600_000
_DONE = Outcome("succeeded", output="1")


async def _cost(spec: Spec) -> Mapping[str, Any]:
    engine = connect(spec["url"])
    await engine.open()
    await engine.set_queue([QueueChange(_QUEUE, max_depth=2 * spec["deep"])])
    await engine.announce(WorkerCard(_SESSION, "bench", (_QUEUE,), ttl_ms=_TTL_MS))
    meter = _Meter(spec["url"])
    await _fill(engine, 0, spec["shallow"])
    shallow = await _rounds(engine, meter, spec["rounds"])
    before = meter.memory_bytes()
    await _fill(engine, spec["shallow"], spec["deep"])
    grown = meter.memory_bytes() - before
    deep = await _rounds(engine, meter, spec["rounds"])
    return {"shallow": shallow, "deep": deep, "grown": grown}


class _Meter:
    """What the engine uses: this process, and its server if it has one."""

    def __init__(self, url: str) -> None:
        self._server = url if url.startswith("redis:") else None

    def cpu_s(self) -> tuple[float, float]:
        """Seconds of both together, and of the server."""
        server_s = 0.0 if self._server is None else asking.cpu_s(self._server)
        return cpu_s() + server_s, server_s

    def memory_bytes(self) -> int:
        """What the jobs take, where they are."""
        return resident_kib() * 1024 if self._server is None else asking.memory_bytes(self._server)


async def _fill(engine: Engine, have: int, wanted: int) -> None:
    for n in range(have, wanted, _FILL):
        await engine.submit(_jobs(_FILL))
        if n % 100_000 == 0:
            emit("progress", text=f"{n:,} jobs wait")


async def _rounds(engine: Engine, meter: _Meter, rounds: int) -> dict[str, float]:
    """CPU us of a job in submit and in lease, as the least of the rounds' fifths: noise only ever adds."""
    fifths = [await _some_rounds(engine, meter, rounds // 5) for _ in range(5)]
    return {what: min(each[what] for each in fifths) for what in fifths[0]}


async def _some_rounds(engine: Engine, meter: _Meter, rounds: int) -> dict[str, float]:
    used = dict.fromkeys(("submit", "server_submit", "lease", "server_lease"), 0.0)
    for _ in range(rounds):
        jobs = _jobs(_BATCH)
        begin = meter.cpu_s()
        await engine.submit(jobs)
        middle = meter.cpu_s()
        leased = await engine.lease(LeaseRequest(_SESSION, "bench", (_QUEUE,), _BATCH))
        end = meter.cpu_s()
        assert len(leased) == _BATCH, f"leased {len(leased)} of {_BATCH}"
        for what, since, until in (("submit", begin, middle), ("lease", middle, end)):
            used[what] += until[0] - since[0]
            used[f"server_{what}"] += until[1] - since[1]
        await _commit(engine, leased)
    return {what: seconds / (rounds * _BATCH) * 1e6 for what, seconds in used.items()}


async def _commit(engine: Engine, leased: list[Assignment]) -> None:
    await engine.commit([Commit(assignment.lease, _DONE) for assignment in leased])


def _jobs(count: int) -> list[NewJob]:
    now_ms = time.time_ns() // 1_000_000
    seeds = os.urandom(count * SEED_BYTES)
    ids = (job_id(now_ms, seeds[n : n + SEED_BYTES]) for n in range(0, len(seeds), SEED_BYTES))
    return [NewJob(each, DEFAULT_TENANT, _QUEUE, "noop", '{"n":12345678}') for each in ids]


def cost(spec: Spec) -> Mapping[str, Any]:
    """As `_cost`."""
    return uvloop.run(_cost(spec))


if __name__ == "__main__":
    main({"cost": cost})
