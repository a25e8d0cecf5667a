"""Schedules over HTTP: set, shown, paused, run and removed; each tenant's its own."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest
from keys_support import keyed, problem
from serving_support import ENGINES, Stage, stage

from ropeway.domain.caller import Scope
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.schedule import Schedule
from ropeway.domain.worker import WorkerCard
from ropeway.engines.schedules import Schedules
from ropeway.runtime import App
from ropeway.runtime.declaring import declare
from ropeway.testing import ManualClock, seeded_random

NIGHTLY: dict[str, Any] = {
    "job": {"task": "greet", "input": {"name": "Ada"}},
    "cron": "30 3 * * *",
    "timezone": "Europe/Berlin",
}


async def kept(s: Stage, name: str, tenant: str = DEFAULT_TENANT) -> Schedule:
    return (await Schedules(s.engine).get(tenant, name)).schedule


@pytest.mark.parametrize("engine", ENGINES)
async def test_it_is_made_shown_changed_and_removed(engine: str, tmp_path: Any) -> None:
    """PUT makes it (201, with Location) or says anew what it is (200); GET shows its next times; DELETE forgets it."""
    clock = ManualClock()
    async with stage(engine, tmp_path, clock=clock) as s:
        made = await s.http.put("/v1/schedules/nightly", json=NIGHTLY)
        assert (made.status_code, made.headers["location"]) == (201, "/v1/schedules/nightly")
        body = made.json()
        assert (body["name"], body["state"], body["catch_up"], body["grace"]) == ("nightly", "active", "latest", 60.0)
        assert body["job"] == {
            "task": "greet", "input": {"name": "Ada"}, "queue": None, "priority": None, "delay": 0.0, "options": {}
        }  # fmt: skip
        again = await s.http.put("/v1/schedules/nightly", json={**NIGHTLY, "cron": "@hourly", "overlap": "skip"})
        assert (again.status_code, again.json()["cron"], again.json()["overlap"]) == (200, "@hourly", "skip")
        assert again.json()["created_at"] == body["created_at"]
        shown = (await s.http.get("/v1/schedules/nightly")).json()
        assert len(shown["upcoming"]) == 5
        assert shown["upcoming"][0] == shown["next_at"]
        assert (await s.http.delete("/v1/schedules/nightly")).status_code == 204
        for method in ("GET", "DELETE"):
            gone = await s.http.request(method, "/v1/schedules/nightly")
            assert problem(gone) == (404, "schedule_not_found")


async def test_the_list_has_pages() -> None:
    """By name, with a cursor; the upcoming times are left out."""
    async with stage() as s:
        for name in ("c", "a", "b"):
            await s.http.put(f"/v1/schedules/{name}", json=NIGHTLY)
        first = (await s.http.get("/v1/schedules?limit=2")).json()
        assert ([one["name"] for one in first["data"]], first["has_more"]) == (["a", "b"], True)
        assert first["data"][0]["upcoming"] == []
        second = (await s.http.get("/v1/schedules", params={"cursor": first["next_cursor"]})).json()
        assert ([one["name"] for one in second["data"]], second["has_more"]) == (["c"], False)
        for query in ("cursor=", "cursor=%00", "limit=0", "limit=501"):
            assert problem(await s.http.get(f"/v1/schedules?{query}")) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"cron": "61 * * * *"}, 400, "invalid_request", "cron"),
        ({"cron": "* * * * * *"}, 400, "invalid_request", "cron"),
        ({"cron": "0 0 30 2 *"}, 400, "invalid_request", "cron"),
        ({"interval": 60}, 400, "invalid_request", "cron"),
        ({"cron": None}, 400, "invalid_request", "cron"),
        ({"cron": None, "interval": 0.5}, 400, "invalid_request", "interval"),
        ({"timezone": "Europe/Nowhere"}, 400, "invalid_request", "timezone"),
        ({"timezone": "../../etc/passwd"}, 400, "invalid_request", "timezone"),
        ({"timezone": "Europe"}, 400, "invalid_request", "timezone"),
        ({"starts_at": "tomorrow"}, 400, "invalid_request", "starts_at"),
        ({"starts_at": "2030-01-02T00:00:00Z", "ends_at": "2030-01-01T00:00:00Z"}, 400, "invalid_request", "ends_at"),
        ({"ends_at": "2020-01-01T00:00:00Z"}, 400, "invalid_request", "ends_at"),
        ({"cron": "0 0 29 2 *", "ends_at": "2024-02-28T00:00Z"}, 400, "invalid_request", "ends_at"),
        ({"job": {"task": "free", "run_at": "2030-01-01T00:00Z"}}, 400, "invalid_request", "job.run_at"),
        ({"job": {"task": "free", "cache": True}}, 400, "invalid_request", "job.cache"),
        ({"catch_up": "some"}, 400, "invalid_request", "catch_up"),
        ({"jitter": -1}, 400, "invalid_request", "jitter"),
        ({"nonsense": 1}, 400, "invalid_request", "nonsense"),
        ({"job": {"task": "nobody"}}, 404, "task_not_found", None),
        ({"job": {"task": "greet", "input": {}}}, 422, "input_invalid", None),
        ({"job": {"task": "greet", "input": {"name": "a"}, "priority": "urgent"}}, 400, "invalid_request", None),
        ({"job": {"task": "free", "webhook": {"url": "http://10.0.0.1/"}}}, 400, "invalid_request", None),
        ({"job": {"task": "free", "input": {"$file": "file_00000000000000000000000000000000"}}}, 501, None, None),
    ],
    ids=str,
)
async def test_what_cannot_be_is_refused_when_it_is_set(
    changes: dict[str, Any], status: int, code: str | None, param: str | None
) -> None:
    """With the field that is wrong; nothing is kept."""
    async with stage() as s:
        refused = await s.http.put("/v1/schedules/x", json={**NIGHTLY, **changes})
        assert refused.status_code == status, refused.text
        assert refused.headers["content-type"] == "application/problem+json"
        if code is not None:
            assert refused.json()["code"] == code
        if param is not None:
            assert refused.json()["error"]["param"] == param
        assert (await s.http.get("/v1/schedules")).json()["data"] == []


@pytest.mark.parametrize("name", [".hidden", "a b", "x" * 101, "a%2Fb"])
async def test_a_name_that_is_none_is_refused(name: str) -> None:
    """400: a name is part of a path and of a record's id."""
    async with stage() as s:
        refused = await s.http.put(f"/v1/schedules/{name}", json=NIGHTLY)
        assert refused.status_code in (400, 404)
        assert (await s.http.get("/v1/schedules")).json()["data"] == []


