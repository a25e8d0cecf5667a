"""Jobs that wait for others, and waking them, over HTTP and on the WebSocket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from keys_support import bearer, keyed
from serving_support import ENGINES, stage
from websocket_support import theatre

from ropeway.domain.caller import Scope
from ropeway.domain.flow import AFTER_LIMIT
from ropeway.serving.openapi import build_document

pytestmark = pytest.mark.parametrize("engine", ENGINES)


async def test_a_submit_says_what_it_waits_for(engine: str, tmp_path: Path) -> None:
    """The job has the same members as any other: whom it waits for, and no time to run at."""
    async with stage(engine, tmp_path) as s:
        plain = (await s.http.post("/v1/jobs", json={"task": "free"})).json()
        assert (plain["after"], plain["after_failure"], plain["parent"]) == ([], None, None)
        body = {"task": "free", "input": {"of": [{"$output": plain["id"]}]}}
        answer = await s.http.post("/v1/jobs", json={**body, "after_failure": "run"})
        job = answer.json()
        assert (answer.status_code, job["state"], job["run_at"]) == (202, "scheduled", None)
        assert (job["after"], job["after_failure"]) == ([plain["id"]], "run")
        shown = await s.job(job["id"])
        assert (shown["after"], shown["run_at"], shown["input"]) == ([plain["id"]], None, body["input"])
        listed = (await s.http.get("/v1/jobs")).json()["data"][0]
        assert (listed["id"], listed["after"], listed["run_at"]) == (job["id"], [plain["id"]], None)
        again = (await s.http.post("/v1/jobs", json={"task": "free"})).json()
        assert (again["after"], again["after_failure"]) == ([], None)


async def test_one_whose_others_have_ended_is_queued_and_says_whom_it_came_after(engine: str, tmp_path: Path) -> None:
    """Its answer is not that of a job which waits for nobody, nor is the next one's."""
    async with stage(engine, tmp_path) as s:
        first = await s.submit()
        await s.hand.succeed(await s.hand.take(), 1)
        for after in ([first], [], [first]):
            job = (await s.http.post("/v1/jobs", json={"task": "free", "after": after})).json()
            assert (job["state"], job["after"]) == ("queued", after)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"after": ["job_none"]}, "after"),
        ({"after": [f"job_{n}" for n in range(AFTER_LIMIT + 1)]}, "after"),
        ({"after": [""]}, "after"),
        ({"after": "job_none"}, "after"),
        ({"after": [5]}, "after[0]"),
        ({"after": None}, "after"),
        ({"after_failure": "shrug"}, "after_failure"),
        ({"after": ["job_none"], "delay": 5}, "delay"),
        ({"input": {"$output": "job_none"}}, "after"),
        ({"input": [[{"$output": "job_none"}]]}, "after"),
        ({"parent": "job_none"}, "parent"),
    ],
    ids=range(11),
)
async def test_what_cannot_be_waited_for_is_400(engine: str, fields: Any, param: str, tmp_path: Path) -> None:
    """With the field that is wrong; a parent is not for callers to name. Of many, it is the answer to its line."""
    async with stage(engine, tmp_path) as s:
        answer = await s.http.post("/v1/jobs", json={"task": "free", **fields})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
        assert answer.json()["error"]["param"] == param
        bodies: list[dict[str, Any]] = [{"task": "free"}, {"task": "free", **fields}]
        lines = [msgspec.json.encode(body) for body in bodies]
        told = await s.http.post(
            "/v1/jobs", content=b"\n".join(lines), headers={"content-type": "application/x-ndjson"}
        )
        good, bad = [msgspec.json.decode(line) for line in told.content.splitlines()]
        assert (good["status"], bad["status"], bad["problem"]["error"]["param"]) == (202, 400, param)


async def test_another_tenants_job_is_none_to_wait_for(engine: str, tmp_path: Path) -> None:
    """As one that is not there: by its id and by its output; and it is not woken."""
    async with keyed(engine, tmp_path) as k:
        mine, theirs = bearer(await k.key(tenant="acme")), bearer(await k.key(tenant="other"))
        http = k.stage.http
        foreign = (await http.post("/v1/jobs", json={"task": "free", "delay": 60}, headers=theirs)).json()["id"]
        unknown = []
        for named in (foreign, "job_none"):
            for fields in ({"after": [named]}, {"input": {"a": {"$output": named}}}):
                answer = await http.post("/v1/jobs", json={"task": "free", **fields}, headers=mine)
                unknown.append((answer.status_code, answer.json()["detail"].replace(named, "X")))
        assert len(set(unknown)) == 1
        assert (await http.post(f"/v1/jobs/{foreign}/wake", headers=mine)).status_code == 404
        assert (await http.post(f"/v1/jobs/{foreign}/wake", headers=theirs)).json()["state"] == "queued"


