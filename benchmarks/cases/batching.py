"""Dynamic batching on a real embedding model: a backlog of texts, and many clients that each wait for theirs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.cases.http import own_site
from benchmarks.embedding import BATCH, MAX_WAIT_S, MODEL, TOKENIZER, texts
from benchmarks.launch import DriverFailed
from benchmarks.measure import cpu_of
from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, bare, own
from benchmarks.table import Case, Column, Ratio, Sample
from benchmarks.venvs import versions
from benchmarks.webserver import Site, serving_program, serving_site
from ropeway.models.keys import ModelUnavailable
from ropeway.models.store import EMBEDDING_MODEL, file_of

__all__ = ["BATCHING"]

_DRIVER, _LOAD = "benchmarks.own.embed", "benchmarks.web.load"
_SITE, _PEER_SITE = "benchmarks.own.embed_site:app", "benchmarks.web.litserve_embed"
_LOOP, _PEER = "hand-written loop", "LitServe over HTTP"
_CONNECTIONS = 2 * BATCH
_BATCHES = f"batches of up to {BATCH}, {MAX_WAIT_S * 1000:g} ms"


async def _measure(run: Run) -> Sample:
    measure: Callable[[Run], Coroutine[Any, Any, Sample]] = _ask if run.subject.spec.get("http") else _drain
    return await measure(run)


async def _drain(run: Run) -> Sample:
    alone = run.subject.spec.get("task") == "embed_one"
    count = run.settings.size(640 if alone else 1_920, 192)
    beside = 0 if alone else run.settings.size(640, 64)
    result = await run.do(run.subject.spec["how"], count=count, beside=beside, env=_model())
    rate, cpu_us = result["jobs"] / result["wall_s"], _us(result)
    sample = {"rate": rate, "batch": result["batch"], "cpu_us": cpu_us}
    if "alone_rate" in result:
        sample["of_alone"] = rate / result["alone_rate"]
        sample["of_alone_cpu"] = result["alone_cpu_s"] * 1e6 / cpu_us
    return sample


async def _ask(run: Run) -> Sample:
    count = run.settings.size(1_280, 128)
    bodies = [json.dumps({"task": "embed", "input": {"text": text}}) for text in texts(count)]
    (run.folder / "bodies.json").write_text(json.dumps(bodies))
    async with _site(run) as (site, pids):
        asked: dict[str, Any] = {
            "driver": _LOAD,
            "port": site.port,
            "path": "/v1/jobs",
            "bodies": str(run.folder / "bodies.json"),
            "prefer": "wait=30",
        }
        await run.do("load", **asked, connections=1, count=1)  # the model is loaded before CPU is counted
        before_s = site.cpu_s() + cpu_of(pids)
        result = await run.do("load", **asked, connections=_CONNECTIONS, count=count)
        used_s = site.cpu_s() + cpu_of(pids) - before_s
    assert set(result["statuses"]) == {"200"}, f"answers: {result['statuses']}"
    return {
        "rate": result["answers"] / result["wall_s"],
        "cpu_us": used_s / (count + max(count // 20, _CONNECTIONS)) * 1e6,  # its warm-up costs the server, too
        "p50": result["p50_ms"],
        "p99": result["p99_ms"],
    }


@asynccontextmanager
async def _site(run: Run) -> AsyncIterator[tuple[Site, tuple[int, ...]]]:
    """A gateway, and the worker's process where it is apart (not for memory); or LitServe, with all that it started."""
    if run.subject.environment is not None:
        async with serving_program(run, _PEER_SITE, _model()) as site:
            yield site, ()
    elif run.subject.engine == "memory":
        async with serving_site(run, _SITE, {**own_site(run, worker=True), **_model()}) as site:
            yield site, ()
    else:
        async with (
            serving_site(run, _SITE, {**own_site(run), **_model()}) as site,
            run.start("serve", driver=_DRIVER, env=_model()) as worker,
        ):
            await worker.ready()
            yield site, (worker.pid,)


def _model() -> dict[str, str]:
    """Where the model is. Raises DriverFailed, with the command that fetches it."""
    try:
        onnx, tokenizer = file_of(EMBEDDING_MODEL, ".onnx"), file_of(EMBEDDING_MODEL, "tokenizer.json")
    except ModelUnavailable as error:
        raise DriverFailed(str(error)) from None
    return {MODEL: str(onnx), TOKENIZER: str(tokenizer)}


def _us(result: Mapping[str, Any]) -> float:
    cpu_s: float = result["cpu_s"] / result["jobs"]
    return cpu_s * 1e6


def _subjects(settings: Settings) -> list[Subject]:
    every = settings.engines
    return [
        bare(_LOOP, _DRIVER, settings=f"{BATCH} texts a call, nothing stored", how="loop"),
        *(own(each, driver=_DRIVER, settings=_BATCHES, how="drain", task="embed") for each in every),
        *(
            own(each, driver=_DRIVER, suffix=", one by one", settings="no batch", how="drain", task="embed_one")
            for each in every[:1]
        ),
        *(own(each, driver=_DRIVER, suffix=" over HTTP", settings=_BATCHES, http=True) for each in every),
        Subject(
            _PEER,
            "bare",
            _LOAD,
            environment="litserve-models",
            settings=f"{versions('litserve-models')}; max_batch_size={BATCH}, batch_timeout={MAX_WAIT_S}, one worker",
            spec={"http": True},
        ),
    ]


BATCHING = Case(
    name="batching",
    title="Embeddings of short texts, batched across jobs",
    about="all-MiniLM-L6-v2 (int8, onnxruntime, one thread) on texts of 3 to 8 words, a job each. First a backlog "
    "that one worker drains, until every vector is stored. A loop of full batches that stores nothing is the ceiling; "
    "`the loop beside` is that loop in the worker's own process just before and just after, by its pace and by the CPU "
    f"of a text. Then over HTTP: {_CONNECTIONS} connections that each wait for their vector before they send the next "
    "text, the same requests for Ropeway (`Prefer: wait`) and for LitServe.",
    target=">= 0.90 of the hand-written loop beside; over HTTP >= LitServe",
    columns=(
        Column("rate", "texts/s"),
        Column("batch", "texts/call", 1),
        Column("cpu_us", "server CPU us/text"),
        Column("of_alone", "of the loop beside", 2),
        Column("of_alone_cpu", "by CPU", 2),
        Column("p50", "p50 ms"),
        Column("p99", "p99 ms"),
    ),
    subjects=_subjects,
    measure=_measure,
    ratios=(
        Ratio("rate", "of the loop", against=_LOOP),
        Ratio("rate", "x LitServe", against=_PEER),
        Ratio("cpu_us", "LitServe's CPU / ours", better="less", against=_PEER),
    ),
    deadline_s=120.0,
)