async def test_pause_and_resume() -> None:
    """A paused schedule has no next time; resumed, it goes on from now. Both are harmless when repeated."""
    async with stage(clock=ManualClock()) as s:
        await s.http.put("/v1/schedules/nightly", json=NIGHTLY)
        for _ in range(2):
            paused = (await s.http.post("/v1/schedules/nightly/pause")).json()
            assert (paused["state"], paused["next_at"], paused["upcoming"]) == ("paused", None, [])
        await s.http.put("/v1/schedules/nightly", json={**NIGHTLY, "grace": 5})
        assert (await kept(s, "nightly")).paused, "a change of something else leaves it paused"
        for _ in range(2):
            resumed = (await s.http.post("/v1/schedules/nightly/resume")).json()
            assert (resumed["state"], resumed["grace"]) == ("active", 5.0)
            assert resumed["next_at"]


async def test_run_submits_its_job_now() -> None:
    """202 with the job, which has the schedule's options, tag and marks; under a key of the caller it is one job."""
    async with stage() as s:
        job = {**NIGHTLY["job"], "priority": "high", "timeout": 7, "tags": ["own"], "delay": 0}
        await s.http.put("/v1/schedules/nightly", json={**NIGHTLY, "job": job, "paused": True})
        first = await s.http.post("/v1/schedules/nightly/run", headers={"idempotency-key": "k"})
        assert first.status_code == 202, first.text
        body = first.json()
        assert (body["task"], body["queue"], body["priority"]) == ("greet", "hall", "high")
        assert body["tags"] == ["own", "schedule:nightly"]
        assert body["metadata"]["schedule"] == "nightly"
        again = await s.http.post("/v1/schedules/nightly/run", headers={"idempotency-key": "k"})
        assert (again.json()["id"], again.headers["idempotency-replayed"]) == (body["id"], "true")
        assert (await s.http.post("/v1/schedules/nightly/run")).json()["id"] != body["id"]
        held = await s.hand.take()
        assert (msgspec.json.decode(held.input), held.options.timeout_s) == ({"name": "Ada"}, 7.0)


async def test_another_tenants_is_as_one_that_is_not_there() -> None:
    """404 on every route, it is in no list, and a schedule of the same name is another one."""
    async with keyed() as k:
        own, other = await k.key(tenant="acme"), await k.key(tenant="rival")
        await k.ask("PUT", "/v1/schedules/nightly", own, json=NIGHTLY)
        for method, path in (
            ("GET", "/v1/schedules/nightly"),
            ("DELETE", "/v1/schedules/nightly"),
            ("POST", "/v1/schedules/nightly/pause"),
            ("POST", "/v1/schedules/nightly/resume"),
            ("POST", "/v1/schedules/nightly/run"),
        ):
            assert problem(await k.ask(method, path, other)) == (404, "schedule_not_found"), path
        assert (await k.ask("GET", "/v1/schedules", other)).json()["data"] == []
        assert (await k.ask("PUT", "/v1/schedules/nightly", other, json=NIGHTLY)).status_code == 201
        await k.ask("DELETE", "/v1/schedules/nightly", other)
        assert (await k.ask("GET", "/v1/schedules/nightly", own)).status_code == 200


