"""The OpenAPI document: true to the router both ways, valid, and true to what is really answered."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import openapi_spec_validator
import pytest
from serving_support import Stage, blocks_of, stage, until
from starlette.routing import Route as PathRoute

from ropeway.blobs.folder import FolderStore
from ropeway.domain.caller import Scope
from ropeway.domain.worker import ModelCard, TaskCard
from ropeway.serving.about import AboutRoutes
from ropeway.serving.deliveries import DeliveryRoutes
from ropeway.serving.files.desk import FileRoutes
from ropeway.serving.fleet import FleetRoutes
from ropeway.serving.jobs import JobRoutes
from ropeway.serving.keys.desk import KeyRoutes
from ropeway.serving.lifecycle import FeedRoutes
from ropeway.serving.limits import LimitRoutes
from ropeway.serving.openai.batches import BatchRoutes
from ropeway.serving.openai.chat import ChatRoutes
from ropeway.serving.openai.embeddings import EmbeddingRoutes
from ropeway.serving.openai.responses import ResponseRoutes
from ropeway.serving.openai.served import ModelRoutes
from ropeway.serving.openapi import build_document
from ropeway.serving.routes import ROUTES
from ropeway.serving.schedules import ScheduleRoutes
from ropeway.serving.websocket.routes import SocketRoutes

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def test_it_is_a_valid_document() -> None:
    """OpenAPI 3.1, by the specification's own schema."""
    openapi_spec_validator.validate(msgspec.json.decode(msgspec.json.encode(build_document())))


async def test_every_route_is_in_it_and_every_entry_is_a_route() -> None:
    """No route is hidden, and none is promised that is not there: asked for real, method by method."""
    document = build_document()
    async with stage() as s:
        router = s.gateway._router
        paths = [route.path for route in router.routes if isinstance(route, PathRoute)]
        served = {path.replace(":path}", "}") for path in paths}
        assert served == set(document["paths"])
        for path, operations in document["paths"].items():
            for method in METHODS:
                asked = re.sub(r"\{\w+\}", "x", path)
                answer = await s.http.request(method, f"{asked}?follow=0" if path.endswith("/events") else asked)
                if path == "/v1/events" and method == "GET":
                    continue
                assert (answer.status_code != 405) == (method.lower() in operations), (method, path)


def test_every_public_method_of_the_rooms_is_a_route() -> None:
    """A handler that the table forgot would be dead."""
    openai = (ModelRoutes, ChatRoutes, EmbeddingRoutes, ResponseRoutes, BatchRoutes)
    rooms = (
        JobRoutes,
        DeliveryRoutes,
        FeedRoutes,
        FleetRoutes,
        FileRoutes,
        KeyRoutes,
        ScheduleRoutes,
        LimitRoutes,
        AboutRoutes,
        SocketRoutes,
        *openai,
    )
    methods = {name for room in rooms for name in vars(room) if not name.startswith("_")}
    assert methods | {"submit_job"} == {route.operation for route in ROUTES}


