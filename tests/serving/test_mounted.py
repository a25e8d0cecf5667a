"""A gateway inside another application, with and without a lifespan that reaches it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from keys_support import bearer
from serving_support import Call, Hand, blocks_of
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount

import ropeway
from ropeway.client.keyring import KeyRing
from ropeway.domain.caller import Scope
from ropeway.domain.errors import EngineUnavailable
from ropeway.engines.memory import MemoryEngine
from ropeway.serving import MOUNTED, Gateway


def _fastapi(gateway: Gateway) -> Any:
    app = FastAPI()
    app.mount("/ai", gateway)

    @app.get("/own")
    async def own() -> str:
        return "mine"

    return app


def _starlette(gateway: Gateway) -> Any:
    return Starlette(routes=[Mount("/ai", gateway)])


@asynccontextmanager
async def mounted(make: Any, **arguments: Any) -> AsyncIterator[tuple[Any, Gateway, MemoryEngine]]:
    engine = MemoryEngine()
    gateway = Gateway(engine, MOUNTED, owns_engine=True, **arguments)
    try:
        yield make(gateway), gateway, engine
    finally:
        await gateway.stop()


@pytest.mark.parametrize("make", [_fastapi, _starlette])
async def test_links_know_where_it_is_mounted(make: Any) -> None:
    """Location, links, the final job of a stream, the document's server: all begin with the mount point. The lifespan
    does not reach a mounted application, so the first request opens the engine."""
    async with mounted(make) as (app, _, engine):
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://any.host")
        assert (await http.get("/ai/livez")).status_code == 200
        hand = Hand(engine)
        await hand.announce()
        answer = await http.post("/ai/v1/jobs", json={"task": "free"}, headers={"origin": "https://elsewhere.test"})
        job_id = answer.json()["id"]
        assert answer.status_code == 202
        assert answer.headers["location"] == f"/ai/v1/jobs/{job_id}" == answer.json()["links"]["self"]
        await hand.succeed(await hand.take(), 1)
        stream = await http.get(f"/ai/v1/jobs/{job_id}/events")
        assert blocks_of(stream.content)[-1].data["data"]["links"]["result"] == f"/ai/v1/jobs/{job_id}/result"
        assert (await http.get(f"/ai/v1/jobs/{job_id}")).json()["links"]["events"] == f"/ai/v1/jobs/{job_id}/events"
        assert (await http.get("/ai/openapi.json")).json()["servers"] == [{"url": "/ai"}]
        missing = await http.get("/ai/nothing")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        assert "nothing at /nothing" in missing.json()["detail"]
        wrong = await http.put("/ai/v1/jobs")
        assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
        await http.aclose()


async def test_the_host_keeps_its_own_routes() -> None:
    """What is outside the mount point is not ours."""
    async with mounted(_fastapi) as (app, _, _engine):
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://any.host")
        assert (await http.get("/own")).json() == "mine"
        assert (await http.get("/v1/jobs")).json() == {"detail": "Not Found"}
        await http.aclose()


async def test_a_path_that_was_stripped_already_is_understood() -> None:
    """Some servers and frameworks take the mount point off the path, as the older reading of ASGI has it."""
    async with mounted(lambda gateway: gateway) as (app, _, engine):
        await engine.open()
        await Hand(engine).announce()
        headers = {"content-type": "application/json"}
        async with Call(app, "POST", "/v1/jobs", headers, b'{"task":"free"}', root_path="/ai") as call:
            await call.done()
        job = msgspec.json.decode(call.received)
        assert (call.status, job["links"]["self"]) == (202, f"/ai/v1/jobs/{job['id']}")


class Lifespan:
    """A server's side of the lifespan."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.said: list[dict[str, Any]] = []

    async def play(self, *steps: str) -> list[str]:
        messages = iter([{"type": f"lifespan.{step}"} for step in steps])

        async def receive() -> dict[str, Any]:
            return next(messages)

        async def send(message: Any) -> None:
            self.said.append(message)

        await self.app({"type": "lifespan"}, receive, send)
        return [message["type"] for message in self.said]


async def test_a_lifespan_that_comes_opens_and_shuts_the_engine() -> None:
    """Only when the gateway owns it."""
    owned = MemoryEngine()
    assert await Lifespan(Gateway(owned, owns_engine=True)).play("startup", "shutdown") == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    with pytest.raises(EngineUnavailable):
        await owned.stats()
    lent = MemoryEngine()
    await lent.open()
    await Lifespan(Gateway(lent)).play("startup", "shutdown")
    assert await lent.stats() == []


