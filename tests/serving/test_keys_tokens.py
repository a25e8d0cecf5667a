"""Tokens for pages: one job, an hour at the most, no more than the key that made them; and pages of other origins."""

from __future__ import annotations

import logging
from random import Random
from typing import Any

import msgspec
import pytest
from keys_support import Keyed, bearer, keyed, problem
from serving_support import QUICK, blocks_of, stage

from ropeway.domain.caller import Scope
from ropeway.domain.record import RecordKey
from ropeway.serving import Gateway, GatewayOptions
from ropeway.serving.keys.passes import Passes

DAY_S = 86_400


async def token_of(k: Keyed, key: str, job: str, **body: Any) -> str:
    answer = await k.ask("POST", f"/v1/jobs/{job}/token", key, json=body)
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["token"]
    return token


async def test_a_page_follows_its_job_with_a_token() -> None:
    """As `?token=`, since an EventSource can set no header; the answer names the whole address."""
    async with keyed() as k:
        key = await k.key()
        job = await k.submit(key)
        made = (await k.ask("POST", f"/v1/jobs/{job}/token", key, json={"ttl": 60})).json()
        assert (made["job_id"], made["scopes"]) == (job, ["jobs:read"])
        await k.stage.hand.succeed(await k.stage.hand.take(), "done")
        events = await k.stage.http.get(made["events"])
        assert [block.event for block in blocks_of(events.content)][-1] == "job.succeeded"
        for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/result"):
            assert (await k.stage.http.get(path, params={"token": made["token"]})).status_code == 200
            assert (await k.stage.http.get(path, headers=bearer(made["token"]))).status_code == 200


async def test_a_token_is_for_its_job_alone() -> None:
    """Another job of the same tenant is not there; lists, submits, keys and further tokens are forbidden."""
    async with keyed() as k:
        key = await k.key()
        job, other = await k.submit(key), await k.submit(key)
        token = await token_of(k, key, job, cancel=True)
        assert problem(await k.ask("GET", f"/v1/jobs/{other}", token)) == (404, "job_not_found")
        for method, path in (
            ("GET", "/v1/jobs"),
            ("POST", "/v1/jobs"),
            ("GET", "/v1/events"),
            ("GET", "/v1/keys"),
            ("GET", "/v1/info"),
            ("GET", f"/v1/jobs/{job}/deliveries"),
            ("POST", f"/v1/jobs/{job}/input"),
            ("DELETE", f"/v1/jobs/{job}"),
            ("POST", f"/v1/jobs/{job}/token"),
            ("POST", f"/v1/jobs/{job}/retry"),
        ):
            answer = await k.ask(method, path, token, json={"task": "free"} if path == "/v1/jobs" else None)
            assert problem(answer) == (403, "forbidden"), (method, path)
        assert (await k.ask("GET", "/livez", token)).status_code == 200


async def test_a_token_cancels_only_when_that_was_asked_for() -> None:
    """And when the key could."""
    async with keyed() as k:
        key, reader = await k.key(), await k.key([Scope.read])
        job = await k.submit(key)
        plain = await token_of(k, key, job)
        assert problem(await k.ask("POST", f"/v1/jobs/{job}/cancel", plain)) == (403, "forbidden")
        refused = await k.ask("POST", f"/v1/jobs/{job}/token", reader, json={"cancel": True})
        assert problem(refused) == (403, "forbidden")
        may = await token_of(k, key, job, cancel=True)
        assert (await k.ask("POST", f"/v1/jobs/{job}/cancel", may)).json()["state"] == "cancelled"


async def test_a_token_is_over_in_time() -> None:
    """At the latest after an hour; a stream that is open with it is closed then."""
    async with keyed() as k:
        key = await k.key()
        job = await k.submit(key)
        for ttl in (0, 3601, "1h"):
            assert (await k.ask("POST", f"/v1/jobs/{job}/token", key, json={"ttl": ttl})).status_code == 400
        token = await token_of(k, key, job, ttl=60)
        async with k.stage.call("GET", f"/v1/jobs/{job}/events", query=f"token={token}") as call:
            await call.until(lambda _: call.status != 0)
            k.later(61)
            await k.stage.gateway._door.stays.look()
            await call.until(lambda _: False)
        assert problem(await k.ask("GET", f"/v1/jobs/{job}", token)) == (401, "unauthenticated")


