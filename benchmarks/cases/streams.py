"""Token streams: one at full speed, one at the pace of a model, a thousand at once, ten thousand idle ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.cases.http import SUBMIT_BODY, own_site
from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, bare, own
from benchmarks.table import Case, Column, Ratio, Sample
from benchmarks.venvs import versions
from benchmarks.webserver import Site, serving_program, serving_site

__all__ = ["IDLE_STREAMS", "STREAMS", "STREAM_ONE"]

_READERS, _LOAD = "benchmarks.web.readers", "benchmarks.web.load"
_STRAIGHT = "straight from the process"
_PACE = 100.0  # tokens a second of the paced stream: every token has 10 ms to itself
_RATE = 20.0


@asynccontextmanager
async def _site(run: Run) -> AsyncIterator[Site]:
    """The gateway with its worker: in one process for memory, apart for the others; or what it is compared with."""
    if run.subject.environment is not None:
        async with serving_program(run, "benchmarks.web.litserve") as site:
            yield site
    elif run.subject.group == "bare":
        async with serving_site(run, run.subject.spec["target"]) as site:
            yield site
    elif run.subject.engine == "memory":
        async with serving_site(run, "benchmarks.own.site:app", own_site(run, worker=True)) as site:
            yield site
    else:
        async with serving_site(run, "benchmarks.own.site:app", own_site(run)) as site, run.start("serve") as worker:
            await worker.ready()
            yield site


async def _read(run: Run, site: Site, streams: int, count: int, per_s: float) -> Mapping[str, Any]:
    """Submit and read this many streams of `count` tokens each."""
    result = await run.do("read", driver=_READERS, **_asked(site, streams, count, per_s))
    _check(result, streams, count)
    return result


def _asked(site: Site, streams: int, count: int, per_s: float) -> dict[str, Any]:
    body = json.dumps({"task": "tokens", "input": {"count": count, "per_s": per_s}})
    return {"port": site.port, "path": "/v1/jobs", "body": body, "streams": streams}


def _check(result: Mapping[str, Any], streams: int, count: int) -> None:
    assert result["tokens"] == streams * count, f"{result['tokens']} tokens of {streams * count}: {result['ends']}"
    assert result["ends"] == ["event: job.succeeded"], str(result["ends"])


async def _one(run: Run) -> Sample:
    many, paced = run.settings.size(50_000, 2_000), run.settings.size(300, 50)
    async with _site(run) as site:
        await _read(run, site, 1, 200, 0.0)
        fast = await _read(run, site, 1, many, 0.0)
        slow = await _read(run, site, 1, paced, _PACE)
    return {"rate": many / fast["wall_s"], "p50": slow["lag_p50_ms"], "p99": slow["lag_p99_ms"]}


async def _many(run: Run) -> Sample:
    streams, seconds = run.settings.size(1_000, 50), run.settings.size(10, 2)
    count = int(seconds * _RATE)
    async with _site(run) as site:
        await _read(run, site, 1, 20, 0.0)
        before_kib, before_s = site.resident_kib(), site.cpu_s()
        async with run.start("read", driver=_READERS, **_asked(site, streams, count, _RATE)) as readers:
            await readers.ready()
            opened_kib = site.resident_kib()
            result = await readers.result()
        grown_kib, used_s = max(opened_kib, site.resident_kib()) - before_kib, site.cpu_s() - before_s
    _check(result, streams, count)
    return {
        "rate": result["tokens"] / result["wall_s"],
        "wall_s": result["wall_s"],
        "p50": result["lag_p50_ms"],
        "p99": result["lag_p99_ms"],
        "last": result["last_lag_ms"],
        "reader_kib": grown_kib / streams,
        "server_us": used_s / result["tokens"] * 1e6,
    }


async def _idle(run: Run) -> Sample:
    streams = run.settings.size(10_000, 200)
    async with serving_site(run, "benchmarks.own.site:app", own_site(run)) as site:
        asked = {**_asked(site, streams, 1, 0.0), "driver": _READERS}
        await _probe(run, site)
        alone = await _probe(run, site)
        before_kib = site.resident_kib()
        async with run.start("hold", **asked) as holders:
            await holders.ready()
            grown_kib = site.resident_kib() - before_kib
            beside = await _probe(run, site)
            holders.stop()
            held = await holders.result()
    assert held["open"] == streams, f"{held['open']} of {streams} streams stayed open"
    return {
        "alone_p50": alone["p50_ms"],
        "alone_p99": alone["p99_ms"],
        "beside_p50": beside["p50_ms"],
        "beside_p99": beside["p99_ms"],
        "ratio": beside["p99_ms"] / alone["p99_ms"],
        "reader_kib": grown_kib / streams,
    }


async def _probe(run: Run, site: Site) -> Mapping[str, Any]:
    count = run.settings.size(1_000, 100)
    return await run.do(
        "probe", driver=_LOAD, port=site.port, path="/v1/jobs", body=SUBMIT_BODY, count=count, pause_s=0.002
    )


def _with_straight(settings: Settings) -> list[Subject]:
    words = {
        "memory": "gateway and worker in one process",
        "sqlite": "gateway and worker apart, one file",
        "redis": "gateway and worker apart",
    }
    ours = [own(engine, settings=words[engine]) for engine in settings.engines]
    return [
        *ours,
        bare(
            _STRAIGHT,
            _READERS,
            settings="bare ASGI, an async generator, the same server",
            target="benchmarks.web.echo:bare",
        ),
        bare(
            "FastAPI",
            _READERS,
            settings="StreamingResponse over an async generator, the same server",
            target="benchmarks.web.echo:streaming",
        ),
        Subject(
            "LitServe",
            "bare",
            _READERS,
            environment="litserve",
            settings=f"{versions('litserve')}; one API server, one asynchronous worker process",
        ),
    ]


def _ours(settings: Settings) -> list[Subject]:
    return [own(engine, settings="no worker: the streams wait for a first event") for engine in settings.engines]


STREAM_ONE = Case(
    name="stream-one",
    title="One token stream, through engine and gateway to a reader",
    about="One POST that accepts an event stream; the task yields tokens as fast as they are taken, then, measured "
    "apart, 100 a second. A token's lag runs from its making in the task to the reader's hands.",
    target=">= 20,000 tokens/s; lag above straight streaming p50 <= 3 ms, p99 <= 10 ms",
    columns=(
        Column("rate", "tokens/s"),
        Column("p50", "lag p50 ms", 2),
        Column("p99", "lag p99 ms", 2),
    ),
    subjects=_with_straight,
    measure=_one,
    ratios=(Ratio("rate", "of straight", against=_STRAIGHT),),
)

STREAMS = Case(
    name="streams",
    title="1,000 token streams of 20 tokens a second, at once",
    about="Every stream is a job and a reader of its own, for 10 s. `last lag` is the worst among the last 20 tokens "
    "of every reader: one that falls behind shows there. Memory is what the gateway's processes grew by, a reader.",
    target="no reader falls behind; <= 15 KB a reader",
    columns=(
        Column("rate", "tokens/s"),
        Column("wall_s", "s", 1),
        Column("p50", "lag p50 ms", 1),
        Column("p99", "lag p99 ms", 1),
        Column("last", "last lag ms", 1),
        Column("reader_kib", "KiB a reader", 1),
        Column("server_us", "gateway CPU us/token", 1),
    ),
    subjects=_with_straight,
    measure=_many,
)

IDLE_STREAMS = Case(
    name="idle-streams",
    title="Submit over HTTP beside 10,000 idle streams",
    about="One connection submits, pausing 2 ms between; first alone, then while 10,000 readers wait for their jobs to "
    "say something.",
    target="p99 unchanged within 20 %",
    columns=(
        Column("alone_p50", "alone p50 ms", 2),
        Column("alone_p99", "alone p99 ms", 2),
        Column("beside_p50", "beside p50 ms", 2),
        Column("beside_p99", "beside p99 ms", 2),
        Column("ratio", "p99 beside / alone", 2),
        Column("reader_kib", "KiB a reader", 1),
    ),
    subjects=_ours,
    measure=_idle,
    deadline_s=150.0,
)
