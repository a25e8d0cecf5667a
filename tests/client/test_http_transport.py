"""The HTTP transport against answers played to it: what is sent, what is repeated, what is raised."""

from __future__ import annotations

import asyncio

import httpx
import msgspec
import pytest
from http_play import ENDED, JOB, ORDER, REPLAYED, RUNNING, Play, ok, problem

from ropeway.client.http import HttpTransport
from ropeway.client.problems import GatewayRefused
from ropeway.client.transport import Accepted, Order
from ropeway.client.wire import JobRequest
from ropeway.domain.errors import (
    EngineUnavailable,
    Forbidden,
    IdempotencyKeyReused,
    InputInvalid,
    InvalidRequest,
    JobLive,
    JobNotFound,
    KeyNotFound,
    OutcomeUnknown,
    PriorityNotAllowed,
    QueueFull,
    RateLimited,
    RopewayError,
    TooManyQueued,
    Unauthenticated,
)
from ropeway.domain.lifecycle import State
from ropeway.testing import seeded_random

# -- submit


async def test_a_submit_is_sent_as_a_person_would_write_it_with_a_key_of_its_own() -> None:
    """Below the path that the gateway is mounted at; the key makes it safe to repeat."""
    play = Play(ok(RUNNING, 202))
    async with play as transport:
        (accepted,) = await transport.submit([ORDER])
    (request,) = play.asked
    assert (request.method, str(request.url)) == ("POST", "http://gateway.test/ai/v1/jobs")
    assert msgspec.json.decode(request.content) == {"task": "greet", "input": {"name": "Ada"}}
    assert len(request.headers["idempotency-key"]) == 32
    assert accepted == ("job_1", False, False)


async def test_a_submit_whose_answer_was_lost_is_repeated_under_the_same_key() -> None:
    """The gateway may have it already: the same key makes the repeat harmless, and the caller sees one submit."""
    play = Play(httpx.ReadError("reset"), httpx.ConnectError("refused"), ok(RUNNING, headers=REPLAYED))
    async with play as transport:
        (accepted,) = await transport.submit([ORDER])
    assert len({request.headers["idempotency-key"] for request in play.asked}) == 1
    assert len(play.asked) == 3
    assert accepted == ("job_1", False, False)


async def test_a_key_of_the_callers_own_tells_of_a_replay() -> None:
    """`replayed` is about the caller's key, not about ours."""
    play = Play(ok(RUNNING, headers=REPLAYED))
    async with play as transport:
        assert await transport.submit([ORDER._replace(idempotency_key="mine")]) == [("job_1", True, False)]
    assert play.asked[0].headers["idempotency-key"] == "mine"


async def test_a_refusal_is_not_repeated() -> None:
    """A full queue is the caller's to judge: it comes back at once, with the time the gateway named."""
    play = Play(problem(503, "queue_full", {"Retry-After": "7"}, queue="hall", depth=1000))
    async with play as transport:
        (refusal,) = await transport.submit([ORDER])
    assert isinstance(refusal, QueueFull)
    assert (refusal.queue, refusal.depth, refusal.retry_after_s, refusal.detail) == ("hall", 1000, 7.0, "as told")
    assert play.waits == []


async def test_many_go_in_one_body_and_are_answered_line_by_line() -> None:
    """A line that is refused stands among those that are taken, in its own place."""
    answer = [
        {"status": 202, "job": {"id": "job_1", "state": "queued"}},
        {"status": 503, "problem": {"code": "queue_full", "detail": "as told", "queue": "hall", "depth": 5}},
        {"status": 202, "job": {"id": "job_3", "state": "queued"}},
    ]
    play = Play(httpx.Response(200, content=b"".join(msgspec.json.encode(line) + b"\n" for line in answer)))
    async with play as transport:
        first, second, third = await transport.submit([ORDER] * 3)
    assert (first, third) == (("job_1", False, False), ("job_3", False, False))
    assert isinstance(second, QueueFull)
    (request,) = play.asked
    assert request.headers["content-type"] == "application/x-ndjson"
    assert request.content == b"\n".join([b'{"task":"greet","input":{"name":"Ada"}}'] * 3)


