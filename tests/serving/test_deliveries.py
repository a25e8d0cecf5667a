"""Webhooks over HTTP: asked for with the submit, their deliveries looked at and asked for again; and usage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from keys_support import keyed, problem
from serving_support import ENGINES, QUICK, Stage, stage

from ropeway.domain.caller import Scope
from ropeway.domain.lease import Commit, LeaseRequest, Outcome
from ropeway.domain.worker import WorkerCard
from ropeway.engines.secrets import Secrets
from ropeway.testing import seeded_random

URL = "https://hooks.example/ropeway"


async def ended(s: Stage, **fields: Any) -> str:
    """The id of a job with a webhook that has ended."""
    job_id = await s.submit("free", webhook={"url": URL}, **fields)
    await s.hand.end(await s.hand.take(), Outcome("succeeded", output='"done"', usage='{"tokens":3,"cost":0.5}'))
    return job_id


async def attempted(s: Stage, kind: str = "succeeded", recorded: str | None = None, **told: Any) -> None:
    """One attempt to deliver, as the sender makes it."""
    await s.engine.announce(WorkerCard("sender", "sender", ("webhooks",), ttl_ms=600_000))
    (held,) = await s.engine.lease(LeaseRequest("sender", "sender", ("webhooks",), 1))
    s.hand._next_seq[held.job_id] = held.next_seq
    await s.hand.emit(held, ("output.delta", {"index": 0, "delta": told}))
    await s.engine.commit([Commit(held.lease, Outcome(kind, error=recorded, delay_ms=0))])


@pytest.mark.parametrize("engine", ENGINES)
async def test_deliveries_are_listed_with_their_attempts(engine: str, tmp_path: Path) -> None:
    """Each attempt's time, status, excerpt and error; the delivery's own state."""
    async with stage(engine, tmp_path) as s:
        job_id = await ended(s)
        path = f"/v1/jobs/{job_id}/deliveries"
        (waiting,) = (await s.http.get(path)).json()["data"]
        assert (waiting["id"], waiting["object"], waiting["state"]) == (f"{job_id}-d0", "delivery", "queued")
        assert (waiting["url"], waiting["type"], waiting["attempts"]) == (URL, "job.succeeded", [])
        error = '{"code":"webhook_status","message":"answered 503"}'
        await attempted(s, "retry", error, status=503, error="webhook_status", excerpt="late", duration=0.1)
        await attempted(s, status=204, duration=0.2)
        (delivered,) = (await s.http.get(path)).json()["data"]
        assert (delivered["state"], delivered["next_at"]) == ("succeeded", None)
        first, second = delivered["attempts"]
        assert (first["attempt"], first["status"], first["excerpt"], first["duration"]) == (1, 503, "late", 0.1)
        assert (first["error"], first["message"]) == ("webhook_status", "answered 503")
        assert (second["attempt"], second["status"], second["error"]) == (2, 204, None)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_delivery_is_asked_for_again(engine: str, tmp_path: Path) -> None:
    """202 with the new one, once the old one has ended; 409 before, 404 for what is none of this job's."""
    async with stage(engine, tmp_path) as s:
        job_id, other = await ended(s), await ended(s)
        path = f"/v1/jobs/{job_id}/deliveries"
        live = await s.http.post(f"{path}/{job_id}-d0/redeliver")
        assert (live.status_code, live.json()["code"]) == (409, "job_not_retryable")
        await attempted(s, status=204)
        again = await s.http.post(f"{path}/{job_id}-d0/redeliver")
        assert (again.status_code, again.json()["id"]) == (202, f"{job_id}-d1")
        assert (again.json()["redelivery_of"], again.json()["state"]) == (f"{job_id}-d0", "queued")
        assert [one["id"] for one in (await s.http.get(path)).json()["data"]] == [f"{job_id}-d0", f"{job_id}-d1"]
        for wrong in (f"{other}-d0", job_id, f"{job_id}-d9", "job_none"):
            answer = await s.http.post(f"{path}/{wrong}/redeliver")
            assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found"), wrong


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_job_tells_whom_its_end_is_told(engine: str, tmp_path: Path) -> None:
    """In the submit's answer, in lists, on streams: the host and the events, and no path, where a secret may be."""
    async with stage(engine, tmp_path) as s:
        plain = await s.http.post("/v1/jobs", json={"task": "free"})
        assert plain.json()["webhook"] is None
        webhook = {"url": f"{URL}/secret?token=secret", "events": ["job.failed", "job.succeeded"]}
        made = await s.http.post("/v1/jobs", json={"task": "free", "webhook": webhook})
        shown = {"url": "https://hooks.example/…", "events": ["job.failed", "job.succeeded"]}
        assert made.json()["webhook"] == shown
        path = made.headers["location"]
        listed = (await s.http.get("/v1/jobs")).json()["data"][0]
        assert listed["webhook"] == (await s.http.get(path)).json()["webhook"] == shown
        for _ in range(2):
            await s.hand.succeed(await s.hand.take(), None)
        log = (await s.http.get(f"{path}/events", headers={"accept": "text/event-stream"})).text
        assert '"webhook":{"url":"https://hooks.example/…"' in log
        assert "secret" not in log
        assert "secret" not in (await s.http.get("/v1/jobs")).text
        (delivery,) = (await s.http.get(f"{path}/deliveries")).json()["data"]
        assert delivery["url"] == webhook["url"], "whole, for who has a key"


