"""Providers that fail, refuse or mean harm: what is tried again, when, and what the job is told."""

from __future__ import annotations

import asyncio
import gzip
from email.utils import formatdate
from typing import Any

import pytest
from models_support import (
    DONE,
    KEY,
    PATIENCE_S,
    Exchange,
    Script,
    TheJob,
    Throttled,
    Time,
    ask,
    asked,
    chunk,
    provider,
    refuses,
    says,
    upstream,
)

from ropeway import ChatDelta, Fail
from ropeway.domain.errors import RetryAfter, TaskFault
from ropeway.testing.clock import START_MS

BROKEN = (408, 409, 500, 502, 503, 529)


# -- tried again, before the first piece


@pytest.mark.parametrize("status", BROKEN)
async def test_a_provider_that_fails_is_asked_again(status: int) -> None:
    """With full jitter: each wait is its part of a ceiling that doubles. Nobody sees that there were tries."""
    time = Time()
    async with provider(refuses(status), refuses(status), says("a", "b")) as on, upstream(on, time, jitter=0.5) as up:
        assert await ask(up) == ["a", "b"]
    assert time.slept == [0.25, 0.5]


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after_ms": "300"}, 0.3),
        ({"retry_after": formatdate(2_000_000_009, usegmt=True), "date": formatdate(2_000_000_000, usegmt=True)}, 9.0),
        ({"retry_after": formatdate(START_MS / 1000 + 4, usegmt=True)}, 4.0),
        ({"retry_after": formatdate(1_000_000_000, usegmt=True)}, 0.0),
        ({"retry_after": "soon"}, 0.0),
        ({"retry_after": "-5"}, 0.0),
        ({"retry_after": "nan"}, 0.0),
        ({"retry_after": "9" * 400}, 0.0),
        ({"retry_after": "Fri, 99 Nov 99999 99:99:99 GMT"}, 0.0),
    ],
)
async def test_asked_to_wait_we_wait(headers: dict[str, Any], wait_s: float) -> None:
    """Seconds, milliseconds, or a date against the provider's own clock; nonsense is as if nothing was said."""
    time = Time()
    async with provider(refuses(429, **headers), says("ok")) as on, upstream(on, time) as up:
        assert await ask(up) == ["ok"]
    assert sum(time.slept) == pytest.approx(wait_s)


async def test_a_long_wait_is_the_jobs_and_not_the_workers() -> None:
    """The job goes back to run after it; the worker's place is not held."""
    time = Time()
    async with provider(refuses(429, "slow down", retry_after="90")) as on, upstream(on, time) as up:
        job = TheJob()
        with pytest.raises(Throttled) as limited:
            await ask(up, job=job)
    assert limited.value.args == (90.0,)
    assert job.told == [(None, None, 90.0)], "all workers wait"
    assert (time.slept, len(on.calls)) == ([], 1)


@pytest.mark.parametrize(
    "headers",
    [
        {"x_ratelimit_remaining_requests": "7", "x_ratelimit_remaining_tokens": "1200"},
        {"anthropic_ratelimit_requests_remaining": "7", "anthropic_ratelimit_tokens_remaining": "1200"},
    ],
)
async def test_what_the_provider_says_is_left_is_passed_on(headers: dict[str, Any]) -> None:
    """By its headers, for the budget that this upstream has; without one nobody is told."""
    async with provider(refuses(400, **headers), refuses(400, **headers)) as on:
        for budget, told in (("openai", [("openai:requests", 7.0, 0.0), ("openai:tokens", 1200.0, 0.0)]), (None, [])):
            job = TheJob()
            async with upstream(on, budget=budget) as up:
                with pytest.raises(Fail):
                    await ask(up, job=job)
            assert job.told == told


async def test_a_provider_cannot_park_a_job_for_a_year() -> None:
    """Asked to wait for longer than an hour, we ask again after an hour."""
    async with provider(refuses(503, retry_after="31536000")) as on, upstream(on) as up:
        with pytest.raises(RetryAfter) as told:
            await ask(up)
    assert told.value.after_s == 3_600.0


async def test_no_try_is_begun_that_the_jobs_own_time_does_not_cover() -> None:
    """With 10 s for the attempt, a wait of 6 s is waited once and not twice."""
    time = Time()
    async with provider(refuses(429, retry_after="6")) as on, upstream(on, time) as up:
        with pytest.raises(Throttled):
            await ask(up, job=TheJob(timeout=10.0))
    assert (sum(time.slept), len(on.calls)) == (6.0, 2)


async def test_tries_come_to_an_end() -> None:
    """After the last one the failure is the job's, to be retried by its own policy."""
    time = Time()
    async with provider(refuses(500, "boom")) as on, upstream(on, time) as up:
        with pytest.raises(RetryAfter, match="500: boom") as failed:
            await ask(up)
    assert failed.value.fault_code == "provider_error"
    assert len(on.calls) == 4


