"""The OpenAPI document: true to the router both ways, valid, and true to what is really answered."""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import msgspec
import openapi_spec_validator
import pytest
from serving_support import Stage, blocks_of, stage
from starlette.routing import Route as PathRoute

from ropeway.serving.about import AboutRoutes
from ropeway.serving.fleet import FleetRoutes
from ropeway.serving.jobs import JobRoutes
from ropeway.serving.lifecycle import FeedRoutes
from ropeway.serving.openapi import build_document
from ropeway.serving.routes import ROUTES

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def test_it_is_a_valid_document() -> None:
    """OpenAPI 3.1, by the specification's own schema."""
    openapi_spec_validator.validate(msgspec.json.decode(msgspec.json.encode(build_document())))


async def test_every_route_is_in_it_and_every_entry_is_a_route() -> None:
    """No route is hidden, and none is promised that is not there: asked for real, method by method."""
    document = build_document()
    async with stage() as s:
        router = s.gateway._router
        served = {route.path for route in router.routes if isinstance(route, PathRoute)}
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
    rooms = (JobRoutes, FeedRoutes, FleetRoutes, AboutRoutes)
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


async def test_what_is_answered_is_what_it_says() -> None:
    """Samples of every operation, each against the schema of its status."""
    async with stage() as s:
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
    await ask("retry_job", 202, "POST", f"{path}/retry")
    await ask("list_jobs", 200, "GET", "/v1/jobs")
    await ask("delete_job", 204, "DELETE", path)
    await ask("get_job", 404, "GET", path)
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
