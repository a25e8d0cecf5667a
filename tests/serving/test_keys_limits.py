"""What a key, and a tenant with all its keys, may take: rates, jobs that wait, tasks, priorities, sizes, streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from keys_support import bearer, keyed, problem
from serving_support import ENGINES

from ropeway.client.keys import KeyLimits
from ropeway.domain.caller import Limits
from ropeway.testing.faults import FaultyEngine

# -- rates


async def test_a_rate_is_told_and_kept() -> None:
    """The headers count down from the first answer on; then 429, with when to come back, and only for this key."""
    async with keyed() as k:
        token, other = await k.key(requests_per_min=3), await k.key()
        answers = [await k.ask("GET", "/v1/tasks", token) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"key";q=3;w=60'}
        assert [answer.headers["ratelimit"] for answer in answers[:3]] == [
            '"key";r=2;t=20',
            '"key";r=1;t=40',
            '"key";r=0;t=60',
        ]
        refused = answers[3]
        assert problem(refused) == (429, "rate_limited")
        assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("20", "true")
        assert refused.json()["retryable"] is True
        assert refused.json()["error"]["type"] == "rate_limit_error"
        unlimited = await k.ask("GET", "/v1/tasks", other)
        assert unlimited.status_code == 200
        assert "ratelimit" not in unlimited.headers


async def test_the_headers_are_on_refusals_and_streams_too() -> None:
    """Every answer of a limited key has them, whatever it is."""
    async with keyed() as k:
        token = await k.key(requests_per_min=30)
        assert (await k.ask("GET", "/v1/jobs/none", token)).headers["ratelimit"] == '"key";r=29;t=2'
        assert (await k.ask("GET", "/v1/nothing", token)).headers["ratelimit"] == '"key";r=28;t=4'
        async with k.stage.call("GET", "/v1/events", headers=bearer(token)) as call:
            await call.until(lambda _: call.status != 0)
            assert call.answer_headers["ratelimit"] == '"key";r=27;t=6'
        forbidden = await k.ask("GET", "/v1/keys", await k.key(["jobs:read"], requests_per_min=5))  # type: ignore[list-item]
        assert (forbidden.status_code, forbidden.headers["ratelimit-policy"]) == (403, '"key";q=5;w=60')


async def test_keys_of_a_tenant_share_its_rate() -> None:
    """Each has its own besides; what one is refused costs the others nothing."""
    async with keyed() as k:
        await k.ring.set_limits("acme", Limits(requests_per_min=4))
        one, other = await k.key(requests_per_min=2), await k.key()
        rival = await k.key(tenant="rival")
        statuses = [(await k.ask("GET", "/v1/tasks", one)).status_code for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        assert [(await k.ask("GET", "/v1/tasks", other)).status_code for _ in range(3)] == [200, 200, 429]
        told = (await k.ask("GET", "/v1/tasks", one)).headers
        assert told["ratelimit-policy"] == '"key";q=2;w=60, "tenant";q=4;w=60'
        assert (await k.ask("GET", "/v1/tasks", rival)).status_code == 200


async def test_each_line_of_many_counts() -> None:
    """Else one body of a thousand jobs would be one request. Without the rate for it, none of them is taken."""
    async with keyed() as k:
        token = await k.key(requests_per_min=5)
        lines = b'{"task":"free"}\n' * 3

        async def many() -> Any:
            headers = {"content-type": "application/x-ndjson"}
            return await k.ask("POST", "/v1/jobs", token, content=lines, headers=headers)

        first, second = await many(), await many()
        assert (first.status_code, first.headers["ratelimit"]) == (200, '"key";r=2;t=36')
        assert problem(second) == (429, "rate_limited")
        assert len((await k.ask("GET", "/v1/jobs", await k.key())).json()["data"]) == 3


async def test_only_those_with_a_rate_pay_for_it() -> None:
    """Nobody else's request asks the engine for a bucket."""
    faulty: list[FaultyEngine] = []

    def wrap(engine: Any) -> Any:
        faulty.append(FaultyEngine(engine, lambda method, nth: None))
        return faulty[0]

    async with keyed(wrap=wrap) as k:
        await k.ask("GET", "/v1/tasks", await k.key())
        assert faulty[0].calls["spend"] == 0
        await k.ask("GET", "/v1/tasks", await k.key(requests_per_min=5))
        assert faulty[0].calls["spend"] == 1