async def test_a_token_goes_with_its_key() -> None:
    """Revoked, it takes its tokens along; and a key that expires sooner ends them sooner."""
    async with keyed() as k:
        key, short = await k.key(), await k.key(ttl_s=30)
        job = await k.submit(key)
        token, soon = await token_of(k, key, job), await token_of(k, short, job)
        await k.ring.revoke(key.split("_")[1])
        k.later()
        assert (await k.ask("GET", f"/v1/jobs/{job}", token)).status_code == 401
        assert (await k.ask("GET", f"/v1/jobs/{job}", soon)).status_code == 200
        k.later(30)
        assert (await k.ask("GET", f"/v1/jobs/{job}", soon)).status_code == 401


async def test_a_token_counts_on_its_keys_rate_and_limits() -> None:
    """It is no way around them."""
    async with keyed() as k:
        key = await k.key(requests_per_min=4)
        job = await k.submit(key)
        token = await token_of(k, key, job)
        answers = [await k.ask("GET", f"/v1/jobs/{job}", token) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]


async def test_what_was_changed_in_a_token_is_seen() -> None:
    """Every character of it is signed; what is no token at all is answered the same."""
    async with keyed() as k:
        key = await k.key()
        job = await k.submit(key)
        token = await token_of(k, key, job)
        claims, _, signature = token.removeprefix("rwt_").partition(".")
        wrong = [
            f"rwt_{claims[:n]}{'A' if claims[n] != 'A' else 'B'}{claims[n + 1 :]}.{signature}"
            for n in range(0, len(claims), 7)
        ]
        wrong += [f"rwt_{claims}.", f"rwt_{claims}", "rwt_", "rwt_.", f"rwt_{claims}.{signature}x", "rwt_é.é"]
        wrong += ["rwt_" + "A" * 9_000, f"rwt_{claims}.{signature[::-1]}"]
        for one in wrong:
            answer = await k.ask("GET", f"/v1/jobs/{job}?token=" + one.replace("é", "%C3%A9"))
            assert answer.status_code in (401, 414), one


