"""Whose a socket is: its key, its tenant, its scopes, and the end of all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from serving_support import until
from websocket_support import Socket, Theatre, theatre

from ropeway.client.keyring import KeyRing
from ropeway.client.keys import KeyLimits
from ropeway.domain.caller import Scope
from ropeway.domain.clock import SystemClock
from ropeway.domain.ids import system_random

ALL = frozenset(Scope)


class Keys:
    """A theatre's keys."""

    def __init__(self, t: Theatre) -> None:
        self.theatre = t
        self.ring = KeyRing(t.engine, SystemClock(), system_random)

    async def key(self, scopes: Iterable[Scope] = ALL, tenant: str = "acme", **limits: Any) -> str:
        _, token = await self.ring.create(
            "tester", tenant=tenant, scopes=frozenset(scopes), limits=KeyLimits(**limits).limits(), ttl_s=None
        )
        return token

    @asynccontextmanager
    async def socket(self, token: str) -> AsyncIterator[Socket]:
        """A socket of this key, given as a page gives it."""
        async with self.theatre.socket(f"bearer.{token}") as socket:
            assert socket.wire.subprotocol == "ropeway.v1", "a key is never repeated in an answer"
            yield socket


@asynccontextmanager
async def keys() -> AsyncIterator[Keys]:
    async with theatre() as t:
        yield Keys(t)


async def test_without_a_key_it_is_closed() -> None:
    """4401, and the problem before it; with one that is wrong, the same."""
    async with keys() as k:
        await k.key()
        async with k.theatre.socket() as socket:
            assert (await socket.hear())["problem"]["code"] == "unauthenticated"
            assert await socket.closed() == 4401
        async with k.theatre.socket("bearer.rw_nonsense") as socket:
            assert await socket.closed() == 4401


@pytest.mark.parametrize("how", ["header", "subprotocol"])
async def test_a_key_comes_as_a_header_or_as_a_subprotocol(how: str) -> None:
    """The second for pages, which can set no header."""
    async with keys() as k:
        token = await k.key()
        given: dict[str, Any] = {"additional_headers": {"Authorization": f"Bearer {token}"}} if how == "header" else {}
        protocols = () if how == "header" else (f"bearer.{token}",)
        async with k.theatre.socket(*protocols, **given) as socket:
            job_id = await socket.submit()
            (job,) = await k.theatre.engine.get("acme", [job_id])
            assert job is not None, "it is its tenant's job"


async def test_another_tenants_job_is_not_there() -> None:
    """To follow, to cancel, or to send anything to."""
    async with keys() as k:
        async with k.socket(await k.key(tenant="acme")) as socket:
            job_id = await socket.submit()
        async with k.socket(await k.key(tenant="other")) as socket:
            assert await socket.refused("subscribe", job_id=job_id) == "job_not_found"
            assert await socket.refused("cancel", job_id=job_id) == "job_not_found"
            assert await socket.refused("input", job_id=job_id, data=1) == "job_not_found"


async def test_a_key_does_what_its_scopes_say() -> None:
    """The rest is refused, and the socket goes on; a key that may do nothing here is closed with 4403."""
    async with keys() as k:
        job_id = ""
        async with k.socket(await k.key([Scope.write])) as socket:
            job_id = (await socket.ask("submit", job={"task": "free"}, subscribe=False))["job"]["id"]
            assert await socket.refused("submit", job={"task": "free"}) == "forbidden"
            assert await socket.refused("subscribe", job_id=job_id) == "forbidden"
            assert await socket.refused("cancel", job_id=job_id) == "forbidden"
        async with k.socket(await k.key([Scope.read])) as socket:
            assert (await socket.ask("subscribe", job_id=job_id, types=["log"]))["type"] == "ack"
            assert await socket.refused("submit", job={"task": "free"}, subscribe=False) == "forbidden"
            assert await socket.refused("input", job_id=job_id, data=1) == "forbidden"
        async with k.socket(await k.key([Scope.cancel])) as socket:
            assert (await socket.ask("cancel", job_id=job_id))["type"] == "ack"
        async with k.socket(await k.key([Scope.metrics, Scope.files])) as socket:
            assert await socket.closed() == 4403


async def test_a_key_has_its_limits_here_too() -> None:
    """Tasks, sizes, sockets, and requests a minute."""
    async with keys() as k:
        async with k.socket(await k.key(tasks=("greet",), max_body_bytes=100)) as socket:
            assert await socket.refused("submit", job={"task": "free"}) == "forbidden"
            assert await socket.refused("submit", job={"task": "greet", "input": {"name": "x" * 100}}) == (
                "payload_too_large"
            )
        token = await k.key(max_streams=1)
        async with k.socket(token), k.socket(token) as second:
            assert (await second.hear())["problem"]["code"] == "rate_limited"
            assert await second.closed() == 4429
        async with k.socket(await k.key(requests_per_min=3)) as socket:  # one was the handshake
            await socket.submit(subscribe=False)
            await socket.submit(subscribe=False)
            answer = await socket.ask("submit", job={"task": "free"})
            assert answer["problem"]["code"] == "rate_limited"
            assert answer["retry_after"] > 0
            assert await socket.hears_nothing()


async def test_a_revoked_key_ends_its_sockets() -> None:
    """With 4401, within a moment; those of others go on."""
    async with keys() as k:
        token, other = await k.key(), await k.key()
        async with k.socket(token) as socket, k.socket(other) as stays:
            await socket.submit()
            key_id = token.split("_")[1]
            page = await k.ring.revoke(key_id)
            assert page is not None
            assert await socket.closed() == 4401
            assert await stays.hears_nothing()
        await until(lambda: k.theatre.gateway.waiting == 0)
