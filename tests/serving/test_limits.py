"""Limits over HTTP: of tasks, of keys and tenants, and those that an operator sets."""

from __future__ import annotations

from typing import Any

import pytest
from keys_support import keyed, problem

from ropeway.domain.caller import Scope
from ropeway.domain.lease import LeaseRequest
from ropeway.domain.limit import Limit


async def test_a_tenants_jobs_wait_for_each_other() -> None:
    """No more run at once than its limit; the others say what they wait for, and start when one ends."""
    async with keyed() as k:
        hand = k.stage.hand
        admin, token = await k.key(tenant="ops"), await k.key()
        await k.ask("PUT", "/v1/tenants/acme", admin, json={"max_running": 1})
        k.later()
        first, second = await k.submit(token), await k.submit(token)
        held = await hand.take()
        assert held.job_id == first
        assert await k.stage.engine.lease(LeaseRequest("s1", "hand", ("hall",), 1)) == []
        shown = (await k.ask("GET", f"/v1/jobs/{second}", token)).json()
        assert (shown["state"], shown["waiting_for"]) == ("queued", "tenant:acme")
        assert (shown["queue_position"], shown["eta"]) == (0, None)
        (limit,) = (await k.ask("GET", "/v1/limits", admin)).json()["data"]
        assert (limit["key"], limit["running"], limit["parked"]) == ("tenant:acme", 1, 1)
        await hand.succeed(held, "done")
        assert (await k.ask("GET", f"/v1/jobs/{second}", token)).json()["waiting_for"] is None
        assert (await hand.take()).job_id == second


async def test_a_keys_limit_is_its_own() -> None:
    """And goes with its jobs: a retry runs under the limits of who retries."""
    async with keyed() as k:
        small, big = await k.key(max_running=1, tokens_per_min=600), await k.key()
        ended = await k.submit(small)
        await k.stage.hand.succeed(await k.stage.hand.take(), "done")
        (job,) = await k.stage.engine.get("acme", [ended])
        assert job is not None
        place, tokens = job.options.limits
        assert (place.max_running, tokens.per_s, tokens.measure) == (1, 10.0, "tokens")
        assert (place.key.startswith("key:"), tokens.key) == (True, f"{place.key}:tokens")
        again = (await k.ask("POST", f"/v1/jobs/{ended}/retry", small)).json()["id"]
        (job,) = await k.stage.engine.get("acme", [again])
        assert job is not None
        assert [limit.key for limit in job.options.limits] == [place.key, tokens.key]
        free = await k.submit(big)
        (job,) = await k.stage.engine.get("acme", [free])
        assert job is not None
        assert job.options.limits == ()


async def test_an_operator_sets_limits() -> None:
    """They count at once, for those that wait; cleared, what jobs bring counts again."""
    async with keyed() as k:
        admin = await k.key()
        put = await k.ask("PUT", "/v1/limits/openai%3Atokens", admin, json={"per_s": 2, "burst": 9, "max_running": 3})
        assert put.status_code == 200, put.text
        assert put.json()["policy"] == {"max_running": 3, "per_s": 2.0, "burst": 9.0}
        assert [limit["key"] for limit in (await k.ask("GET", "/v1/limits", admin)).json()["data"]] == ["openai:tokens"]
        gone = await k.ask("DELETE", "/v1/limits/openai%3Atokens", admin)
        assert (gone.status_code, gone.json()["policy"]) == (200, None)


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("a%20b", {}),
        ("x" * 256, {}),
        ("k", {"max_running": 0}),
        ("k", {"per_s": 1}),
        ("k", {"per_s": -1, "burst": 1}),
        ("k", {"speed": 1}),
        ("k", []),
    ],
)
async def test_a_limit_that_cannot_be_is_refused(key: str, body: Any) -> None:
    """400, and nothing is set."""
    async with keyed() as k:
        admin = await k.key()
        assert problem(await k.ask("PUT", f"/v1/limits/{key}", admin, json=body)) == (400, "invalid_request")
        assert (await k.ask("GET", "/v1/limits", admin)).json() == {"data": []}


async def test_limits_are_the_operators() -> None:
    """They are of all tenants: seen with the scope `metrics`, set with `admin`."""
    async with keyed() as k:
        user = await k.key({Scope.read, Scope.write, Scope.cancel})
        for method in ("PUT", "DELETE"):
            answer = await k.ask(method, "/v1/limits/k", user, **({"json": {}} if method == "PUT" else {}))
            assert problem(answer) == (403, "forbidden")
        assert problem(await k.ask("GET", "/v1/limits", user)) == (403, "forbidden")
        assert (await k.ask("GET", "/v1/limits", await k.key({Scope.metrics}))).status_code == 200


def test_the_limits_of_a_task_are_public_names() -> None:
    """What an application declares is what `ropeway` exports."""
    import ropeway

    assert ropeway.Limit is Limit
    assert ropeway.Budget("b").limits == ()
