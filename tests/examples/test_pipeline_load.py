"""The load test's own parts: its HTTP client, its figures, and when it calls a run good."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
from examples.pipeline.load.http import Pool
from examples.pipeline.load.report import Percentiles, Report, Sample, Tally, percentiles, report_of
from examples.pipeline.shapes import Efficiency, ProcessUse, RequestStatus, StepResult

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[str]:
    """A server that talks so; at the end its conversations have ended too."""
    talks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.append(task)
        try:
            await talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await asyncio.gather(*talks)


@asynccontextmanager
async def server(*answers: bytes) -> AsyncIterator[str]:
    """Answers each request with the next of these; an empty one closes the connection instead."""
    left = iter(answers)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"Content-Length: 2" in head:
                await reader.readexactly(2)
            answer = next(left)
            if not answer:
                return
            for at in range(len(answer)):  # as slowly as a network may
                writer.write(answer[at : at + 1])
                await writer.drain()

    async with listening(talk) as url:
        yield url


PLAIN = b'HTTP/1.1 202 Accepted\r\nContent-Length: 7\r\nX-One: 1\r\n\r\n{"a":1}'
CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n4;x=y\r\n":2}\r\n0\r\n\r\n'


async def test_answers_are_read_whole_however_they_arrive() -> None:
    """With a length or in chunks, byte by byte, on one connection that is kept."""
    async with server(PLAIN, CHUNKED) as url:
        pool = Pool(url, 1)
        first = await pool.request("POST", "/process", b"{}")
        second = await pool.get("/status/1")
        pool.close()
    assert (first.status, first.headers["x-one"], first.json()) == (202, "1", {"a": 1})
    assert second.json() == {"a": 2}


@pytest.mark.parametrize("broken", [b"", b"what\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 two OK\r\n\r\n"])
async def test_a_broken_answer_is_an_error_and_the_next_request_is_not(broken: bytes) -> None:
    """Who breaks off, or talks something else, costs its connection alone."""
    async with server(broken, PLAIN) as url:
        pool = Pool(url, 1)
        with pytest.raises(OSError, match=r"\w"):
            await pool.get("/")
        assert (await pool.get("/")).status == 202
        pool.close()


async def test_a_request_that_is_given_up_leaves_no_answer_behind() -> None:
    """A cancelled request closes its connection: its late answer is nobody else's."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/slow" not in await reader.readuntil(b"\r\n\r\n"):
            writer.write(PLAIN)
        asked.set()
        await reader.read()

    asked = asyncio.Event()
    async with listening(talk) as url:
        pool = Pool(url, 1)
        slow = asyncio.create_task(pool.get("/slow"))
        await asked.wait()
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert (await pool.get("/fast")).json() == {"a": 1}
        pool.close()


@pytest.mark.parametrize("url", ["https://x", "127.0.0.1:8001", "http://", "ftp://x"])
def test_what_it_cannot_speak_is_refused(url: str) -> None:
    """Only plain http is spoken here."""
    with pytest.raises(ValueError, match="http://"):
        Pool(url, 1)


def test_percentiles_are_of_what_was_measured() -> None:
    """Nearest rank: each is a value that occurred."""
    assert percentiles([]) is None
    assert percentiles([3.0]) == Percentiles(3.0, 3.0, 3.0, 3.0)
    assert percentiles([float(n) for n in range(100, 0, -1)]) == Percentiles(50.0, 95.0, 99.0, 100.0)


def a_status(number: int, status: str = "succeeded") -> RequestStatus:
    return RequestStatus(
        id=f"r-{number}",
        job_id=f"job_{number}",
        text="t",
        status=status,
        created="2026-01-01T00:00:00.000Z",
        queued="2026-01-01T00:00:00.000Z",
        attempt=1,
        worker=f"w{number % 2}",
        started="2026-01-01T00:00:01.000Z",
        completed="2026-01-01T00:00:04.000Z",
        processing_time=3.0,
        steps_time=2.6,
        step_1=StepResult("a", "t1", 2.5),
        step_2=StepResult("b", "t2", 1.0),
    )


def an_efficiency(cpu_s: float, pid: int = 7) -> Efficiency:
    return Efficiency(0, 0, 0.0, 0, 0, 0, 0.0, 2, "", (ProcessUse("w", pid, 1, 1024, cpu_s),))


def a_report(tally: Tally, after: Efficiency | None = None) -> Report:
    return report_of(tally, an_efficiency(1.0), after or an_efficiency(1.3))


def a_run(count: int) -> Tally:
    tally = Tally(count)
    for number in range(count):
        tally.accept(f"r-{number}", 0.001)
        tally.finish(a_status(number))
    return tally


def test_the_report_adds_up() -> None:
    """Throughput from the first creation to the last end, added time beyond the longer step, CPU over all processes."""
    tally = a_run(100)
    tally.look(Sample(5, 70, 120, 10))
    tally.look(Sample(0, 0, 0, 110))
    report = a_report(tally)
    assert (report.accepted, report.succeeded, report.lost, report.elapsed_s) == (100, 100, 0, 4.0)
    assert report.throughput == 25.0
    assert report.latency == Percentiles(4.0, 4.0, 4.0, 4.0)
    assert report.added_s == pytest.approx(0.5)
    assert report.tracking_cpu_s == pytest.approx(0.003)
    assert report.tracking_percent == pytest.approx(0.1)
    assert (report.peak_in_flight, report.peak_queued, report.peak_threads) == (70, 5, 120)
    assert report.workers == {"w0": 50, "w1": 50}
    assert tally.done == 100
    assert report.good(allow_refused=False)


def test_cpu_is_not_told_of_other_processes() -> None:
    """A worker that was restarted meanwhile counts from zero: its CPU says nothing."""
    assert a_report(a_run(3), an_efficiency(0.1, pid=8)).tracking_cpu_s is None


def test_a_lost_failed_or_unanswered_request_is_no_success() -> None:
    """Everything accepted must have succeeded; a refusal is forgiven when that was the point."""
    lost = a_run(3)
    lost.accept("r-9", 0.1)
    assert a_report(lost).lost == 1
    assert not a_report(lost).good(allow_refused=True)
    failed = a_run(2)
    failed.accept("r-2", 0.1)
    failed.finish(a_status(2, "failed"))
    assert not a_report(failed).good(allow_refused=True)
    troubled = a_run(2)
    troubled.trouble("no answer")
    assert not a_report(troubled).good(allow_refused=True)
    refused = a_run(2)
    refused.refused = 1
    assert a_report(refused).good(allow_refused=True)
    assert not a_report(refused).good(allow_refused=False)
    assert not a_report(Tally(5)).good(allow_refused=True)


def test_the_report_is_json() -> None:
    """For `--json`."""
    assert msgspec.json.decode(msgspec.json.encode(a_report(a_run(2))))["accepted"] == 2
