"""Keys and limits as OpenAI's SDKs meet them: their `api_key` is ours, and so are the errors that they raise."""

from __future__ import annotations

from typing import Any

from openai_support import Sdk, each_sdk, newest_sdk, user, world

from ropeway.client.keyring import KeyRing
from ropeway.client.keys import KeyLimits
from ropeway.domain.caller import Scope
from ropeway.domain.clock import SystemClock


@each_sdk
async def test_an_sdk_brings_its_key(sdk: Sdk) -> None:
    """None or a wrong one is AuthenticationError; one without the scope, PermissionDeniedError; limits are told."""
    async with world() as w:
        ring = KeyRing(w.engine, SystemClock())
        limits = KeyLimits(requests_per_min=2).limits()
        scopes = frozenset({Scope.read, Scope.write})
        _, good = await ring.create("good", tenant="acme", scopes=scopes, limits=limits)
        _, reader = await ring.create("reader", tenant="acme", scopes=frozenset({Scope.read}))
        args: dict[str, Any] = {"model": "words", "messages": user("one")}
        unknown = (await sdk(w.url, "chat", key="rw_nobody", **args))["error"]
        forbidden = (await sdk(w.url, "chat", key=reader, **args))["error"]
        headers = (await sdk(w.url, "chat", key=good, **args))["headers"]
        await sdk(w.url, "chat", key=good, **args)
        limited = (await sdk(w.url, "chat", key=good, **args))["error"]
    assert (unknown["class"], unknown["code"]) == ("AuthenticationError", "unauthenticated")
    assert (forbidden["class"], forbidden["code"]) == ("PermissionDeniedError", "forbidden")
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "1"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert (limited["class"], limited["code"]) == ("RateLimitError", "rate_limited")


@newest_sdk
async def test_a_retry_is_found_by_its_own_key_alone(newest: Sdk) -> None:
    """The same call of another key, or another tenant, is another job."""
    import httpx

    async with world() as w, httpx.AsyncClient(base_url=w.url) as http:
        ring = KeyRing(w.engine, SystemClock())
        tokens = [(await ring.create(name, tenant=name))[1] for name in ("acme", "rival")]
        tokens.append((await ring.create("second", tenant="acme"))[1])
        body = {"model": "words", "messages": user("one")}
        jobs = []
        for token, count in ((tokens[0], "0"), (tokens[0], "1"), (tokens[1], "1"), (tokens[2], "1")):
            headers = {"Authorization": f"Bearer {token}", "X-Stainless-Retry-Count": count}
            answer = await http.post("/v1/chat/completions", json=body, headers=headers)
            jobs.append(answer.headers["x-job-id"])
    assert jobs[0] == jobs[1]
    assert len(set(jobs)) == 3