async def test_a_job_with_a_key_of_its_own_goes_alone() -> None:
    """A body of many has one key; those of the callers are kept, and so is the order of the answers."""
    lines = (
        b'{"status":202,"job":{"id":"job_2","state":"queued"}}\n{"status":202,"job":{"id":"job_3","state":"queued"}}'
    )
    play = Play(ok(RUNNING, 202, REPLAYED), httpx.Response(200, content=lines))
    async with play as transport:
        answers = await transport.submit([ORDER, ORDER._replace(idempotency_key="mine"), ORDER])
    assert answers == [("job_2", False, False), ("job_1", True, False), ("job_3", False, False)]
    assert play.asked[0].headers["idempotency-key"] == "mine"


async def test_submits_that_come_together_go_together() -> None:
    """A hundred callers at once are one call, and each gets its own answer."""
    lines = b"".join(b'{"status":202,"job":{"id":"job_%d","state":"queued"}}\n' % n for n in range(100))
    play = Play(httpx.Response(200, content=lines))
    async with play as transport:
        answers = await asyncio.gather(*(transport.submit([ORDER]) for _ in range(100)))
    assert [answer.id for (answer,) in answers if isinstance(answer, Accepted)] == [f"job_{n}" for n in range(100)]
    assert len(play.asked) == 1


async def test_what_fails_for_all_is_told_to_each() -> None:
    """A gateway out of reach leaves nobody waiting."""
    async with Play(*[httpx.ConnectError("refused")] * 9) as transport:
        calls = [transport.submit([ORDER]) for _ in range(3)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, EngineUnavailable) for answer in answers)


async def test_a_caller_that_leaves_takes_nobody_along() -> None:
    """One of many callers is cancelled; the others get their answers."""
    lines = b"".join(b'{"status":202,"job":{"id":"job_%d","state":"queued"}}\n' % n for n in range(2))
    async with Play(httpx.Response(200, content=lines)) as transport:
        leaving, staying = (asyncio.ensure_future(transport.submit([ORDER])) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == [("job_1", False, False)]


async def test_many_large_ones_go_in_several_bodies() -> None:
    """No body is larger than a gateway takes."""
    large = Order(JobRequest("greet", msgspec.Raw(b'"' + b"x" * (3 << 20) + b'"')))
    line = b'{"status":202,"job":{"id":"job_1","state":"queued"}}\n'
    play = Play(httpx.Response(200, content=line * 2), httpx.Response(200, content=line * 2))
    async with play as transport:
        assert len(await transport.submit([large] * 4)) == 4
    assert all(len(request.content) < 8 << 20 for request in play.asked)


async def test_answers_that_do_not_match_the_lines_are_told() -> None:
    """A proxy that cuts an answer short must not shift jobs onto the wrong calls."""
    async with Play(httpx.Response(200, content=b'{"status":202,"job":{"id":"job_1","state":"queued"}}')) as transport:
        with pytest.raises(GatewayRefused):
            await transport.submit([ORDER] * 2)


# -- what is raised


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(404, "job_not_found"), JobNotFound),
        (problem(409, "job_live"), JobLive),
        (problem(422, "idempotency_key_reused"), IdempotencyKeyReused),
        (problem(429, "too_many_queued"), TooManyQueued),
        (problem(429, "rate_limited"), RateLimited),
        (httpx.Response(404, text="<html>nginx</html>"), GatewayRefused),
        (problem(401, "unauthenticated"), Unauthenticated),
        (problem(403, "forbidden"), Forbidden),
        (problem(403, "priority_not_allowed"), PriorityNotAllowed),
        (problem(404, "key_not_found"), KeyNotFound),
        (problem(418, "teapot"), GatewayRefused),
    ],
)
async def test_a_problem_is_raised_as_the_error_that_it_stands_for(
    answer: httpx.Response, kind: type[RopewayError]
) -> None:
    """Code that catches errors of an engine catches a gateway's the same; what has no class says its own code."""
    async with Play(answer) as transport:
        with pytest.raises(kind) as caught:
            await transport.get("job_1")
    if isinstance(caught.value, GatewayRefused):
        assert caught.value.status == answer.status_code