async def test_an_engine_that_does_not_open_fails_the_start() -> None:
    """The server says so and stops, instead of answering 503 for ever."""

    class Broken(MemoryEngine):
        async def open(self) -> None:
            raise EngineUnavailable("no such disk")

    lifespan = Lifespan(Gateway(Broken(), owns_engine=True))
    assert await lifespan.play("startup") == ["lifespan.startup.failed"]
    assert lifespan.said[0]["message"] == "no such disk"


async def test_a_websocket_at_another_path_is_refused() -> None:
    """By a close before the handshake, where the server can send no answer of ours: it answers 403."""
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message)

    await Gateway(MemoryEngine())({"type": "websocket", "path": "/v1/jobs", "headers": []}, receive, send)
    assert said == [{"type": "websocket.close", "code": 1008, "reason": "not_found"}]


async def test_a_worker_that_does_not_start_is_told_at_once() -> None:
    """What its resource said is raised by the start, and the engine is shut: nobody waits at a gateway without it."""
    app = ropeway.App()

    @app.resource
    async def model() -> None:
        raise FileNotFoundError("model.gguf")

    @app.task
    async def use(model: None) -> None:
        """Never run."""

    mounted = ropeway.asgi(app, "memory:", worker=True)
    shut: list[object] = []

    async def note() -> None:
        shut.append(mounted.engine)

    mounted.engine.shut = note  # type: ignore[method-assign]
    with pytest.raises(ropeway.ResourceFailed, match=r"model\.gguf"):
        await mounted.start()
    assert shut == [mounted.engine]


async def test_a_hosts_own_route_refuses_as_the_gateway_does() -> None:
    """With the status, the problem, and when to come again."""
    app = ropeway.App()

    @app.task
    async def use() -> None:
        """Never run."""

    mounted = ropeway.asgi(app, "memory:")

    async def route(scope: Any, receive: Any, send: Any) -> None:
        await mounted.refusal(ropeway.QueueFull("default", 7), scope)(scope, receive, send)

    async with mounted.lifespan():
        http = httpx.AsyncClient(transport=httpx.ASGITransport(route), base_url="http://any.host")
        answer = await http.get("/own")
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1


async def test_who_comes_while_it_stops_is_told_so_and_starts_nothing() -> None:
    """A server goes on listening for a moment: the worker and the engine are not opened again for who comes then."""
    mounted = ropeway.asgi(ropeway.App(), "memory:", worker=True)
    transport = httpx.ASGITransport(mounted)
    async with httpx.AsyncClient(transport=transport, base_url="http://mounted.test") as http:
        async with mounted.lifespan():
            assert (await http.get("/v1/tasks")).status_code == 200
        late = await http.post("/v1/jobs", json={"task": "x"})
        assert (late.status_code, late.json()["code"]) in ((503, "draining"), (503, "engine_unavailable"))
        with pytest.raises(EngineUnavailable):
            await mounted.engine.submit([])


async def test_a_hosts_own_route_knows_who_asks() -> None:
    """By its key, as the gateway asks for one: with a scope, and then for its tenant alone. A pass is for one job."""
    app = ropeway.App()

    @app.task
    async def use() -> None:
        """Never run."""

    mounted = ropeway.asgi(app, "memory:")

    async def route(scope: Any, receive: Any, send: Any) -> None:
        try:
            client = await mounted.client_for(scope, "jobs:write")
            answer: Any = JSONResponse((await client.submit("use")).id)
        except ropeway.RopewayError as error:
            answer = mounted.refusal(error, scope)
        await answer(scope, receive, send)

    async with mounted.lifespan():
        http = httpx.AsyncClient(transport=httpx.ASGITransport(route), base_url="http://any.host")
        ring = KeyRing(mounted.engine)
        _, reader = await ring.create("reader", tenant="acme", scopes=frozenset({Scope.read}))
        _, writer = await ring.create("writer", tenant="acme", scopes=frozenset({Scope.read, Scope.write}))
        assert (await http.get("/own")).status_code == 401
        assert (await http.get("/own", headers=bearer(reader))).status_code == 403
        job_id = (await http.get("/own", headers=bearer(writer))).json()
        assert [job and job.tenant for job in await mounted.engine.get("acme", [job_id])] == ["acme"]
        gateway = httpx.AsyncClient(transport=httpx.ASGITransport(mounted), base_url="http://any.host")
        told = await gateway.post(f"/v1/jobs/{job_id}/token", json={}, headers=bearer(writer))
        assert (await http.get("/own", headers=bearer(told.json()["token"]))).status_code == 403
        assert (await http.get("/own", headers=bearer("rw_nothing"))).status_code == 401