async def test_one_refusal_for_rate_holds_up_all_calls() -> None:
    """While the provider takes none of us, nobody else asks it; one that would wait too long is told so."""
    time = Time()
    async with provider(refuses(429, retry_after="15"), says("ok")) as on, upstream(on, time) as up:
        assert await ask(up) == ["ok"]
        assert time.slept == [15.0]
    async with provider(refuses(429, retry_after="40"), says("ok")) as on, upstream(on, time) as up:
        for wanted_s in (40.0, 40.0):
            with pytest.raises(Throttled) as limited:
                await ask(up)
            assert limited.value.args == (wanted_s,)
        assert len(on.calls) == 1
        time.clock.advance(s=41)
        assert await ask(up) == ["ok"]


async def test_nobody_listens_there() -> None:
    """A provider that cannot be reached is tried again, too."""
    time = Time()
    async with provider(says("ok")) as on:
        pass
    async with upstream(on, time) as up:
        with pytest.raises(RetryAfter, match="could not be reached: ConnectError") as failed:
            await ask(up)
    assert (failed.value.fault_code, len(time.slept)) == ("provider_error", 3)


# -- not tried again


@pytest.mark.parametrize(("status", "code"), [(400, "input_invalid"), (413, "input_invalid"), (422, "input_invalid")])
async def test_a_request_at_fault_stays_so(status: int, code: str) -> None:
    """The caller is told what the provider said of it."""
    async with provider(refuses(status, "messages: too long")) as on, upstream(on) as up:
        with pytest.raises(Fail, match=f"{status}: messages: too long") as failed:
            await ask(up)
    assert (failed.value.fault_code, len(on.calls)) == (code, 1)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_told_without_what_the_provider_said(status: int) -> None:
    """Its answer may repeat the key, whole or in part."""
    async with provider(refuses(status, f"Incorrect API key: {KEY[:9]}***")) as on, upstream(on) as up:
        with pytest.raises(Fail) as failed:
            await ask(up)
    assert str(failed.value) == f"the provider does not accept our key ({status})"


@pytest.mark.parametrize("status", [301, 307, 404, 418])
async def test_other_answers_are_the_operators_to_mend(status: int) -> None:
    """A redirect is not followed either: it would take the key along."""
    async with provider(refuses(status, location="http://127.0.0.1:1/v1"), says("no")) as on, upstream(on) as up:
        with pytest.raises(Fail) as failed:
            await ask(up)
    assert (failed.value.fault_code, len(on.calls)) == ("provider_error", 1)


async def test_a_spent_account_is_not_asked_again() -> None:
    """No wait brings money."""
    async with provider(refuses(429, "You exceeded your quota", code="insufficient_quota")) as on, upstream(on) as up:
        with pytest.raises(Fail) as failed:
            await ask(up)
    assert (failed.value.fault_code, len(on.calls)) == ("provider_rate_limited", 1)


@pytest.mark.parametrize(
    "body",
    [
        f"your key {KEY} is odd".encode() + b"x" * 1_000_000,
        b'{"error": {"message": "' + b"y" * 9_000 + KEY.encode() + b'"}}',
        b"\x00\xff\xfe\x1b[31m" + KEY.encode() + b"\r\nset-cookie: a=b",
        b'{"error": ["' + KEY.encode() + b'"]}',
        b"[" * 5_000,
        b"",
    ],
)
async def test_little_is_told_of_a_refusal_and_never_the_key(body: bytes) -> None:
    """At most 1 kB, printable, with the key masked."""
    async with provider(refuses(400, body=body)) as on, upstream(on) as up:
        with pytest.raises(Fail) as failed:
            await ask(up)
    assert KEY not in str(failed.value)
    assert len(str(failed.value)) < 1_100
    assert str(failed.value).isprintable()


# -- in the midst of an answer


async def cut(exchange: Exchange) -> None:
    await exchange.head()
    await exchange.raw(chunk("half"))


async def half(exchange: Exchange) -> None:
    await cut(exchange)
    await exchange.heard.wait()


async def cut_chunked(exchange: Exchange) -> None:
    await exchange.head(transfer_encoding="chunked")
    await exchange.raw(b"%x\r\n%s\r\n" % (len(chunk("half")), chunk("half")))


async def done_without_an_end(exchange: Exchange) -> None:
    await half(exchange)
    await exchange.raw(DONE)


async def garbage(exchange: Exchange) -> None:
    await half(exchange)
    await exchange.raw(b"data: {nonsense\n\n" + chunk("never"))


async def falls_silent(exchange: Exchange) -> None:
    await half(exchange)
    await exchange.left()


async def an_error(exchange: Exchange) -> None:
    await half(exchange)
    await exchange.raw(b'data: {"error": {"message": "engine overloaded", "type": "server_error"}}\n\n')


async def endless_line(exchange: Exchange) -> None:
    await half(exchange)
    while True:
        await exchange.raw(b"x" * 1024)


async def endless_event(exchange: Exchange) -> None:
    await half(exchange)
    while True:
        await exchange.raw(b"data:\n" * 200)


