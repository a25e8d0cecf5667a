"""Who may use which route: every route with every kind of key, against a table that is written here by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from keys_support import ALL, Keyed, bearer, keyed
from serving_support import Call

from ropeway.blobs.folder import FolderStore
from ropeway.domain.caller import Scope
from ropeway.domain.queue import QueueChange
from ropeway.domain.worker import ModelCard, TaskCard
from ropeway.serving.route import Route
from ropeway.serving.router import router_of
from ropeway.serving.routes import ROUTES, UNDECLARED

EXPECTED: dict[str, Scope | None] = {
    "submit_job": Scope.write,
    "list_jobs": Scope.read,
    "get_job": Scope.read,
    "get_result": Scope.read,
    "get_events": Scope.read,
    "cancel_job": Scope.cancel,
    "wake_job": Scope.cancel,
    "retry_job": Scope.write,
    "delete_job": Scope.cancel,
    "follow_jobs": Scope.read,
    "give_input": Scope.write,
    "open_socket": Scope.read,
    "list_deliveries": Scope.read,
    "redeliver": Scope.write,
    "get_usage": Scope.read,
    "upload_file": Scope.files,
    "list_files": Scope.files,
    "get_file": Scope.files,
    "get_content": Scope.files,
    "delete_file": Scope.files,
    "list_models": Scope.read,
    "get_model": Scope.read,
    "create_chat_completion": Scope.write,
    "create_embedding": Scope.write,
    "create_response": Scope.write,
    "get_response": Scope.read,
    "cancel_response": Scope.cancel,
    "delete_response": Scope.cancel,
    "list_input_items": Scope.read,
    "create_batch": Scope.write,
    "list_batches": Scope.read,
    "get_batch": Scope.read,
    "cancel_batch": Scope.cancel,
    "list_queues": Scope.read,
    "get_queue": Scope.read,
    "pause_queue": Scope.admin,
    "resume_queue": Scope.admin,
    "set_queue": Scope.admin,
    "purge_queue": Scope.cancel,
    "list_limits": Scope.metrics,
    "set_limit": Scope.admin,
    "clear_limit": Scope.admin,
    "list_tasks": Scope.read,
    "get_task": Scope.read,
    "list_workers": Scope.metrics,
    "get_stats": Scope.read,
    "get_info": Scope.read,
    "get_livez": None,
    "get_healthz": None,
    "get_readyz": None,
    "get_openapi": None,
    "get_docs": None,
    "create_key": Scope.admin,
    "list_keys": Scope.admin,
    "get_key": Scope.admin,
    "revoke_key": Scope.admin,
    "rotate_key": Scope.admin,
    "list_tenants": Scope.admin,
    "get_tenant": Scope.admin,
    "set_tenant": Scope.admin,
    "list_webhook_secrets": Scope.admin,
    "rotate_webhook_secret": Scope.admin,
    "create_token": Scope.read,
    "list_schedules": Scope.read,
    "get_schedule": Scope.read,
    "set_schedule": Scope.schedules,
    "remove_schedule": Scope.schedules,
    "pause_schedule": Scope.schedules,
    "resume_schedule": Scope.schedules,
    "run_schedule": Scope.write,
}

ROUTE = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)


def test_every_route_says_who_may_use_it() -> None:
    """A route is declared with its scope, and that is looked at here by a second person."""
    assert [route.operation for route in ROUTES if route.scope == UNDECLARED] == []
    assert {route.operation: route.scope for route in ROUTES} == EXPECTED


async def status_of(k: Keyed, route: Route, token: str | None) -> tuple[int, bytes]:
    """The status of one request to a route, with a body that it does not understand, and what came of the answer."""
    path = re.sub(r"\{\w+(:path)?\}", "thing", route.path)
    headers: dict[str, str] = {} if token is None else bearer(token)
    body = b"" if route.method in ("GET", "DELETE") else b'{"surely": "unknown"}'
    headers["content-type"] = "application/json"
    async with Call(k.stage.gateway, route.method, path, headers, body) as call:
        await call.until(lambda _: call.status != 0)
        return call.status, call.received


@ROUTE
async def test_a_request_without_a_good_key_is_refused(route: Route) -> None:
    """401 for none, a typo, an unknown, a revoked and an expired one; each says what is asked for, and no more."""
    async with keyed() as k:
        revoked, expired, good = await k.key(), await k.key(ttl_s=1), await k.key()
        await k.ring.revoke(revoked.split("_")[1])
        k.later(2)
        swapped = good[:-1] + ("a" if good[-1] != "a" else "b")
        unknown = "rw_00000000000_0000000000000000000000000000Iq7GD"
        for token in (None, swapped, unknown, revoked, expired, "sk-something-else", ""):
            status, body = await status_of(k, route, token)
            if EXPECTED[route.operation] is None:
                assert status == 200, (token, body)
            else:
                assert status == 401, (token, body)
                assert msgspec.json.decode(body)["code"] == "unauthenticated"


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.scope is not None], ids=lambda route: route.operation
)
async def test_a_key_opens_what_its_scope_says(route: Route) -> None:
    """Of keys with one scope each, exactly one gets past the door; the others are told which scope they lack."""
    wanted = EXPECTED[route.operation]
    assert wanted is not None
    async with keyed() as k:
        for scope in Scope:
            status, body = await status_of(k, route, await k.key([scope]))
            if scope is wanted:
                assert status not in (401, 403, 500), body
            else:
                assert status == 403, (scope, body)
                assert msgspec.json.decode(body)["code"] == "forbidden"
                assert wanted in msgspec.json.decode(body)["detail"]


async def test_a_path_that_is_not_there_tells_nothing_without_a_key() -> None:
    """401 comes before 404: who may not ask, learns nothing of what there is."""
    async with keyed() as k:
        assert (await k.ask("GET", "/v1/nothing")).status_code == 401
        assert (await k.ask("GET", "/v1/nothing", await k.key())).status_code == 404


async def test_a_route_that_does_not_say_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were one forgotten, a key with every scope would not open it."""
    forgotten = [route._replace(scope=UNDECLARED) if route.operation == "list_tasks" else route for route in ROUTES]
    monkeypatch.setattr("ropeway.serving.router.ROUTES", tuple(forgotten))
    async with keyed() as k:
        assert (await k.ask("GET", "/v1/tasks", await k.key(ALL))).status_code == 403
        assert (await k.ask("GET", "/v1/queues", await k.key(ALL))).status_code == 200
    assert router_of is not None


