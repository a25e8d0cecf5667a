"""The load test itself: submit everything, watch it go through, then ask after every single request."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

import msgspec

from examples.pipeline.http import NDJSON
from examples.pipeline.load.http import Answer, Pool
from examples.pipeline.load.report import Report, Sample, Tally, report_of
from examples.pipeline.settings import QUEUE
from examples.pipeline.shapes import Efficiency, ProcessLine, ProcessRequest, QueueStatus, RequestStatus

__all__ = ["Plan", "load"]

T = TypeVar("T")

_encode_lines = msgspec.json.Encoder().encode_lines
_decode_lines = msgspec.json.Decoder(ProcessLine).decode_lines

WATCH_S = 0.2  # between two looks at the queue
AGAIN_S = 0.25  # before a request is repeated that the server did not answer
LOOK_S = 0.5  # before a request that is still running is asked after again


class Plan(msgspec.Struct, frozen=True):
    """What to do.

    Attributes:
        url: where the pipeline is served.
        requests: how many in all.
        concurrency: submits under way at once, each on its own connection.
        run_id: the requests are called `<run_id>-<n>`, so that a submit can be repeated and makes one request.
        batch: requests in one submit; above 1 they travel as NDJSON.
        together: hold the line until all are submitted, so that they start at once.
        text: what each is to process.
        stall_s: give up when nothing has moved for so many seconds. A server that is restarted meanwhile is waited for.
    """

    url: str
    requests: int
    concurrency: int
    run_id: str
    batch: int = 1
    together: bool = False
    text: str = "the quick brown fox"
    stall_s: float = 60.0


async def load(plan: Plan, show: Callable[[Tally], None]) -> Report:
    """Run the test; `show` is called after each look at the queue. Raises OSError when there is no server."""
    pool = Pool(plan.url, plan.concurrency)
    tally = Tally(plan.requests)
    try:
        before = await _efficiency(pool)
        async with _watching(pool, tally, show):
            await _submit_all(pool, plan, tally)
            await _drained(plan, tally)
        await _each(plan, tally.accepted_ids, lambda request_id: _follow(pool, plan, tally, request_id))
        show(tally)
        return report_of(tally, before, await _efficiency(pool))
    finally:
        pool.close()


async def _submit_all(pool: Pool, plan: Plan, tally: Tally) -> None:
    began_s = time.perf_counter()
    submit = _submit_one if plan.batch == 1 else _submit_many
    starts = range(0, plan.requests, plan.batch)
    if plan.together:
        await _tell_queue(pool, "pause")
    try:
        await _each(plan, starts, lambda n: submit(pool, plan, tally, range(n, min(n + plan.batch, plan.requests))))
    finally:
        if plan.together:
            await _tell_queue(pool, "resume")
    tally.submit_s = time.perf_counter() - began_s


async def _tell_queue(pool: Pool, verb: str) -> None:
    answer = await pool.request("POST", f"/v1/queues/{QUEUE}/{verb}")
    if answer.status != 200:
        raise ConnectionError(f"cannot {verb} the queue: {answer.status} {answer.body[:200].decode(errors='replace')}")


async def _submit_one(pool: Pool, plan: Plan, tally: Tally, numbers: range) -> None:
    request = _request(plan, numbers[0])
    body = msgspec.json.encode(request)
    began_s = time.perf_counter()
    answer = await _persistently(plan, tally, lambda: pool.request("POST", "/process", body))
    if answer is not None:
        tally.answered(str(request.id), answer.status, time.perf_counter() - began_s, answer.body)


async def _submit_many(pool: Pool, plan: Plan, tally: Tally, numbers: range) -> None:
    requests = [_request(plan, number) for number in numbers]
    body = _encode_lines(requests)
    began_s = time.perf_counter()
    answer = await _persistently(plan, tally, lambda: pool.request("POST", "/process", body, NDJSON))
    if answer is None:
        return
    if answer.status != 200:
        tally.trouble(f"POST /process answered {answer.status}: {answer.body[:200].decode(errors='replace')}")
        return
    seconds = time.perf_counter() - began_s
    for request, line in zip(requests, _decode_lines(answer.body), strict=True):
        tally.answered(str(request.id), line.status, seconds, answer.body)


def _request(plan: Plan, number: int) -> ProcessRequest:
    return ProcessRequest(text=f"{plan.text} {number}", id=f"{plan.run_id}-{number}")


async def _follow(pool: Pool, plan: Plan, tally: Tally, request_id: str) -> None:
    """Ask after one request until it has ended."""
    deadline_s = time.perf_counter() + plan.stall_s
    while True:
        answer = await _persistently(plan, tally, lambda: pool.get(f"/status/{request_id}"))
        if answer is None:
            return
        if answer.status != 200:
            tally.trouble(f"GET /status/{request_id} answered {answer.status}: an accepted request is not known")
            return
        status = msgspec.json.decode(answer.body, type=RequestStatus)
        if status.completed is not None:
            tally.finish(status)
            return
        if time.perf_counter() > deadline_s:
            tally.trouble(f"{request_id} is still {status.status}")
            return
        await asyncio.sleep(LOOK_S)


async def _drained(plan: Plan, tally: Tally) -> None:
    """Wait until the server holds nothing more, or nothing has moved for too long."""
    looks, finished, moved_s = tally.looks, -1, time.perf_counter()
    while tally.looks < looks + 2 or tally.seen is None or tally.seen.live:  # the first look may be from before
        await asyncio.sleep(WATCH_S)
        if tally.seen is not None and tally.seen.finished != finished:
            finished, moved_s = tally.seen.finished, time.perf_counter()
        elif time.perf_counter() - moved_s > plan.stall_s:
            tally.trouble(f"nothing has moved for {plan.stall_s:g} s")
            return


@contextlib.asynccontextmanager
async def _watching(pool: Pool, tally: Tally, show: Callable[[Tally], None]) -> AsyncIterator[None]:
    """Look at the queue all the while, over a connection of its own."""
    eye = Pool(pool.url, 1)
    watcher = asyncio.create_task(_watch(eye, tally, show))
    try:
        yield
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
        eye.close()


async def _watch(eye: Pool, tally: Tally, show: Callable[[Tally], None]) -> None:
    while True:
        with contextlib.suppress(OSError):
            answer = await eye.get("/queue-status")
            if answer.status == 200:
                queue = msgspec.json.decode(answer.body, type=QueueStatus)
                tally.look(Sample(queue.waiting, queue.running, queue.threads_in_use, queue.finished))
        show(tally)
        await asyncio.sleep(WATCH_S)


async def _persistently(plan: Plan, tally: Tally, ask: Callable[[], Awaitable[Answer]]) -> Answer | None:
    """Ask until there is an answer, through broken connections and a server that restarts; None when it stays away."""
    deadline_s = time.perf_counter() + plan.stall_s
    while True:
        try:
            return await ask()
        except OSError as error:
            if time.perf_counter() > deadline_s:
                tally.trouble(f"no answer: {error}")
                return None
            tally.repeated += 1
            await asyncio.sleep(AGAIN_S)


async def _each(plan: Plan, items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """`work` on each item, `concurrency` at a time."""
    source = iter(items)

    async def take() -> None:
        for item in source:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(plan.concurrency):
            group.create_task(take())


async def _efficiency(pool: Pool) -> Efficiency:
    answer = await pool.get("/thread-efficiency")
    if answer.status != 200:
        raise ConnectionError(f"no pipeline is served there: GET /thread-efficiency answered {answer.status}")
    return msgspec.json.decode(answer.body, type=Efficiency)
