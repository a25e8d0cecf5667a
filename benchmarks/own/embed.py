"""Embedding texts by Ropeway, in batches and one by one, and by a loop of full batches that stores nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.driver import Marks, Spec, drained, emit, main, marks_for, stopped
from benchmarks.embedding import BATCH, MAX_WAIT_S, Embedder, texts
from benchmarks.measure import usage
from benchmarks.own.engine import opened
from benchmarks.peers.common import chunks, verbs
from ropeway import App, Batch, Client, Worker, WorkerOptions, given
from ropeway.cli.loops import tune_interpreter
from ropeway.client import call
from ropeway.engines.base import Engine

__all__ = ["app"]

_BUSY_POLL_S = 0.005

app = App()
_marks = Marks(0)


@app.resource
def model() -> Iterator[Embedder]:
    yield Embedder()


@app.task(batch=Batch(max_size=BATCH, max_wait=MAX_WAIT_S), queue="batched")
def embed(text: list[str], *, model: Embedder = given) -> list[list[float]]:
    vectors = model.embed(text)
    _tick(len(text))
    return vectors


@app.task(queue="alone", concurrency=1)
def embed_one(text: str, *, model: Embedder = given) -> list[float]:
    (vector,) = model.embed([text])
    _tick(1)
    return vector


async def drain(spec: Spec) -> Mapping[str, Any]:
    """Submit `count` texts as jobs of `task`, and have one worker run them; with `beside`, the loop before and after.

    A shared machine has quick and slow minutes: what the model does alone is measured in the same one.
    """
    global _marks
    alone = _Alone(texts(spec["count"])[: spec.get("beside", 0)])
    alone.measure()
    _marks = marks_for(spec)
    tune_interpreter()
    async with opened(spec["url"]) as engine:
        client, task = Client(engine), app.tasks[spec["task"]]
        async for _ in client.submit_many(call(task, text) for text in texts(spec["count"])):
            pass
        worker = Worker(app, engine, WorkerOptions(queues=(task.card.queue,)))
        emit("ready")
        _marks.start()
        running = asyncio.create_task(worker.run())
        await asyncio.to_thread(_marks.done.wait)
        while await _succeeded(engine) < spec["count"]:  # noqa: ASYNC110 - looked at as often as in other drains
            await asyncio.sleep(_BUSY_POLL_S)
        result = drained(_marks)
        batches = worker.snapshot().batches[task.name].batches if task.batching else spec["count"]
        await worker.stop()
        await running
    alone.measure()
    return {**result, "batch": spec["count"] / batches, **alone.found}


async def serve(spec: Spec) -> Mapping[str, Any]:
    """Run jobs until told to stop."""
    tune_interpreter()
    async with opened(spec["url"]) as engine:
        worker = Worker(app, engine, WorkerOptions(queues=("batched",)))
        running = asyncio.create_task(worker.run())
        await worker.started()
        emit("ready")
        await asyncio.to_thread(stopped.wait)
        counted = worker.snapshot().batches["embed"]
        await worker.stop()
        await running
        return {"batch": counted.jobs / max(counted.batches, 1)}


def loop(spec: Spec) -> Mapping[str, Any]:
    """The model in a loop, in full batches: what is left to gain."""
    global _marks
    _marks = marks_for(spec)
    opened_model, every = Embedder(), texts(spec["count"])
    emit("ready")
    _marks.start()
    kept = []
    for batch in chunks(every, BATCH):
        kept.append(opened_model.embed(batch))
        _tick(len(batch))
    return {**drained(_marks), "batch": spec["count"] / len(kept)}


class _Alone:
    """The model in a loop of full batches, in the process of a drain."""

    def __init__(self, every: list[str]) -> None:
        self._texts = every
        self._model = Embedder() if every else None
        self._done, self._wall_s, self._cpu_s = 0, 0.0, 0.0

    def measure(self) -> None:
        """Embed them all."""
        if self._model is None:
            return
        self._model.embed(self._texts[:BATCH])
        begin = usage()
        for batch in chunks(self._texts, BATCH):
            self._model.embed(batch)
        end = usage()
        self._done += len(self._texts)
        self._wall_s += end.at_s - begin.at_s
        self._cpu_s += end.cpu_s - begin.cpu_s

    @property
    def found(self) -> dict[str, float]:
        """Texts a second, and CPU seconds a text."""
        if not self._done:
            return {}
        return {"alone_rate": self._done / self._wall_s, "alone_cpu_s": self._cpu_s / self._done}


def _tick(count: int) -> None:
    for _ in range(count):
        _marks.tick()


async def _succeeded(engine: Engine) -> int:
    return sum(stats.succeeded for stats in await engine.stats())


if __name__ == "__main__":
    main({**verbs(drain, serve), "loop": loop})