# -- jobs


@pytest.mark.parametrize("engine", ENGINES)
async def test_no_more_jobs_wait_than_may(engine: str, tmp_path: Path) -> None:
    """429 `too_many_queued` for the next one, also within a body of many and for a retry; leased ones make room."""
    async with keyed(engine, tmp_path) as k:
        token = await k.key(max_queued=2)
        done = await k.submit(token)
        await k.stage.hand.succeed(await k.stage.hand.take(), 1)
        headers = {"content-type": "application/x-ndjson"}
        answer = await k.ask("POST", "/v1/jobs", token, content=b'{"task":"free"}\n' * 3, headers=headers)
        told = [msgspec.json.decode(line) for line in answer.content.splitlines()]
        assert [line["status"] for line in told] == [202, 202, 429]
        assert told[2]["problem"]["code"] == "too_many_queued"
        assert problem(await k.ask("POST", f"/v1/jobs/{done}/retry", token)) == (429, "too_many_queued")
        assert (await k.ask("POST", f"/v1/jobs/{done}/retry", await k.key())).status_code == 202, "another key's limit"
        rival = await k.key(tenant="rival", max_queued=2)
        await k.submit(rival)
        await k.submit(token, queue="other")
        for _ in range(5):
            await k.stage.hand.take()
        assert (await k.ask("POST", f"/v1/jobs/{done}/retry", token)).status_code == 202
        assert problem(await k.ask("POST", f"/v1/jobs/{done}x/retry", token)) == (404, "job_not_found")


async def test_the_tenants_limit_holds_for_each_of_its_keys() -> None:
    """The narrower of both counts, in all respects."""
    async with keyed() as k:
        await k.ring.set_limits("acme", Limits(max_queued=1, tasks=("free",), max_priority="normal"))
        wide, narrow = await k.key(max_queued=9), await k.key(tasks=("greet",), max_priority="low")
        await k.submit(wide)
        assert problem(await k.ask("POST", "/v1/jobs", wide, json={"task": "free"})) == (429, "too_many_queued")
        for body in ({"task": "free"}, {"task": "greet", "input": {"name": "x"}}):
            assert (await k.ask("POST", "/v1/jobs", narrow, json=body)).status_code == 403
        high = await k.ask("POST", "/v1/jobs", wide, json={"task": "free", "priority": "high"})
        assert problem(high) == (403, "priority_not_allowed")


async def test_tasks_and_priorities_are_a_keys_own() -> None:
    """403 for another task, and `priority_not_allowed` above its own; also when an old job is run again."""
    async with keyed() as k:
        token, free = await k.key(tasks=("greet",), max_priority="normal"), await k.key()
        other = await k.ask("POST", "/v1/jobs", token, json={"task": "free"})
        assert problem(other) == (403, "forbidden")
        assert "free" in other.json()["detail"]
        high = await k.ask(
            "POST", "/v1/jobs", token, json={"task": "greet", "input": {"name": "x"}, "priority": "high"}
        )
        assert problem(high) == (403, "priority_not_allowed")
        assert high.json()["error"]["type"] == "permission_error"
        ok = await k.ask("POST", "/v1/jobs", token, json={"task": "greet", "input": {"name": "x"}, "priority": "low"})
        assert ok.status_code == 202
        done = await k.submit(free, priority="high")
        await k.stage.hand.succeed(await k.stage.hand.take(), 1)
        assert problem(await k.ask("POST", f"/v1/jobs/{done}/retry", token)) == (403, "forbidden")


# -- sizes and streams