# -- tenants


async def own_things(k: Keyed, token: str) -> dict[str, tuple[str, str]]:
    """By the beginning of a route's path: the id of a thing of this tenant, and one that nobody has."""
    job = await k.submit(token)
    held = await k.stage.hand.take()
    assert held.job_id == job
    await k.stage.hand.succeed(held, {"secret": "of acme"})
    upload = await k.ask("POST", "/v1/files", token, content=b"x", headers={"content-type": "text/plain"})
    file_id = upload.json()["id"]
    await k.stage.engine.publish([TaskCard("chat", queue="hall", models=(ModelCard("small", "chat"),))])
    k.later(5)  # until the catalogue is read again
    asked = {"model": "small", "input": "hello", "background": True}
    response = (await k.ask("POST", "/v1/responses", token, json=asked)).json()["id"]
    wanted = {"input_file_id": file_id, "endpoint": "/v1/responses"}
    batch = (await k.ask("POST", "/v1/batches", token, json=wanted)).json()["id"]
    return {
        "/v1/batches/": (batch, batch[:-4] + "ffff"),
        "/v1/jobs/": (job, job[:-4] + "ffff"),
        "/v1/files/": (file_id, file_id[:-4] + "ffff"),
        "/v1/responses/": (response, response[:-4] + "ffff"),
    }


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if "{id}" in route.path and not route.path.startswith("/v1/keys")],
    ids=lambda route: route.operation,
)
async def test_another_tenants_thing_is_as_one_that_is_not_there(route: Route, tmp_path: Path) -> None:
    """404, in the same bytes but for the id that was asked for; and its owner still has it as it was."""
    async with keyed(blobs=FolderStore(tmp_path)) as k:
        owner, stranger = await k.key(), await k.key(tenant="rival")
        own, unknown = next(ids for start, ids in (await own_things(k, owner)).items() if route.path.startswith(start))
        before = await k.ask("GET", route.path.partition("{id}")[0] + own, owner)
        body: dict[str, Any] = {} if route.method in ("GET", "DELETE") else {"json": _body(route)}
        told = [
            _comparable(await k.ask(route.method, route.path.format(id=id_, delivery="1"), stranger, **body), id_)
            for id_ in (own, unknown)
        ]
        assert told[0] == told[1]
        assert told[0][0] == 404
        after = await k.ask("GET", route.path.partition("{id}")[0] + own, owner)
        assert (before.status_code, after.content) == (200, before.content)


def _body(route: Route) -> Any:
    return {"data": 1} if route.operation == "give_input" else {}


def _comparable(answer: Any, id_: str) -> tuple[int, list[tuple[str, str]], str]:
    """All of an answer but what is its own: the number of the request and the id that was asked for."""
    instance = answer.json()["instance"]
    headers = [(name, value.replace(instance, "#")) for name, value in answer.headers.items()]
    return answer.status_code, headers, answer.text.replace(id_, "*").replace(instance, "#")


async def test_lists_and_figures_are_the_tenants_own() -> None:
    """Jobs, counts, streams and shares of others do not show; all of them do to who has the scope for it."""
    async with keyed() as k:
        mine, theirs = await k.key(), await k.key(tenant="rival")
        reader = await k.key([Scope.read], tenant="rival")
        await k.stage.engine.set_queue([QueueChange("hall", weights={"acme": 2.0, "rival": 3.0})])
        await k.submit(mine)
        assert (await k.ask("GET", "/v1/jobs", theirs)).json()["data"] == []
        (queue,) = (await k.ask("GET", "/v1/queues", theirs)).json()["data"]
        assert (queue["queued"], queue["oldest_queued_at"], queue["policy"]["weights"]) == (0, None, {"rival": 3.0})
        assert (await k.ask("GET", "/v1/stats", theirs)).json()["queued"] == 0
        assert (await k.ask("GET", "/v1/stats?all=1", theirs)).json()["queued"] == 1
        assert (await k.ask("GET", "/v1/stats?all=1", reader)).status_code == 403
        purged = await k.ask("POST", "/v1/queues/hall/purge", theirs)
        assert purged.json()["cancelled"] == 0
        async with k.stage.call("GET", "/v1/events", headers=bearer(mine)) as call:
            await call.until(lambda _: call.status != 0)
            assert (await k.ask("GET", "/v1/stats", mine)).json()["streams"] == 1
            assert (await k.ask("GET", "/v1/stats", theirs)).json()["streams"] == 0


async def test_the_same_idempotency_key_of_two_tenants_is_two() -> None:
    """It is claimed within its tenant."""
    async with keyed() as k:
        answers = [
            await k.ask("POST", "/v1/jobs", token, json={"task": "free"}, headers={"idempotency-key": "same"})
            for token in (await k.key(), await k.key(tenant="rival"))
        ]
        assert [answer.status_code for answer in answers] == [202, 202]
        assert answers[0].json()["id"] != answers[1].json()["id"]