async def test_who_may_not_submit_it_may_not_schedule_it() -> None:
    """A key's tasks, priority and limits hold for what it schedules, also when the job is made."""
    async with keyed() as k:
        scopes = [Scope.schedules, Scope.write, Scope.read]
        token = await k.key(scopes, tasks=["greet"], max_priority="normal", max_queued=3)
        assert problem(await k.ask("PUT", "/v1/schedules/a", token, json={**NIGHTLY, "job": {"task": "free"}})) == (
            403, "forbidden"
        )  # fmt: skip
        high = {**NIGHTLY, "job": {**NIGHTLY["job"], "priority": "high"}}
        assert problem(await k.ask("PUT", "/v1/schedules/a", token, json=high)) == (403, "priority_not_allowed")
        assert (await k.ask("PUT", "/v1/schedules/a", token, json=NIGHTLY)).status_code == 201
        assert (await kept(k.stage, "a", "acme")).plan.max_own == 3
        plain = await k.key([Scope.write, Scope.read, Scope.admin])
        assert (await k.ask("PUT", "/v1/schedules/a", plain, json=NIGHTLY)).status_code == 403


async def test_each_change_is_told_to_the_audit_log(caplog: pytest.LogCaptureFixture) -> None:
    """Who made, set, paused, resumed and removed it: it goes on when the key is revoked."""
    async with keyed() as k:
        token = await k.key()
        with caplog.at_level(logging.INFO, "ropeway.audit"):
            for method, path in (
                ("PUT", ""),
                ("PUT", ""),
                ("POST", "/pause"),
                ("POST", "/resume"),
                ("DELETE", ""),
            ):
                body = {"json": NIGHTLY} if method == "PUT" else {}
                await k.ask(method, f"/v1/schedules/a{path}", token, **body)
        told = [record.getMessage() for record in caplog.records]
        assert [line.split(",")[0] for line in told] == [
            f"schedule a of tenant acme {what}" for what in ("made", "set", "paused", "resumed", "removed")
        ]
        assert all(f"key {token.split('_')[1]}" in line for line in told)


async def test_one_of_the_code_is_changed_there() -> None:
    """409 to set or remove one that a worker declares; it may be paused. When no worker does, it is `undeclared`."""
    app = App()

    @app.schedule(name="swept", interval=60)
    @app.task
    async def sweep() -> None: ...

    async with stage() as s:
        await s.engine.publish(app.cards)
        await declare(s.engine, app.schedules, seeded_random("d"))
        assert (await s.http.get("/v1/schedules/swept")).json()["state"] == "undeclared"
        here = WorkerCard("w", "w", ("default",), ("sweep",), schedules=("default/swept",), ttl_ms=60_000)
        await s.engine.announce(here)
        assert (await s.http.get("/v1/schedules/swept")).json()["state"] == "active"
        assert (await s.http.get("/v1/schedules")).json()["data"][0]["state"] == "active"
        assert problem(await s.http.put("/v1/schedules/swept", json=NIGHTLY)) == (409, "schedule_conflict")
        assert problem(await s.http.delete("/v1/schedules/swept")) == (409, "schedule_conflict")
        assert (await s.http.post("/v1/schedules/swept/pause")).json()["state"] == "paused"
        await s.engine.close("w")
        assert (await s.http.delete("/v1/schedules/swept")).status_code == 204


async def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """409 too_many_schedules for one more than a tenant may have; those that are there can be changed."""
    monkeypatch.setattr("ropeway.engines.schedules.MOST_SCHEDULES", 2)
    async with stage() as s:
        for name in ("a", "b"):
            await s.http.put(f"/v1/schedules/{name}", json=NIGHTLY)
        assert problem(await s.http.put("/v1/schedules/c", json=NIGHTLY)) == (409, "too_many_schedules")
        assert (await s.http.put("/v1/schedules/a", json={**NIGHTLY, "grace": 1})).status_code == 200
        await s.http.delete("/v1/schedules/b")
        assert (await s.http.put("/v1/schedules/c", json=NIGHTLY)).status_code == 201


async def test_a_webhooks_secret_is_not_shown() -> None:
    """Of a URL's path nothing is shown, as in jobs."""
    async with stage() as s:
        job = {"task": "free", "webhook": {"url": "https://hooks.example/T0PSECRET"}}
        made = await s.http.put("/v1/schedules/x", json={**NIGHTLY, "job": job})
        assert made.status_code == 201, made.text
        assert "hooks.example" in made.text
        assert "T0PSECRET" not in made.text