async def test_deliveries_outlive_their_job() -> None:
    """A deleted job's are still there; a job that never was is 404, one without a webhook has none."""
    async with stage() as s:
        job_id = await ended(s)
        assert (await s.http.delete(f"/v1/jobs/{job_id}")).status_code == 204
        assert len((await s.http.get(f"/v1/jobs/{job_id}/deliveries")).json()["data"]) == 1
        silent = await s.submit()
        assert (await s.http.get(f"/v1/jobs/{silent}/deliveries")).json() == {"data": []}
        assert (await s.http.get("/v1/jobs/job_none/deliveries")).status_code == 404


@pytest.mark.parametrize(
    ("webhook", "says"),
    [
        ({"url": "http://hooks.example/"}, "https only"),
        ({"url": "https://10.0.0.1/"}, "not a public one"),
        ({"url": "https://hooks.example:22/"}, "port 443 or 8443"),
        ({"url": "https://user:secret@hooks.example/"}, "names no user"),
        ({"url": "https://127.1/"}, "is no address"),
        ({"url": URL, "events": []}, "name at least one"),
        ({"url": URL, "events": ["job.started"]}, "Invalid enum value"),
        ({"url": URL, "secret": "x"}, "unknown field"),
        ({}, "missing required field"),
        ("https://hooks.example/", "Expected `object | null`"),
    ],
)
async def test_a_webhook_that_may_not_be_is_refused_at_the_submit(webhook: Any, says: str) -> None:
    """400, with what is wrong; one by one or as a line of many; and nothing is stored."""
    async with stage() as s:
        body = {"task": "free", "input": None, "webhook": webhook}
        answer = await s.http.post("/v1/jobs", json=body)
        assert (answer.status_code, says in answer.json()["detail"]) == (400, True), answer.text
        headers = {"content-type": "application/x-ndjson"}
        lines = await s.http.post("/v1/jobs", content=msgspec.json.encode(body), headers=headers)
        assert msgspec.json.decode(lines.content)["status"] == 400
        assert (await s.http.get("/v1/jobs")).json()["data"] == []


async def test_an_allowed_host_is_taken() -> None:
    """What an operator allows is no fault of the submit's."""
    options = msgspec.structs.replace(QUICK, webhook_allow=("127.0.0.1:9000",))
    async with stage(options=options) as s:
        await s.submit(webhook={"url": "http://127.0.0.1:9000/hook"})
        refused = await s.http.post("/v1/jobs", json={"task": "free", "webhook": {"url": "http://127.0.0.1:9001/"}})
        assert refused.status_code == 400


@pytest.mark.parametrize("engine", ENGINES)
async def test_usage_is_told_by_day_and_task(engine: str, tmp_path: Path) -> None:
    """Of the last thirty days, or of those asked for."""
    async with stage(engine, tmp_path) as s:
        for _ in range(2):
            await ended(s)
        today = datetime.now(UTC).date().isoformat()
        told = (await s.http.get("/v1/usage")).json()
        assert told["until"] >= today
        assert told["data"] == [{"day": today, "task": "free", "jobs": 2, "amounts": {"tokens": 6, "cost": 1}}]
        assert (await s.http.get("/v1/usage?since=2020-01-01&until=2020-12-31")).json() == {
            "since": "2020-01-01",
            "until": "2020-12-31",
            "data": [],
        }
        for query in ("since=2026-1-1", "since=2026-W01-1", "until=2026-02-30", "since=x", "since=9999-01-01",
                      "since=2020-01-01&until=2026-01-01"):  # fmt: skip
            refused = await s.http.get(f"/v1/usage?{query}")
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request"), query