async def endless_answer(exchange: Exchange) -> None:
    await half(exchange)
    while True:
        await exchange.raw(chunk(reasoning="x" * 1_000))


MIDST: list[tuple[Script, str]] = [
    (cut, "cut off"),
    (cut_chunked, "cut off: RemoteProtocolError"),
    (done_without_an_end, "cut off: it ended early"),
    (garbage, "no chat chunk"),
    (falls_silent, "nothing came for 0.1 s"),
    (an_error, "engine overloaded"),
    (endless_line, "more than 65536 bytes"),
    (endless_event, "more than 65536 bytes"),
    (endless_answer, "larger than 1000000 bytes"),
]


@pytest.mark.parametrize(("script", "why"), MIDST, ids=lambda value: getattr(value, "__name__", ""))
async def test_what_breaks_in_the_midst_is_the_jobs(script: Script, why: str) -> None:
    """What came before it is delivered; the provider is not asked a second time, and the job may retry."""
    time = Time()
    pieces: list[str | ChatDelta] = []
    idle_s = 0.1 if script is falls_silent else PATIENCE_S
    limits: dict[str, Any] = {"idle_s": idle_s, "max_line_bytes": 65_536, "max_answer_bytes": 1_000_000}
    async with provider(script) as on, upstream(on, time, **limits) as up:
        with pytest.raises(RetryAfter, match=why) as failed:
            async for piece in up.chat(asked(), TheJob()):
                pieces.append(piece)
                on.heard.set()
    assert failed.value.fault_code == "provider_error"
    assert pieces[0] == "half"
    assert (len(on.calls), time.slept) == (1, [])


@pytest.mark.parametrize(("script", "why"), MIDST[1:2] + MIDST[3:4], ids=["cut", "garbage"])
async def test_the_same_before_the_first_piece_is_tried_again(script: Script, why: str) -> None:
    """Nobody has seen anything: what broke in one read with its first piece counts as before it."""

    async def at_once(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.raw(b"data: {nonsense\n\n" if script is garbage else b": nothing yet\n\n")

    async with provider(at_once, says("whole")) as on, upstream(on) as up:
        assert await ask(up) == ["whole"]


async def test_a_rate_limit_in_the_stream_has_its_code() -> None:
    """Some providers tell it as an event of the stream."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.raw(b'data: {"error": {"message": "later", "code": "rate_limit_exceeded"}}\n\n')

    async with provider(script) as on, upstream(on) as up:
        with pytest.raises(RetryAfter) as failed:
            await ask(up)
    assert failed.value.fault_code == "provider_rate_limited"


async def test_a_trickle_does_not_last_for_ever() -> None:
    """A piece now and then keeps an answer alive, but not beyond its time."""
    time = Time()

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        while True:
            await exchange.raw(chunk("drip"))

    async with provider(script) as on, upstream(on, time, total_s=30.0) as up:
        with pytest.raises(RetryAfter, match="longer than 30 s"):
            async for _ in up.chat(asked(), TheJob()):
                time.clock.advance(s=1)


# -- providers that are none


async def never_answers(exchange: Exchange) -> None:
    await exchange.left()


async def only_comments(exchange: Exchange) -> None:
    await exchange.head()
    while True:
        await exchange.raw(b": still thinking\n\n")
        await asyncio.sleep(0)


async def no_http(exchange: Exchange) -> None:
    await exchange.raw(b"SSH-2.0-OpenSSH_9.2\r\n" * 10)


async def endless_head(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\n")
    while True:
        await exchange.raw(b"x-more: " + b"y" * 4_000 + b"\r\n")


async def a_page(exchange: Exchange) -> None:
    await exchange.head(kind="text/html")
    await exchange.raw(b"<html>log in here</html>")


async def compressed(exchange: Exchange) -> None:
    await exchange.head(content_encoding="gzip")
    await exchange.raw(gzip.compress(chunk("x" * 1_000_000)))


@pytest.mark.parametrize(
    ("script", "why", "kind"),
    [
        (never_answers, "no answer within 0.2 s", RetryAfter),
        (only_comments, "no answer within 0.2 s|longer than", RetryAfter),
        (no_http, "could not be reached: RemoteProtocolError", RetryAfter),
        (endless_head, "could not be reached: RemoteProtocolError", RetryAfter),
        (a_page, "'text/html'", Fail),
        (compressed, "plain event stream", Fail),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_provider_that_is_none_is_told_from_one(script: Script, why: str, kind: type[TaskFault]) -> None:
    """It costs no more than the time and the bytes that are allowed for."""
    first_token_s = 0.2 if script in (never_answers, only_comments) else PATIENCE_S
    async with provider(script) as on, upstream(on, first_token_s=first_token_s) as up:
        with pytest.raises(kind, match=why) as failed:
            await ask(up)
    assert isinstance(failed.value, TaskFault)
    assert failed.value.fault_code == "provider_error"
