"""A gateway inside another application, with and without a lifespan that reaches it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from serving_support import Call, Hand, blocks_of
from starlette.applications import Starlette
from starlette.routing import Mount

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


async def test_a_websocket_is_refused() -> None:
    """There is none here."""
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message)

    await Gateway(MemoryEngine())({"type": "websocket", "path": "/v1/ws", "headers": []}, receive, send)
    assert said == [{"type": "websocket.close", "code": 1002}]
