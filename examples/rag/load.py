"""`python -m examples.rag.load`: what dynamic batching is worth, on the real embedding model, measured in one run.

The same questions are asked, and the same folder is ingested, by one worker: first a call of the model for each, then
calls that serve as many as wait. All are submitted at once, so the line is never empty. Beside it the model alone, in
a loop without a queue. One pass warms up; of `--runs` the medians are told.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from statistics import median
from typing import Annotated, NamedTuple

import msgspec
import typer

from examples.rag.here import LIMIT_S, Here, here, shipped_passages, shipped_questions
from examples.rag.settings import FIND, INDEX, settings
from ropeway import call
from ropeway.cli.loops import run_loop
from ropeway.models.llama import spare_threads
from ropeway.models.minilm import MiniLm
from ropeway.models.store import EMBEDDING_MODEL, file_of

__all__ = ["Rate", "Row", "table"]

AT_ONCE = 32  # texts that the local model takes, as in ropeway.models


class Rate(NamedTuple):
    """How fast: a second, CPU milliseconds of the whole process for each, and how many a call of the model served."""

    per_s: float
    cpu_ms: float
    in_a_call: float


class Row(NamedTuple):
    """One way, measured."""

    way: str
    questions: Rate
    passages: Rate


class _Watch:
    """Times from where it is made, by the wall and by this process's CPU, its threads included."""

    def __init__(self) -> None:
        self._began_s = time.monotonic(), time.process_time()

    def rate(self, count: int, calls: float) -> Rate:
        wall_s, cpu_s = time.monotonic() - self._began_s[0], time.process_time() - self._began_s[1]
        return Rate(count / wall_s, cpu_s / count * 1000, count / max(calls, 1))


def table(rows: Sequence[Row]) -> str:
    """As Markdown has it; how many times less CPU each takes than the first, which other work disturbs least."""
    lines = [
        "| | questions/s | CPU ms | in a call | | passages/s | CPU ms | in a call | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        told = (_told(row.questions, rows[0].questions), _told(row.passages, rows[0].passages))
        lines.append(f"| {row.way} | {told[0]} | {told[1]} |")
    return "\n".join(lines)


def _told(rate: Rate, base: Rate) -> str:
    return f"{rate.per_s:.1f} | {rate.cpu_ms:.1f} | {rate.in_a_call:.1f} | {base.cpu_ms / rate.cpu_ms:.1f} x"


async def _measured(way: str, batch: int, count: int, engine: str) -> Row:
    own = msgspec.structs.replace(settings(), batch=batch)
    async with here(own, engine_url=engine) as running:
        await _asked(running, count // 10)
        watch = _Watch()
        report = await running.ingested()
        passages = watch.rate(report["passages"], _calls(running, INDEX))
        before, watch = _calls(running, FIND), _Watch()
        await _asked(running, count)
        return Row(way, watch.rate(count, _calls(running, FIND) - before), passages)


async def _asked(running: Here, count: int) -> None:
    """So many questions, no two alike."""
    questions = [one.question for one in shipped_questions()]
    calls = [call(FIND, query=f"{questions[n % len(questions)]} ({n})") for n in range(count)]
    for job in [job async for job in running.client.submit_many(calls)]:
        await job.result(LIMIT_S)


def _calls(running: Here, task: str) -> int:
    counted = running.worker.snapshot().batches.get(task)
    return counted.batches if counted else 0


def _alone(batch: int, count: int) -> Row:
    """The model in a loop: no queue, no store."""
    files = file_of(EMBEDDING_MODEL, ".onnx"), file_of(EMBEDDING_MODEL, "tokenizer.json")
    model = MiniLm(*files, settings().threads or spare_threads())
    asked = [one.question for one in shipped_questions()]
    questions = [f"{asked[n % len(asked)]} ({n})" for n in range(count)]
    passages = [[f"{one.title}: {part}" for part in (one.text, *one.sentences)] for one in shipped_passages()]
    model.embed(questions[:batch])
    asked_rate = _alone_rate(model, [[question] for question in questions], batch)
    return Row("the model alone", asked_rate, _alone_rate(model, passages, batch))


def _alone_rate(model: MiniLm, groups: Sequence[Sequence[str]], batch: int) -> Rate:
    watch = _Watch()
    for start in range(0, len(groups), batch):
        texts = sorted((text for group in groups[start : start + batch] for text in group), key=len)
        for first in range(0, len(texts), AT_ONCE):
            model.embed(texts[first : first + AT_ONCE])
    return watch.rate(len(groups), -(-len(groups) // batch))


def _middle(rows: Sequence[Row]) -> Row:
    return Row(rows[0].way, _middle_rate([row.questions for row in rows]), _middle_rate([row.passages for row in rows]))


def _middle_rate(rates: Sequence[Rate]) -> Rate:
    return Rate(*(median(column) for column in zip(*rates, strict=True)))


async def _run(questions: int, batch: int, runs: int, engine: str) -> None:
    ways: dict[str, list[Row]] = {}
    for _ in range(runs):  # in turn, so that what else the machine does falls on both
        for way, size in (("one in a call", 1), (f"batches of up to {batch}", batch)):
            ways.setdefault(way, []).append(await _measured(way, size, questions, engine))
        ways.setdefault("alone", []).append(_alone(batch, questions))
    typer.echo(f"{questions} questions, {len(shipped_passages())} passages, {runs} runs, medians; engine {engine}")
    typer.echo(table([_middle(rows) for rows in ways.values()]))
    threads = settings().threads or spare_threads()
    load = os.getloadavg()[0]
    typer.echo(f"{threads} thread(s) for the model, {os.cpu_count()} cores, load average {load:.1f}")


def main(
    questions: Annotated[int, typer.Option(min=20, help="Asked in each run.")] = 400,
    batch: Annotated[int, typer.Option(min=2, help="Of one call, at most.")] = 32,
    runs: Annotated[int, typer.Option(min=1, help="Of everything; the table has the medians.")] = 3,
    engine: Annotated[str, typer.Option(help="memory:, sqlite: (a new file) or a URL.")] = "sqlite:",
) -> None:
    """Measure, and print a table."""
    run_loop(_run(questions, batch, runs, engine))


if __name__ == "__main__":
    typer.run(main)
