"""Following a job over HTTP: how a stream comes back, whatever ended its connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx
import msgspec
import pytest
from http_play import Answer, Play, problem

from ropeway.domain.errors import EngineUnavailable, JobNotFound


def event(id: str, type: str = "output.delta") -> bytes:  # noqa: A002
    seq = int(id.partition("-")[2])
    body = {"id": id, "seq": seq, "type": type, "job_id": "job_1", "attempt": 1, "at": "", "data": {}}
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (id.encode(), type.encode(), msgspec.json.encode(body))


class Broken(httpx.AsyncByteStream):
    """A body that breaks after its bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content
        raise httpx.ReadError("reset")


def streamed(*blocks: bytes) -> httpx.Response:
    return httpx.Response(200, content=b"".join(blocks))


def broken(*blocks: bytes) -> httpx.Response:
    return httpx.Response(200, stream=Broken(b"".join(blocks)))


async def followed(play: Play, after: str | None = None) -> list[str]:
    async with play as transport:
        return [body.id async for body in transport.events("job_1", after)]


LAST = event("5-9", "job.succeeded")


@pytest.mark.parametrize(
    "interruption",
    [
        lambda: [broken(event("5-1"), event("5-2"))],
        lambda: [streamed(event("5-1"), event("5-2"))],
        lambda: [streamed(event("5-1"), event("5-2"), b'event: reconnect\ndata: {"after_ms": 10}\n\n')],
        lambda: [streamed(event("5-1"), event("5-2"), b"id: 5-3\nevent: log\nda")],
        lambda: [broken(event("5-1"), event("5-2")), httpx.ConnectError("refused"), problem(503, "draining")],
    ],
    ids=["reset", "closed", "reconnect", "cut short", "down for a while"],
)
async def test_a_stream_that_ends_early_is_resumed_after_its_last_id(
    interruption: Callable[[], list[Answer]],
) -> None:
    """Whatever ended the connection, the reader sees one stream: nothing twice, nothing lost."""
    play = Play(*interruption(), streamed(event("5-3"), LAST))
    assert await followed(play, after="5-0") == ["5-1", "5-2", "5-3", "5-9"]
    ids = [request.headers["last-event-id"] for request in play.asked]
    assert (ids[0], ids[-1]) == ("5-0", "5-2")


async def test_a_server_that_says_when_to_come_back_is_obeyed() -> None:
    """`reconnect` names the time."""
    play = Play(streamed(b'event: reconnect\ndata: {"after_ms": 4000}\n\n'), streamed(LAST))
    assert await followed(play) == ["5-9"]
    assert play.waits[0] >= 4


async def test_past_the_end_there_is_nothing() -> None:
    """204 ends the reading."""
    assert await followed(Play(httpx.Response(204)), after="5-9") == []


async def test_a_stream_that_is_refused_raises() -> None:
    """A job that is not there is not waited for."""
    with pytest.raises(JobNotFound):
        await followed(Play(problem(404, "job_not_found")))


async def test_a_stream_that_stays_away_is_given_up() -> None:
    """After half a minute without contact the reader is told."""
    play = Play(streamed(event("5-1")), *[httpx.ConnectError("refused")] * 30)
    with pytest.raises(EngineUnavailable, match="event stream"):
        await followed(play)
    assert sum(play.waits) < 120
