"""What the tests of keys share: a stage on which keys are asked for, and callers with keys of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from serving_support import QUICK, Stage, stage

from ropeway.client.keyring import KeyRing
from ropeway.client.keys import KeyLimits
from ropeway.domain.caller import Scope
from ropeway.serving import GatewayOptions
from ropeway.testing import ManualClock

__all__ = ["ALL", "Keyed", "bearer", "keyed", "problem"]

ALL = frozenset(Scope)


@dataclass
class Keyed:
    """A stage whose clock stands still, and its keys."""

    stage: Stage
    ring: KeyRing
    clock: ManualClock

    async def key(
        self,
        scopes: Iterable[Scope] = ALL,
        *,
        tenant: str = "acme",
        ttl_s: float | None = None,
        **limits: Any,
    ) -> str:
        """A new key."""
        _, token = await self.ring.create(
            "tester", tenant=tenant, scopes=frozenset(scopes), limits=KeyLimits(**limits).limits(), ttl_s=ttl_s
        )
        return token

    async def ask(self, method: str, path: str, token: str | None = None, **arguments: Any) -> httpx.Response:
        """One request, with this key."""
        headers = {**arguments.pop("headers", {}), **({} if token is None else bearer(token))}
        async with asyncio.timeout(20):  # a stream that should have been refused has no end
            return await self.stage.http.request(method, path, headers=headers, **arguments)

    async def submit(self, token: str, **fields: Any) -> str:
        """The id of a new job of this key's tenant."""
        answer = await self.ask("POST", "/v1/jobs", token, json={"task": "free", **fields})
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    def later(self, seconds: float = 1.0) -> None:
        """What the gateway remembers of keys is out of date."""
        self.clock.advance(s=seconds)


@asynccontextmanager
async def keyed(
    engine: str = "memory",
    folder: Path | None = None,
    options: GatewayOptions = QUICK,
    *,
    locked: bool = True,
    **more: Any,
) -> AsyncIterator[Keyed]:
    """A stage with keys; `locked`: there is one already, so that each request needs one."""
    clock = ManualClock()
    async with stage(engine, folder, options, clock=clock, **more) as s:
        k = Keyed(s, KeyRing(s.engine, clock), clock)
        if locked:
            await k.key()
        yield k


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def problem(answer: httpx.Response) -> tuple[int, str]:
    """The status and the code of a refusal."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]
