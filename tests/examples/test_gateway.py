"""The gateway end to end, over real HTTP: a simulated provider, every engine, blocking and async code."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import uvicorn
from examples.gateway.settings import GatewaySettings, settings
from examples.gateway.upstream import Rhythm, Simulated, simulated
from examples.gateway.web import application

from ropeway import Client
from servers import shared_server

PATIENCE_S = 30.0
ROOT = Path(__file__).parent.parent.parent
QUICK = Rhythm(words=3, first_s=0.0, word_s=0.0)
SLOW = Rhythm(words=10_000, first_s=0.0, word_s=0.01)
_prefixes = itertools.count()
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


class Told(NamedTuple):
    """One event of an answer."""

    id: str
    name: str
    data: dict[str, Any]


class Site:
    """The gateway on a socket, and the provider behind it."""

    def __init__(self, http: httpx.AsyncClient, provider: Simulated) -> None:
        self.http = http
        self.provider = provider

    async def ask(self, **fields: Any) -> list[Told]:
        """The whole answer to one request."""
        return [told async for told in self.answer(**fields)]

    async def answer(self, **fields: Any) -> AsyncIterator[Told]:
        async with self.http.stream("POST", "/ai", json={**HELLO, **fields}) as response:
            assert response.status_code == 200, await response.aread()
            async for told in events(response):
                yield told

    async def job(self, request_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.http.get(f"/v1/jobs/{request_id}")).json()
        return found


async def events(response: httpx.Response) -> AsyncIterator[Told]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif fields:
            yield Told(fields["id"], fields["event"], json.loads(fields["data"]))
            fields = {}


@asynccontextmanager
async def site(rhythm: Rhythm = QUICK, engine: str = "memory:", **own: Any) -> AsyncIterator[Site]:
    """A gateway with a worker in it."""
    async with simulated(rhythm) as (url, provider):
        web = application(GatewaySettings(upstream=url, **own), engine)
        listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
        server = uvicorn.Server(uvicorn.Config(web, log_level="critical", ws="none", timeout_graceful_shutdown=1))
        server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        base = f"http://127.0.0.1:{listening.getsockname()[1]}"
        limits = httpx.Limits(max_connections=1_000)
        try:
            async with httpx.AsyncClient(base_url=base, timeout=PATIENCE_S, limits=limits, trust_env=False) as http:
                yield Site(http, provider)
        finally:
            server.should_exit = True
            await serving


async def until(condition: Callable[[], bool], name: str) -> None:
    """Wait until the condition holds, for what no event tells."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"waited in vain until {name}"
        await asyncio.sleep(0.005)