class Contract:
    """Checks answers against the document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self.seen: set[tuple[str, int]] = set()

    def check(self, operation: str, status: int, media: str, body: Any) -> None:
        (described,) = [
            entry
            for path in self._document["paths"].values()
            for entry in path.values()
            if entry["operationId"] == operation
        ]
        content = described["responses"][str(status)].get("content", {})
        self.seen.add((operation, status))
        if not content:
            assert body is None
            return
        schema = {**content[media.partition(";")[0]]["schema"], "components": self._document["components"]}
        jsonschema_rs.Draft202012Validator(schema).validate(body)


async def test_what_is_answered_is_what_it_says(tmp_path: Path) -> None:
    """Samples of every operation, each against the schema of its status."""
    async with stage(blobs=FolderStore(tmp_path / "files")) as s:
        contract = Contract((await s.http.get("/openapi.json")).json())
        await play(s, contract)
        assert {operation for operation, _ in contract.seen} == {route.operation for route in ROUTES} - {"follow_jobs"}
        schema = contract._document["components"]["schemas"]["JobBody"]
        with pytest.raises(jsonschema_rs.ValidationError):
            contract.check("get_job", 200, "application/json", {"id": 5})
        assert {"id", "state", "links", "input", "output"} <= set(schema["properties"])


async def play(s: Stage, contract: Contract) -> None:
    async def ask(operation: str, status: int, method: str, path: str, **arguments: Any) -> Any:
        answer = await s.http.request(method, path, **arguments)
        assert answer.status_code == status, answer.text
        media = answer.headers.get("content-type", "")
        is_json = "json" in media and "ndjson" not in media
        body = answer.json() if is_json else (answer.text or None)
        contract.check(operation, status, media, body)
        return body

    job = await ask(
        "submit_job", 202, "POST", "/v1/jobs", json={"task": "greet", "input": {"name": "a"}, "tags": ["x"]}
    )
    path = f"/v1/jobs/{job['id']}"
    await ask("submit_job", 422, "POST", "/v1/jobs", json={"task": "greet", "input": {}})
    await ask("submit_job", 415, "POST", "/v1/jobs", content=b"x")
    await ask("submit_job", 404, "POST", "/v1/jobs", json={"task": "nobody"})
    lines = await s.http.post(
        "/v1/jobs", content=b'{"task":"free"}\n{}', headers={"content-type": "application/x-ndjson"}
    )
    for line in lines.iter_lines():
        contract.check("submit_job", 200, "application/x-ndjson", msgspec.json.decode(line))
    await ask("get_result", 202, "GET", f"{path}/result")
    await ask("delete_job", 409, "DELETE", path)
    await s.hand.succeed(await s.hand.take(), {"x": 1})
    await ask("get_job", 200, "GET", path)
    await ask("get_job", 304, "GET", path, headers={"if-none-match": "*"})
    await ask("get_result", 200, "GET", f"{path}/result")
    for block in blocks_of((await s.http.get(f"{path}/events")).content):
        contract.check("get_events", 200, "text/event-stream", block.data)
    failed = await s.hand.take()
    await s.hand.fail(failed, "no")
    await ask("get_result", 424, "GET", f"/v1/jobs/{failed.job_id}/result")
    await ask("cancel_job", 200, "POST", f"{path}/cancel", json={"reason": "r"})
    await ask("wake_job", 200, "POST", f"{path}/wake")
    await ask("give_input", 409, "POST", f"{path}/input", json={"data": 1})
    running = (await s.http.post("/v1/jobs", json={"task": "free"})).json()["id"]
    held = await s.hand.take()
    await ask("give_input", 202, "POST", f"/v1/jobs/{running}/input", json={"data": {"go": "on"}})
    await s.hand.succeed(held, None)
    await ask("open_socket", 426, "GET", "/v1/ws")
    await ask("retry_job", 202, "POST", f"{path}/retry")
    await ask("list_jobs", 200, "GET", "/v1/jobs")
    await ask("delete_job", 204, "DELETE", path)
    await ask("get_job", 404, "GET", path)
    await ask("set_queue", 200, "PATCH", "/v1/queues/hall", json={"max_running": 100, "weights": {"acme": 2.0}})
    await ask("set_queue", 400, "PATCH", "/v1/queues/hall", json={"max_running": 0})
    await ask("set_limit", 200, "PUT", "/v1/limits/gpu", json={"max_running": 2})
    await ask("set_limit", 400, "PUT", "/v1/limits/gpu", json={"per_s": 2})
    await ask("list_limits", 200, "GET", "/v1/limits")
    await ask("clear_limit", 200, "DELETE", "/v1/limits/gpu")
    for verb in ("pause", "resume", "purge"):
        await ask(f"{verb}_queue", 200, "POST", f"/v1/queues/hall/{verb}")
    for operation, where in (
        ("list_queues", "/v1/queues"),
        ("get_queue", "/v1/queues/hall"),
        ("list_tasks", "/v1/tasks"),
        ("get_task", "/v1/tasks/greet"),
        ("list_workers", "/v1/workers"),
        ("get_stats", "/v1/stats"),
        ("get_info", "/v1/info"),
        ("get_livez", "/livez"),
        ("get_healthz", "/healthz"),
        ("get_readyz", "/readyz"),
        ("get_openapi", "/openapi.json"),
        ("get_docs", "/docs"),
    ):
        await ask(operation, 200, "GET", where)
    await play_files(ask)
    await play_deliveries(s, ask)
    await play_openai(s, ask)
    await play_schedules(ask)
    await play_keys(s, ask)


async def play_keys(s: Stage, ask: Callable[..., Awaitable[Any]]) -> None:
    await ask("create_key", 400, "POST", "/v1/keys", json={"name": "web"})
    made = await ask("create_key", 201, "POST", "/v1/keys", json={"name": "ops", "scopes": list(Scope)})
    await ask("list_keys", 401, "GET", "/v1/keys")
    s.http.headers["authorization"] = f"Bearer {made['key']}"
    await ask("list_keys", 200, "GET", "/v1/keys")
    limits = {"requests_per_min": 1, "tasks": ["free"], "max_priority": "low"}
    other = await ask("create_key", 201, "POST", "/v1/keys", json={"name": "x", "ttl": 60, "limits": limits})
    path = f"/v1/keys/{other['id']}"
    await ask("get_key", 200, "GET", path)
    await ask("rotate_key", 201, "POST", f"{path}/rotate", json={"overlap": 5})
    await ask("revoke_key", 200, "DELETE", path)
    await ask("get_key", 404, "GET", "/v1/keys/00000000000")
    await ask("set_tenant", 200, "PUT", "/v1/tenants/acme", json=limits)
    await ask("get_tenant", 200, "GET", "/v1/tenants/acme")
    await ask("list_tenants", 200, "GET", "/v1/tenants")
    await ask("list_webhook_secrets", 200, "GET", "/v1/tenants/acme/webhook-secrets")
    await ask("rotate_webhook_secret", 201, "POST", "/v1/tenants/acme/webhook-secrets/rotate", json={"overlap": 60})
    await ask("rotate_webhook_secret", 400, "POST", "/v1/tenants/acme/webhook-secrets/rotate", json={"overlap": -1})
    job = (await s.http.post("/v1/jobs", json={"task": "free"})).json()["id"]
    await ask("create_token", 201, "POST", f"/v1/jobs/{job}/token", json={"cancel": True})
    narrow = {"authorization": f"Bearer {(await s.http.post(f'{path}/rotate')).json().get('key', '')}"}
    assert (await s.http.get("/v1/tasks", headers=narrow)).status_code == 401, "what is over is not renewed"


async def play_schedules(ask: Callable[..., Awaitable[Any]]) -> None:
    path, wanted = "/v1/schedules/nightly", {"job": {"task": "greet", "input": {"name": "a"}}, "cron": "0 3 * * *"}
    await ask("set_schedule", 201, "PUT", path, json={**wanted, "timezone": "Europe/Berlin"})
    await ask("set_schedule", 200, "PUT", path, json={**wanted, "timezone": "Asia/Tokyo"})
    await ask("set_schedule", 400, "PUT", path, json={**wanted, "cron": "x"})
    await ask("set_schedule", 404, "PUT", path, json={**wanted, "job": {"task": "nobody"}})
    await ask("set_schedule", 422, "PUT", path, json={**wanted, "job": {"task": "greet"}})
    await ask("list_schedules", 200, "GET", "/v1/schedules")
    await ask("get_schedule", 200, "GET", path)
    for verb in ("pause", "resume"):
        await ask(f"{verb}_schedule", 200, "POST", f"{path}/{verb}")
    await ask("run_schedule", 202, "POST", f"{path}/run")
    await ask("remove_schedule", 204, "DELETE", path)
    await ask("get_schedule", 404, "GET", path)


async def play_files(ask: Callable[..., Awaitable[Any]]) -> None:
    file = await ask("upload_file", 200, "POST", "/v1/files", content=b"x")
    path = f"/v1/files/{file['id']}"
    await ask("upload_file", 400, "POST", "/v1/files?sha256=x", content=b"x")
    await ask("list_files", 200, "GET", "/v1/files")
    await ask("get_file", 200, "GET", path)
    await ask("get_content", 200, "GET", f"{path}/content")
    await ask("get_content", 416, "GET", f"{path}/content", headers={"range": "bytes=9-"})
    await ask("delete_file", 200, "DELETE", path)
    await ask("get_file", 404, "GET", path)


async def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No host is named in it, and its own policy allows only its own script and style."""
    async with stage() as s:
        answer = await s.http.get("/docs")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert (
            "http://" not in answer.text
            and "https://" not in answer.text
            and "//" not in re.sub(r"\s//.*", "", answer.text)
        )
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy
        assert re.search(r"\son\w+=", answer.text) is None, "an inline handler would not run"