async def test_the_secret_that_signs_changes_every_day() -> None:
    """What was signed late in a day is good for its hour of the next; all gateways have the same secret."""
    async with keyed() as k:
        key = await k.key()
        job = await k.submit(key)
        k.later(DAY_S - k.clock.now_ms() // 1000 % DAY_S - 10)
        late = await token_of(k, key, job, ttl=3600)
        k.later(20)
        other = Gateway(k.stage.engine, QUICK, clock=k.clock)
        caller = await other._door.admit({"type": "http"}, {b"authorization": f"Bearer {late}".encode()})
        assert caller.job_id == job
        today = await token_of(k, key, job, ttl=3600)
        assert (await k.ask("GET", f"/v1/jobs/{job}", today)).status_code == 200
        days = [
            await k.stage.engine.fetch([RecordKey("signing", "", str(k.clock.now_ms() // 86_400_000 - n))])
            for n in (0, 1)
        ]
        bodies = [record.body for (record,) in days if record is not None]
        assert len(set(bodies)) == 2
        k.later(DAY_S)
        claims = await Passes(k.stage.engine, k.clock, bytes)._secret(k.clock.now_ms() // 86_400_000 - 2)
        assert claims is None, "that of the day before yesterday signs nothing any more"
        await other.stop()


async def test_two_gateways_that_need_the_days_first_secret_have_one() -> None:
    """The second one takes the first one's."""
    async with keyed() as k:
        one, two = (Passes(k.stage.engine, k.clock, Random(n).randbytes) for n in (1, 2))
        made = await one.make("job_1", "k", (Scope.read,), 60)
        claims = await two.read(made)
        assert claims.job_id == "job_1"
        assert (await one.read(await two.make("job_2", "k", (Scope.read,), 60))).job_id == "job_2"


async def test_a_token_of_the_time_without_keys_opens_nothing_later() -> None:
    """It has no key that it could go with."""
    async with keyed(locked=False) as k:
        job = await k.stage.submit()
        made = (await k.ask("POST", f"/v1/jobs/{job}/token")).json()
        assert (await k.stage.http.get(made["events"] + "&follow=0")).status_code == 200
        await k.key()
        k.later()
        assert (await k.ask("GET", f"/v1/jobs/{job}", made["token"])).status_code == 401


async def test_no_token_is_in_the_logs(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when what it asked for breaks."""
    caplog.set_level(logging.DEBUG)

    async with keyed() as k:
        key = await k.key()
        job = await k.submit(key)
        token = await token_of(k, key, job)

        async def broken(*_: Any) -> Any:
            raise RuntimeError("broken")

        monkeypatch.setattr(k.stage.engine, "read", broken)
        assert (await k.stage.http.get(f"/v1/jobs/{job}/events", params={"token": token})).status_code == 500
    own = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("ropeway"))
    assert "events failed" in own
    assert token not in own
    assert key not in caplog.text


# -- pages of other origins

PAGE = {"origin": "https://app.example"}
OPEN = GatewayOptions(allowed_hosts=("gateway.test",), allowed_origins=("https://app.example",))


async def test_an_allowed_page_may_call() -> None:
    """The browser asks first, and is told so; then it hands the answer to the page, whatever that is."""
    async with keyed(options=OPEN) as k:
        asked = await k.ask(
            "OPTIONS",
            "/v1/jobs",
            headers=PAGE
            | {
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type,x-stainless-lang",
            },
        )
        assert (asked.status_code, asked.content) == (204, b"")
        assert asked.headers["access-control-allow-origin"] == "https://app.example"
        assert "POST" in asked.headers["access-control-allow-methods"]
        allowed = {name.strip() for name in asked.headers["access-control-allow-headers"].split(",")}
        assert {"authorization", "content-type", "last-event-id", "x-stainless-lang"} <= allowed
        key = await k.key()
        answer = await k.ask("POST", "/v1/jobs", key, json={"task": "free"}, headers=PAGE)
        assert answer.status_code == 202
        refused = await k.ask("GET", "/v1/jobs", headers=PAGE)
        assert refused.status_code == 401
        job = answer.json()["id"]
        async with k.stage.call("GET", f"/v1/jobs/{job}/events", headers=PAGE | bearer(key)) as call:
            await call.until(lambda _: call.status != 0)
            for headers in (answer.headers, refused.headers, call.answer_headers):
                assert headers["access-control-allow-origin"] == "https://app.example"
                assert headers["vary"] == "origin"
                assert "location" in headers["access-control-expose-headers"]
                assert "access-control-allow-credentials" not in headers


async def test_no_other_page_may() -> None:
    """403, and nothing that would have a browser hand over even that; neither to `null`, nor to a name alike."""
    async with keyed(options=OPEN) as k:
        for origin in ("https://evil.test", "null", "https://app.example.evil.test", "http://app.example"):
            for method in ("OPTIONS", "GET"):
                headers = {"origin": origin, "access-control-request-method": "GET"}
                answer = await k.ask(method, "/v1/jobs", await k.key(), headers=headers)
                assert problem(answer) == (403, "forbidden")
                assert "access-control-allow-origin" not in answer.headers


async def test_a_gateways_own_page_needs_no_leave() -> None:
    """No header of these; and a plain OPTIONS is a method like another."""
    async with stage(options=OPEN) as s:
        own = await s.http.get("/v1/jobs", headers={"origin": "http://gateway.test"})
        assert own.status_code == 200
        assert "access-control-allow-origin" not in own.headers
        assert (await s.http.options("/v1/jobs")).status_code == 405
    async with stage() as s:
        assert "vary" not in (await s.http.get("/v1/jobs")).headers


async def test_json_is_asked_for_where_something_changes() -> None:
    """A page can send plain text without asking; it changes nothing here, with or without a key."""
    async with keyed() as k:
        key = await k.key()
        body = msgspec.json.encode({"name": "x"})
        for method, path in (("POST", "/v1/keys"), ("PUT", "/v1/tenants/acme"), ("POST", "/v1/jobs")):
            answer = await k.ask(method, path, key, content=body, headers={"content-type": "text/plain"})
            assert problem(answer) == (415, "unsupported_media_type")