async def test_a_body_is_as_large_as_its_key_may_send() -> None:
    """Counted while it comes; for one job, for many, and for what changes something."""
    async with keyed() as k:
        token = await k.key(max_body_bytes=100)
        big = msgspec.json.encode({"task": "free", "input": "x" * 200})
        for kind in ("application/json", "application/x-ndjson"):
            answer = await k.ask("POST", "/v1/jobs", token, content=big, headers={"content-type": kind})
            assert problem(answer) == (413, "payload_too_large")
            assert "100 bytes" in answer.json()["detail"]
        assert problem(await k.ask("POST", "/v1/keys", token, json={"name": "n" * 99})) == (413, "payload_too_large")
        await k.submit(token)


async def test_streams_are_counted_for_keys_and_for_tenants() -> None:
    """429 for the next, before a job is taken for it; each that closes makes room."""
    async with keyed() as k:
        await k.ring.set_limits("acme", Limits(max_streams=2))
        token, other = await k.key(max_streams=1), await k.key()
        async with k.stage.call("GET", "/v1/events", headers=bearer(token)) as one:
            await one.until(lambda _: one.status != 0)
            refused = await k.ask("GET", "/v1/events", token)
            assert problem(refused) == (429, "rate_limited")
            assert refused.headers["retry-after"] == "5"
            sse = {"accept": "text/event-stream"}
            submitted = await k.ask("POST", "/v1/jobs", token, json={"task": "free"}, headers=sse)
            assert submitted.status_code == 429
            assert (await k.ask("GET", "/v1/jobs", token)).json()["data"] == [], "not taken"
            waited = await k.ask("POST", "/v1/jobs", token, json={"task": "free"}, headers={"prefer": "wait=60"})
            assert waited.status_code == 202, "taken, and answered at once"
            async with k.stage.call("GET", "/v1/events", headers=bearer(other)) as two:
                await two.until(lambda _: two.status != 0)
                assert problem(await k.ask("GET", "/v1/events", other)) == (429, "rate_limited")
        async with k.stage.call("GET", "/v1/events", headers=bearer(token)) as again:
            await again.until(lambda _: again.status != 0)
            assert again.status == 200


# -- how limits are set


async def test_limits_are_set_whole() -> None:
    """What is said last holds alone, on all gateways within a second, for keys that are in use too."""
    async with keyed() as k:
        admin, token = await k.key(tenant="ops"), await k.key()
        assert (await k.ask("GET", "/v1/tenants/acme", admin)).json() == {"name": "acme", "limits": {}}
        body = {"requests_per_min": 1, "max_priority": "normal"}
        put = await k.ask("PUT", "/v1/tenants/acme", admin, json=body)
        assert put.json() == {"name": "acme", "limits": {"requests_per_min": 1.0, "max_priority": "normal"}}
        k.later()
        assert [(await k.ask("GET", "/v1/tasks", token)).status_code for _ in range(2)] == [200, 429]
        await k.ask("PUT", "/v1/tenants/acme", admin, json={"max_queued": 7})
        assert (await k.ask("GET", "/v1/tenants", admin)).json() == {
            "data": [{"name": "acme", "limits": {"max_queued": 7}}]
        }
        k.later()
        assert (await k.ask("GET", "/v1/tasks", token)).status_code == 200
        wrong = await k.ask("PUT", "/v1/tenants/acme", admin, json={"max_runing": 1})
        assert problem(wrong) == (400, "invalid_request")
        assert (await k.ask("PUT", "/v1/tenants/a%20b", admin, json={})).status_code == 400


def test_the_narrower_of_two_limits() -> None:
    """Field by field; rates stay apart, since each is counted by itself."""
    one = Limits(requests_per_min=5, max_queued=3, tasks=("a", "b"), max_priority="high")
    two = Limits(requests_per_min=9, max_queued=7, max_streams=2, tasks=("b", "c"), max_priority="low")
    assert one.within(two) == Limits(requests_per_min=5, max_queued=3, max_streams=2, tasks=("b",), max_priority="low")
    assert Limits().within(one) == msgspec.structs.replace(one, requests_per_min=None)
    assert KeyLimits.of(one.within(Limits())).limits() == one