async def play_deliveries(s: Stage, ask: Callable[..., Awaitable[Any]]) -> None:
    await s.http.post("/v1/jobs", json={"task": "free", "webhook": {"url": "https://hooks.example/"}})
    ended = await s.hand.take()
    await s.hand.succeed(ended, {"x": 1})
    path = f"/v1/jobs/{ended.job_id}/deliveries"
    await ask("list_deliveries", 200, "GET", path)
    await ask("list_deliveries", 404, "GET", "/v1/jobs/none/deliveries")
    await ask("redeliver", 409, "POST", f"{path}/{ended.job_id}-d0/redeliver")
    await s.engine.cancel(ended.tenant, [f"{ended.job_id}-d0"], None)
    await ask("redeliver", 202, "POST", f"{path}/{ended.job_id}-d0/redeliver")
    await ask("get_usage", 200, "GET", "/v1/usage")
    await ask("get_usage", 400, "GET", "/v1/usage?since=x")


async def play_openai(s: Stage, ask: Callable[..., Awaitable[Any]]) -> None:
    chat = TaskCard("chat", queue="hall", models=(ModelCard("m", "chat"),))
    vectors = TaskCard("vectors", queue="hall", models=(ModelCard("v", "embedding"),))
    await s.engine.publish([chat, vectors])
    s.gateway._submit._parts.catalogue._read_at_s = float("-inf")  # it is read again when it is old
    await ask("list_models", 200, "GET", "/v1/models")
    await ask("get_model", 200, "GET", "/v1/models/m")
    await ask("get_model", 404, "GET", "/v1/models/x")
    say: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    for operation, path, body, output in (
        ("create_chat_completion", "/v1/chat/completions", say, "ho"),
        ("create_embedding", "/v1/embeddings", {"model": "v", "input": "hi"}, [[1.0]]),
        ("create_response", "/v1/responses", {"model": "m", "input": "hi"}, "ho"),
    ):
        await ask(operation, 400, "POST", path, json={"model": "m"})
        await s.http.post("/v1/queues/hall/purge")
        asked: asyncio.Future[Any] = asyncio.ensure_future(ask(operation, 200, "POST", path, json=body))
        await until(lambda: s.gateway.waiting == 1)
        await s.hand.succeed(await s.hand.take(), output)
        answer = await asked
    path = f"/v1/responses/{answer['id']}"
    await ask("get_response", 200, "GET", path)
    await ask("list_input_items", 200, "GET", f"{path}/input_items?limit=1&unknown=x")
    await ask("cancel_response", 400, "POST", f"{path}/cancel")
    await ask("delete_response", 200, "DELETE", path)
    begun = await ask("create_response", 200, "POST", "/v1/responses", json={**say, "input": "x", "background": True})
    await ask("cancel_response", 200, "POST", f"/v1/responses/{begun['id']}/cancel")
    file = (await s.http.post("/v1/files", content=b"{}")).json()["id"]
    wanted = {"input_file_id": file, "endpoint": "/v1/responses"}
    batch = await ask("create_batch", 200, "POST", "/v1/batches", json=wanted)
    await ask("create_batch", 400, "POST", "/v1/batches", json={})
    await ask("list_batches", 200, "GET", "/v1/batches")
    await ask("get_batch", 200, "GET", f"/v1/batches/{batch['id']}")
    await ask("cancel_batch", 200, "POST", f"/v1/batches/{batch['id']}/cancel")