async def test_the_known_part_of_an_input_is_checked(engine: str, tmp_path: Path) -> None:
    """422 with the members that are wrong whatever the output will be."""
    async with stage(engine, tmp_path) as s:
        first = await s.submit()
        wrong = {"name": {"$output": first}, "times": "x", "more": 1}
        answer = await s.http.post("/v1/jobs", json={"task": "greet", "input": wrong})
        assert answer.status_code == 422
        assert {fault["pointer"] for fault in answer.json()["errors"]} == {"/times", "/more"}
        right = {"name": {"$output": first}, "times": 2}
        assert (await s.http.post("/v1/jobs", json={"task": "greet", "input": right})).status_code == 202


async def test_a_line_of_many_takes_the_same(engine: str, tmp_path: Path) -> None:
    """Each waits by itself."""
    async with stage(engine, tmp_path) as s:
        first = await s.submit()
        lines = [msgspec.json.encode({"task": "free", "after": [first], "input": n}) for n in range(3)]
        told = await s.http.post(
            "/v1/jobs", content=b"\n".join(lines), headers={"content-type": "application/x-ndjson"}
        )
        jobs = [msgspec.json.decode(line)["job"] for line in told.content.splitlines()]
        assert [(job["state"], job["after"]) for job in jobs] == [("scheduled", [first])] * 3


async def test_a_socket_takes_the_same(engine: str, tmp_path: Path) -> None:
    """A submit on the WebSocket."""
    async with theatre(engine, tmp_path) as t, t.socket() as socket:
        first = await socket.submit(subscribe=False)
        ack = await socket.ask("submit", job={"task": "free", "input": {"$output": first}}, subscribe=False)
        assert (ack["job"]["state"], ack["job"]["after"]) == ("scheduled", [first])
        assert await socket.refused("submit", job={"task": "free", "after": ["job_none"]}) == "invalid_request"


async def test_a_waiting_job_is_woken(engine: str, tmp_path: Path) -> None:
    """200 with the job, queued; a repeat, and a job that waits for nothing, change nothing; 404 where there is none."""
    async with stage(engine, tmp_path) as s:
        later = await s.submit(delay=3600)
        woken = await s.http.post(f"/v1/jobs/{later}/wake")
        job = woken.json()
        assert (woken.status_code, job["state"], job["run_at"], job["queue_position"]) == (200, "queued", None, 0)
        assert woken.headers["etag"] == f'"{job["version"]}"'
        assert (await s.http.post(f"/v1/jobs/{later}/wake")).json()["version"] == job["version"]
        await s.hand.succeed(await s.hand.take(), 1)
        ended = await s.http.post(f"/v1/jobs/{later}/wake")
        assert (ended.status_code, ended.json()["state"], ended.json()["output"]) == (200, "succeeded", 1)
        assert (await s.http.post("/v1/jobs/job_none/wake")).status_code == 404
        assert (await s.http.post(f"/v1/jobs/{later}/wake", json={"at": 1})).status_code == 400
        assert (await s.http.get(f"/v1/jobs/{later}/wake")).status_code == 405


async def test_waking_is_for_who_may_cancel(engine: str, tmp_path: Path) -> None:
    """Not for a key that only submits, nor for a page, whose token looks at its job and cancels it at the most."""
    async with keyed(engine, tmp_path) as k:
        http = k.stage.http
        write, cancel = (
            bearer(await k.key(scopes=(Scope.write, Scope.read))),
            bearer(await k.key(scopes=(Scope.cancel,))),
        )
        job = (await http.post("/v1/jobs", json={"task": "free", "delay": 60}, headers=write)).json()["id"]
        token = (await http.post(f"/v1/jobs/{job}/token", json={"ttl": 60}, headers=write)).json()["token"]
        assert (await http.post(f"/v1/jobs/{job}/wake", headers=write)).status_code == 403
        assert (await http.post(f"/v1/jobs/{job}/wake", headers=bearer(token))).status_code == 403
        assert (await http.post(f"/v1/jobs/{job}/wake", headers=cancel)).status_code == 200


async def test_a_schedules_job_waits_for_no_other(engine: str, tmp_path: Path) -> None:
    """It runs at each of its times."""
    async with stage(engine, tmp_path) as s:
        first = await s.submit()
        for fields in ({"after": [first]}, {"after_failure": "run"}, {"input": {"$output": first}}):
            asked = {"interval": 60, "job": {"task": "free", **fields}}
            answer = await s.http.put("/v1/schedules/nightly", json=asked)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "job.after"), answer.text


async def test_the_document_has_it(engine: str, tmp_path: Path) -> None:
    """In the request, in the job, and as a route."""
    document = build_document()
    schemas = document["components"]["schemas"]
    assert {"after", "after_failure"} <= set(schemas["JobRequest"]["properties"])
    assert {"after", "after_failure", "parent"} <= set(schemas["JobBody"]["properties"])
    assert document["paths"]["/v1/jobs/{id}/wake"]["post"]["operationId"] == "wake_job"