def engine_url(kind: str, folder: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{folder}/gateway.db"
    return f"{shared_server().url}?prefix=gw{next(_prefixes)}" if kind == "valkey" else "memory:"


# -- an answer


@pytest.mark.parametrize("code", ["async", "blocking"])
@pytest.mark.parametrize("kind", ["memory", "sqlite", "valkey"])
async def test_tokens_come_and_then_the_result(kind: str, code: str, tmp_path: Path) -> None:
    """Direct or queued, from the loop or from threads: the same task, the same stream."""
    async with site(engine=engine_url(kind, tmp_path), code=code) as on:
        told = await on.ask()
        assert [one.name for one in told] == ["token"] * (len(told) - 1) + ["result"]
        words = "".join(one.data["text"] for one in told[:-1])
        assert told[-1].data["output"] == words
        assert len(words.split()) == 3


async def test_every_request_has_an_id() -> None:
    """In a header, in every event, and in Ropeway's own API."""
    async with site() as on, on.http.stream("POST", "/ai", json=HELLO) as response:
        request_id = response.headers["x-request-id"]
        assert response.headers["content-type"].startswith("text/event-stream")
        told = [one async for one in events(response)]
        assert {one.data["request_id"] for one in told} == {request_id}
        assert (await on.job(request_id))["state"] == "succeeded"
        assert told[-1].data["usage"] == {"input_tokens": 10, "output_tokens": 3}


async def test_each_tenant_sees_its_own(tmp_path: Path) -> None:
    """Once there are keys, both routes ask for one, and another tenant's request is none."""
    engine = engine_url("sqlite", tmp_path)
    async with Client(engine) as admin:
        made = [await admin.keys.create(tenant, tenant=tenant) for tenant in ("acme", "bolt")]
    acme, bolt = ({"authorization": f"Bearer {key.key}"} for key in made)
    async with site(engine=engine) as on:
        assert (await on.http.post("/ai", json=HELLO)).status_code == 401
        answer = await on.http.post("/ai", json=HELLO, headers=acme)
        path = f"/ai/{answer.headers['x-request-id']}"
        assert "event: result" in (await on.http.get(path, headers=acme)).text
        assert (await on.http.get(path)).status_code == 401
        assert (await on.http.get(path, headers=bolt)).status_code == 404


async def test_an_answer_that_fails_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a code for machines and a sentence for people; the key is in neither."""
    monkeypatch.setenv("GATEWAY_TEST_KEY", "sk-wrong")
    rhythm = Rhythm(key="sk-right")
    async with site(rhythm, key="env:GATEWAY_TEST_KEY") as on:
        (told,) = await on.ask()
        assert (told.name, told.data["code"]) == ("error", "provider_error")
        assert "sk-" not in told.data["message"]
    monkeypatch.setenv("GATEWAY_TEST_KEY", "sk-right")
    async with site(rhythm, key="env:GATEWAY_TEST_KEY") as on:
        assert (await on.ask(max_tokens=1))[-1].name == "result"


async def test_a_provider_that_fails_now_and_then_is_not_noticed() -> None:
    """It is asked again before the first token."""
    async with site(Rhythm(words=2, first_s=0, word_s=0, fail=0.3)) as on:
        answers = await asyncio.gather(*[on.ask() for _ in range(20)])
        assert [answer[-1].name for answer in answers] == ["result"] * 20
        assert on.provider.calls > 20


async def test_the_providers_rate_limit_is_waited_for() -> None:
    """The request stays open and its job is due after Retry-After; nobody's place is held, and no attempt is spent."""
    async with site(Rhythm(words=3, first_s=0.0, word_s=0.0, per_minute=1)) as on:
        assert (await on.ask())[-1].name == "result"
        async with on.http.stream("POST", "/ai", json=HELLO) as response:
            request_id = response.headers["x-request-id"]

            async def parked() -> bool:
                return bool((await on.job(request_id))["state"] == "scheduled")

            deadline_s = time.monotonic() + PATIENCE_S
            while not await parked():
                assert time.monotonic() < deadline_s, "waited in vain until the job is parked"
            job = await on.job(request_id)
            assert (job["attempt"], job["progress"]["message"]) == (0, "the provider asked to wait")
            assert on.provider.calls == 2


# -- many


@pytest.mark.parametrize("code", ["async", "blocking"])
async def test_hundreds_are_in_flight_and_more_wait_in_line(code: str) -> None:
    """250 requests, 100 places: never more than 100 at the provider, none fails."""
    async with site(Rhythm(words=1, first_s=0.3, word_s=0), code=code, in_flight=100) as on:
        answers = await asyncio.gather(*[on.ask() for _ in range(250)])
        assert [answer[-1].name for answer in answers] == ["result"] * 250
        assert on.provider.peak <= 100


async def test_past_the_line_they_are_refused_and_told_when_to_come_again() -> None:
    """One runs, two wait, the fourth is a 503 with Retry-After; those accepted are answered."""
    async with site(SLOW, in_flight=1, max_waiting=2) as on:
        running = on.answer()
        assert (await anext(running)).name == "token"
        waiting = [asyncio.create_task(on.ask(max_tokens=1)) for _ in range(2)]
        await until_queued(on, 2)
        refused = await on.http.post("/ai", json=HELLO)
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        await running.aclose()  # type: ignore[attr-defined]
        assert [(await one)[-1].name for one in waiting] == ["result", "result"]


# -- leaving and coming back


async def test_who_leaves_cancels_the_call_at_the_provider() -> None:
    """At once: nobody pays for words that nobody reads."""
    async with site(SLOW) as on:
        answer = on.answer()
        request_id = (await anext(answer)).data["request_id"]
        assert on.provider.in_flight == 1
        await answer.aclose()  # type: ignore[attr-defined]
        await until(lambda: on.provider.in_flight == 0, "the provider has stopped")
        job = await ended(on, request_id)
        assert (job["state"], job["cancel_reason"]) == ("cancelled", "the client left")
        assert job["output"].split()


async def test_who_comes_back_goes_on_where_the_stream_broke(tmp_path: Path) -> None:
    """With the last event's id, without a gap or a repeat, when the setting lets requests go on."""
    rhythm = Rhythm(words=20, first_s=0, word_s=0.005)
    async with site(rhythm, engine_url("sqlite", tmp_path), on_disconnect="continue") as on:
        answer = on.answer()
        heard = [await anext(answer) for _ in range(3)]
        await answer.aclose()  # type: ignore[attr-defined]
        headers = {"last-event-id": heard[-1].id}
        async with on.http.stream("GET", f"/ai/{heard[0].data['request_id']}", headers=headers) as response:
            heard += [one async for one in events(response)]
        assert heard[-1].name == "result"
        assert "".join(one.data["text"] for one in heard[:-1]) == heard[-1].data["output"]


async def test_a_request_sent_twice_is_one() -> None:
    """Under an idempotency key the second gets the first one's stream."""
    async with site() as on:
        ids = set()
        for _ in range(2):
            async with on.http.stream("POST", "/ai", json=HELLO, headers={"idempotency-key": "k1"}) as response:
                ids.add(response.headers["x-request-id"])
                assert [one async for one in events(response)][-1].name == "result"
        assert (len(ids), on.provider.calls) == (1, 1)


# -- what is refused


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"{", 400, "the body is not"),
        (b'{"messages": "hi"}', 400, "Expected `array`"),
        (b'{"messages": []}', 400, "no message"),
        (b'{"messages": [{}], "model": "gpt-9"}', 400, "no model 'gpt-9': simulated"),
        (b'{"messages": [{}], "tokens": 1}', 400, "unknown field `tokens`"),
        (b'{"messages": [{"x": "' + b"y" * 1024**2 + b'"}]}', 413, "larger than"),
    ],
)
async def test_a_bad_request_is_told_what_is_wrong(body: bytes, status: int, why: str) -> None:
    """As a problem, with the status that it is; nothing is stored."""
    async with site() as on:
        answer = await on.http.post("/ai", content=body)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert why in answer.json()["detail"]
        assert (await on.http.get("/ai/job_nope")).status_code == 404
        assert (await on.http.get("/ai")).status_code == 405
        assert (await on.http.get("/v1/jobs")).json()["data"] == []


