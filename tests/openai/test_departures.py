"""What becomes of a call whose client leaves: it is cancelled, goes on, or is taken up by whoever comes back."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx
import pytest
from openai_support import World, until, user, world

from ropeway.serving import GatewayOptions

SOON = GatewayOptions(departure_grace_s=0.05)
LATE = GatewayOptions(departure_grace_s=3600)
ASKED = {"model": "words", "messages": user("one @go two")}


@contextlib.asynccontextmanager
async def a_reader(w: World, body: dict[str, Any], path: str = "/v1/chat/completions") -> Any:
    """Somebody who waits for an answer, and leaves at the end of this block."""
    async with httpx.AsyncClient(base_url=w.url, timeout=30) as http:
        asking = asyncio.create_task(http.post(path, json=body))
        await until(lambda: "go" in w.gates.reached, "the task waits")
        await until(lambda: w.gateways[0].waiting == 1, "the call waits")
        yield
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_a_synchronous_call_ends_with_its_client(path: str, stream: bool) -> None:
    """After a moment of grace, whole or streamed."""
    body = {"model": "words", "stream": stream}
    body["messages" if "chat" in path else "input"] = user("one @go two")
    async with world(options=SOON) as w:
        async with a_reader(w, body, path):
            pass
        job = await w.until_state("cancelled")
    assert job["cancel_reason"] == "the client disconnected"


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1/chat/completions", {"messages": user("one @go two"), "job": {"on_disconnect": "continue"}}),
        ("/v1/responses", {"input": "one @go two", "background": True, "stream": True}),
    ],
)
async def test_a_call_that_is_to_go_on_goes_on(path: str, more: dict[str, Any]) -> None:
    """Responses in the background do by themselves; others when `on_disconnect` says so."""
    async with world(options=SOON) as w:
        async with a_reader(w, {"model": "words", **more}, path):
            pass
        await until(lambda: w.gateways[0].waiting == 0, "the gateway saw the client leave")
        assert not w.gateways[0]._openai._departures._waiting
        w.gates.open("go")
        assert (await w.until_state("succeeded", "cancelled"))["state"] == "succeeded"


async def test_who_comes_back_in_time_keeps_the_call_alive() -> None:
    """A retry at another gateway takes the job over: the gateway that was left does not end it any more."""
    async with world(options=LATE, gateways=2) as w:
        async with httpx.AsyncClient(timeout=30) as http:
            url, other = (f"{url}/v1/chat/completions" for url in w.urls)
            first = asyncio.create_task(http.post(url, json=ASKED, headers={"X-Stainless-Retry-Count": "0"}))
            await until(lambda: w.gateways[0].waiting == 1, "the call waits")
            await until(lambda: "go" in w.gates.reached, "the task waits")
            first.cancel()
            leaving = w.gateways[0]._openai._departures._waiting
            await until(lambda: bool(leaving), "the gateway saw the client leave")
            again = asyncio.create_task(http.post(other, json=ASKED, headers={"X-Stainless-Retry-Count": "1"}))
            await until(lambda: w.gateways[1].waiting == 1, "the retry waits at the other gateway")
            await w.gateways[0]._openai.close()
            await until(lambda: not leaving, "its grace is over")
            assert (await w.the_job())["cancel_requested_at"] is None
            w.gates.open("go")
            answer = await again
        assert answer.json()["choices"][0]["message"]["content"] == "one two "
        assert len(await w.jobs()) == 1


async def test_a_gateway_that_stops_settles_what_was_left_to_it() -> None:
    """Nobody else would: the grace ends with it."""
    async with world(options=LATE, gateways=2) as w:
        async with a_reader(w, ASKED):
            pass
        await until(lambda: bool(w.gateways[0]._openai._departures._waiting), "the gateway saw the client leave")
        await w.gateways[0]._openai.close()
        w.urls.reverse()
        assert (await w.until_state("cancelled"))["state"] == "cancelled"