@pytest.mark.parametrize("content", [b"<html>", b'{"id": 5}', b"\xff"])
async def test_an_answer_that_is_none_of_a_gateways_is_told(content: bytes) -> None:
    """A URL of something else than a gateway gives a sentence with that URL, not a decoder's error."""
    async with Play(httpx.Response(200, content=content)) as transport:
        with pytest.raises(GatewayRefused, match=r"gateway\.test/ai/v1/jobs/job_1"):
            await transport.get("job_1")


async def test_faults_and_params_come_along() -> None:
    """Where an input is wrong, and which field, survive the journey."""
    faults = [{"pointer": "/name", "detail": "is required"}]
    async with Play(problem(422, "input_invalid", errors=faults)) as transport:
        (refusal,) = await transport.submit([ORDER])
    assert isinstance(refusal, InputInvalid)
    assert [(fault.pointer, fault.detail) for fault in refusal.faults] == [("/name", "is required")]
    async with Play(problem(400, "invalid_request", error={"param": "delay"})) as transport:
        (refusal,) = await transport.submit([ORDER])
    assert isinstance(refusal, InvalidRequest)
    assert refusal.param == "delay"


@pytest.mark.parametrize("code", ["draining", "engine_unavailable", "outcome_unknown", "too_many_streams", ""])
async def test_a_gateway_that_is_away_is_asked_again(code: str) -> None:
    """A drain, a proxy's 502: the next one may answer. Retry-After is honoured."""
    play = Play(problem(503, code, {"Retry-After": "2"}), ok(ENDED | JOB))
    async with play as transport:
        assert (await transport.get("job_1")).state is State.succeeded
    (wait,) = play.waits
    assert wait >= 2


async def test_a_gateway_that_stays_away_is_given_up() -> None:
    """The error says where it was looked for, and whether anything may have happened."""
    async with Play(*[httpx.ConnectError("refused")] * 9) as transport:
        with pytest.raises(EngineUnavailable, match=r"gateway\.test") as caught:
            await transport.get("job_1")
    assert not isinstance(caught.value, OutcomeUnknown)
    async with Play(*[httpx.ReadTimeout("")] * 9) as transport:
        with pytest.raises(OutcomeUnknown):
            await transport.cancel("job_1", None)


async def test_a_wait_longer_than_is_sensible_is_not_sat_out() -> None:
    """Told to come back in an hour, the caller is told at once."""
    play = Play(problem(503, "draining", {"Retry-After": "3600"}))
    async with play as transport:
        with pytest.raises(EngineUnavailable) as caught:
            await transport.get("job_1")
    assert caught.value.retry_after_s == 3600
    assert play.waits == []


async def test_a_transport_that_is_not_open_says_so() -> None:
    """Instead of failing deep inside."""
    with pytest.raises(EngineUnavailable, match="async with"):
        await Play().transport.get("job_1")


@pytest.mark.parametrize("url", ["http://", "http://[", "https:///path"])
def test_a_url_that_leads_nowhere_is_refused(url: str) -> None:
    """At once, where it was written."""
    with pytest.raises(InvalidRequest):
        HttpTransport(url, random=seeded_random(1))


# -- wait


async def test_a_waking_whose_answer_was_lost_is_repeated() -> None:
    """A job that goes on already is not changed by it."""
    play = Play(httpx.ReadError("reset"), ok({**JOB, "id": "job_1", "state": "queued", "after": ["job_0"]}))
    async with play as transport:
        job = await transport.wake("job_1")
    assert (job.state, job.after) == (State.queued, ("job_0",))
    assert [(one.method, one.url.path) for one in play.asked] == [("POST", "/ai/v1/jobs/job_1/wake")] * 2


async def test_a_result_is_waited_for_by_long_polls() -> None:
    """The gateway holds each poll; the client asks again until the job has ended."""
    play = Play(ok(RUNNING), httpx.ReadError("reset"), ok(RUNNING), ok(ENDED))
    async with play as transport:
        ending = await transport.ending("job_1", None)
    assert bytes(ending.output) == b'{"text":"hello"}'
    assert [request.url.params["wait"] for request in play.asked] == ["30.000"] * 4
