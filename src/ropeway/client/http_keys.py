"""Keys and tenants' limits behind a gateway, for who has a key of scope `admin`."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from ropeway.client.keys import (
    KeyBody,
    KeyLimits,
    KeyList,
    KeyRequest,
    NewKeyBody,
    RotateRequest,
    TenantBody,
    TenantList,
)
from ropeway.client.local_keys import parsed_scopes
from ropeway.client.patience import NO_PERSISTENCE
from ropeway.client.signing import SecretBody, SecretList, SecretRotateRequest
from ropeway.domain.caller import Scope
from ropeway.engines.secrets import OVERLAP_S

__all__ = ["HttpKeys"]

T = TypeVar("T")


class Caller(Protocol):
    """How a request is made: `HttpTransport._call`."""

    def __call__(self, method: str, path: str, **arguments: Any) -> Awaitable[httpx.Response]: ...


class Decode(Protocol):
    """How an answer is read."""

    def __call__(self, response: httpx.Response, kind: type[T]) -> T: ...


class HttpKeys:
    """`KeyAdmin` over HTTP. What makes a key is sent once: a second key that nobody asked for would be no good."""

    def __init__(self, call: Caller, decode: Decode) -> None:
        self._call = call
        self._decode = decode

    async def create(
        self,
        name: str,
        *,
        tenant: str | None = None,
        scopes: Iterable[Scope | str] | None = None,
        limits: KeyLimits | None = None,
        ttl: float | None = None,
    ) -> NewKeyBody:
        wanted = None if scopes is None else parsed_scopes(scopes)
        asked = KeyRequest(name, tenant, wanted, limits or KeyLimits(), ttl)
        return self._decode(await self._send("POST", "/v1/keys", asked, policy=NO_PERSISTENCE), NewKeyBody)

    async def find(self, tenant: str | None = None) -> list[KeyBody]:
        keys: list[KeyBody] = []
        params: dict[str, str] = {"limit": "500"}
        while True:
            page = self._decode(await self._call("GET", "/v1/keys", params=params), KeyList)
            keys += [key for key in page.data if tenant in (None, key.tenant)]
            if page.next_cursor is None:
                return keys
            params["cursor"] = page.next_cursor

    async def revoke(self, key_id: str) -> KeyBody:
        return self._decode(await self._call("DELETE", f"/v1/keys/{quote(key_id, safe='')}"), KeyBody)

    async def rotate(self, key_id: str, overlap: float = 0.0) -> NewKeyBody:
        path = f"/v1/keys/{quote(key_id, safe='')}/rotate"
        return self._decode(await self._send("POST", path, RotateRequest(overlap), policy=NO_PERSISTENCE), NewKeyBody)

    async def tenants(self) -> list[TenantBody]:
        return self._decode(await self._call("GET", "/v1/tenants"), TenantList).data

    async def set_limits(self, tenant: str, limits: KeyLimits) -> TenantBody:
        return self._decode(await self._send("PUT", f"/v1/tenants/{quote(tenant, safe='')}", limits), TenantBody)

    async def webhook_secrets(self, tenant: str) -> list[SecretBody]:
        return self._decode(await self._call("GET", _secrets_of(tenant)), SecretList).data

    async def rotate_webhook_secret(self, tenant: str, overlap: float = OVERLAP_S) -> SecretBody:
        asked = SecretRotateRequest(overlap)
        path = f"{_secrets_of(tenant)}/rotate"
        return self._decode(await self._send("POST", path, asked, policy=NO_PERSISTENCE), SecretBody)

    async def _send(self, method: str, path: str, body: msgspec.Struct, **arguments: Any) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        return await self._call(method, path, content=msgspec.json.encode(body), headers=headers, **arguments)


def _secrets_of(tenant: str) -> str:
    return f"/v1/tenants/{quote(tenant, safe='')}/webhook-secrets"
