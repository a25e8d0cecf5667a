"""What a submit over HTTP costs, beside applications on the same server that store nothing."""

from __future__ import annotations

import json

from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, bare, own
from benchmarks.table import Case, Column, Ratio, Sample
from benchmarks.webserver import SERVER_SETTINGS, serving_site

__all__ = ["HTTP_SUBMIT", "SUBMIT_BODY", "own_site"]

SUBMIT_BODY = json.dumps({"task": "noop", "input": {"n": 12345678}})
_ECHO, _FRAMEWORK = "bare ASGI echo", "FastAPI echo"
_LOAD = "benchmarks.web.load"
_CONNECTIONS = 64


def own_site(run: Run, *, worker: bool = False) -> dict[str, str]:
    """What our gateway's module is told by its environment."""
    return {"BENCH_URL": run.url, "BENCH_WORKER": "1" if worker else ""}


async def _measure(run: Run) -> Sample:
    count = run.settings.size(30_000, 1_000)
    async with serving_site(run, run.subject.spec["target"], own_site(run)) as site:
        before = site.cpu_s()
        result = await run.do(
            "load",
            driver=_LOAD,
            port=site.port,
            path="/v1/jobs",
            body=SUBMIT_BODY,
            connections=_CONNECTIONS,
            count=count,
        )
        server_s = site.cpu_s() - before
    assert set(result["statuses"]) == {"202"}, f"answers: {result['statuses']}"
    sent = result["answers"] * 21 / 20  # the warm-up costs the server too
    return {
        "rate": result["answers"] / result["wall_s"],
        "p50": result["p50_ms"],
        "p99": result["p99_ms"],
        "server_us": server_s / sent * 1e6,
        "client_us": result["cpu_s"] / result["answers"] * 1e6,
    }


def _subjects(settings: Settings) -> list[Subject]:
    return [
        *(own(engine, settings=SERVER_SETTINGS, target="benchmarks.own.site:app") for engine in settings.engines),
        bare(_ECHO, _LOAD, settings=SERVER_SETTINGS, target="benchmarks.web.echo:bare"),
        bare(_FRAMEWORK, _LOAD, settings=SERVER_SETTINGS, target="benchmarks.web.echo:framework"),
    ]


HTTP_SUBMIT = Case(
    name="http-submit",
    title="Submit over HTTP, 64 connections",
    about="POST /v1/jobs with a body of some 45 bytes, each connection waiting for its 202 before the next. The echoes "
    "decode the body and send it back; the gateway validates it and stores a job (on sqlite: synced to the disk).",
    target="sqlite >= 0.50 of the bare ASGI echo, and above the FastAPI echo",
    columns=(
        Column("rate", "requests/s"),
        Column("p50", "p50 ms", 2),
        Column("p99", "p99 ms", 2),
        Column("server_us", "server CPU us/request", 1),
        Column("client_us", "client CPU us/request", 1),
    ),
    subjects=_subjects,
    measure=_measure,
    ratios=(
        Ratio("rate", "of bare ASGI", against=_ECHO),
        Ratio("rate", "x FastAPI", against=_FRAMEWORK),
    ),
)