def test_settings_travel_in_the_environment() -> None:
    """What one process was told, those that it starts read back."""
    own = GatewaySettings(upstream="http://h/v1", models=("a", "b"), code="blocking", in_flight=7)
    assert settings(own.environment()) == own
    assert settings({}) == GatewaySettings()


# -- as it is started


@pytest.mark.slow
async def test_one_command_serves_and_stops_when_asked(tmp_path: Path) -> None:
    """With a provider of its own; it ends well on SIGTERM."""
    command = [sys.executable, "-m", "examples.gateway", "--engine", f"sqlite:///{tmp_path}/g.db", "--port", "0"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=env, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            ready = json.loads(await process.stdout.readline())
        async with (
            httpx.AsyncClient(base_url=ready["url"], timeout=PATIENCE_S, trust_env=False) as http,
            http.stream("POST", "/ai", json={**HELLO, "max_tokens": 2}) as response,
        ):
            assert [one.name async for one in events(response)][-1] == "result"
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() in (0, -signal.SIGTERM)


async def until_queued(on: Site, count: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while (await on.http.get("/v1/queues/chat")).json()["queued"] != count:
        assert time.monotonic() < deadline_s, f"waited in vain until {count} wait"


async def ended(on: Site, request_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await on.http.get(f"/v1/jobs/{request_id}", params={"wait": 20})).json()
    return found