async def test_a_stranger_sees_neither_deliveries_nor_usage() -> None:
    """Another tenant's are, byte for byte, as those of a job that is not there; and its usage is its own."""
    async with keyed() as k:
        mine, theirs = await k.key(), await k.key(tenant="rival")
        job_id = await k.submit(mine, webhook={"url": URL})
        await k.stage.hand.end(await k.stage.hand.take(), Outcome("succeeded", usage='{"tokens":3}'))
        paths = (("GET", ""), ("POST", "/{id}-d0/redeliver"))
        for method, path in paths:
            bodies = []
            for asked in (job_id, job_id[:-1] + "x"):
                answer = await k.ask(method, f"/v1/jobs/{asked}/deliveries{path.format(id=asked)}", theirs)
                assert problem(answer) == (404, "job_not_found")
                told = {**answer.json(), "instance": ""}
                bodies.append(msgspec.json.encode(told).replace(asked.encode(), b"ID"))
            assert bodies[0] == bodies[1]
        today = datetime.now(UTC).date()
        path = f"/v1/usage?since={today}&until={today + timedelta(1)}"
        assert (await k.ask("GET", path, theirs)).json()["data"] == []
        assert len((await k.ask("GET", path, mine)).json()["data"]) == 1


async def test_each_needs_its_scope_and_no_page_sees_a_url() -> None:
    """Reading is `jobs:read`, asking again `jobs:write`; a page's token shows none: URLs may hold secrets."""
    async with keyed() as k:
        job_id = await k.submit(await k.key(), webhook={"url": URL})
        path = f"/v1/jobs/{job_id}/deliveries"
        writer, reader = await k.key([Scope.write]), await k.key([Scope.read])
        assert problem(await k.ask("GET", path, writer)) == (403, "forbidden")
        assert problem(await k.ask("GET", "/v1/usage", writer)) == (403, "forbidden")
        assert problem(await k.ask("POST", f"{path}/{job_id}-d0/redeliver", reader)) == (403, "forbidden")
        assert (await k.ask("GET", path, reader)).status_code == 200
        page = (await k.ask("POST", f"/v1/jobs/{job_id}/token", reader)).json()["token"]
        assert problem(await k.ask("GET", path, page)) == (403, "forbidden")
        assert (await k.ask("GET", f"/v1/jobs/{job_id}", page)).status_code == 200


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_admin_sees_and_changes_what_webhooks_are_signed_with(
    engine: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of every tenant; made when first asked for; both sign while it changes; each look and change is written down."""
    caplog.set_level("INFO", "ropeway.audit")
    async with keyed(engine, tmp_path) as k:
        admin, narrow = await k.key(tenant="ops"), await k.key({Scope.write, Scope.read})
        path = "/v1/tenants/acme/webhook-secrets"
        for method, where in (("GET", path), ("POST", f"{path}/rotate")):
            assert problem(await k.ask(method, where, narrow)) == (403, "forbidden")
        shown = await k.ask("GET", path, admin)
        assert shown.headers["cache-control"] == "no-store"
        (first,) = shown.json()["data"]
        assert first["secret"].startswith("whsec_")
        assert first["expires_at"] is None
        assert (await k.ask("GET", path, admin)).json()["data"] == [first]
        assert (await k.ask("GET", "/v1/tenants/other/webhook-secrets", admin)).json()["data"] != [first]
        turned = await k.ask("POST", f"{path}/rotate", admin, json={"overlap": 60})
        assert turned.status_code == 201
        newest, older = (await k.ask("GET", path, admin)).json()["data"]
        assert (newest, older["secret"]) == (turned.json(), first["secret"])
        assert older["expires_at"] is not None
        signing = await Secrets(k.stage.engine, k.clock, seeded_random(1)).valid("acme")
        assert [one.secret for one in signing] == [newest["secret"], older["secret"]]
        k.later(60)
        assert (await k.ask("GET", path, admin)).json()["data"] == [newest]
        for wrong in ({"overlap": -1}, {"overlap": 1e9}, {"overlap": "x"}, {"over": 1}):
            assert problem(await k.ask("POST", f"{path}/rotate", admin, json=wrong)) == (400, "invalid_request")
        assert problem(await k.ask("GET", "/v1/tenants/a%20b/webhook-secrets", admin)) == (400, "invalid_request")
    told = [line for line in caplog.messages if line.startswith("webhook secret")]
    who = f"by key {admin.split('_')[1]}"
    assert told[0] == f"webhook secrets of tenant acme shown, {who}"
    assert f"webhook secret of tenant acme changed, the old one signs for 60 s more, {who}" in told
    assert not any(one["secret"] in caplog.text for one in (first, newest))
