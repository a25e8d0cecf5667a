"""Keys, tenants' limits and secrets, and pages' tokens over HTTP. Each change is told in the log `ropeway.audit`."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request

from ropeway.client import audit
from ropeway.client.keyring import ANY_SCOPES
from ropeway.client.keys import (
    KeyLimits,
    KeyList,
    KeyRequest,
    PassBody,
    PassRequest,
    RotateRequest,
    TenantBody,
    TenantList,
    key_body,
    new_key_body,
)
from ropeway.client.signing import SecretList, SecretRotateRequest, secret_body
from ropeway.domain.caller import Scope
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.instants import timestamp
from ropeway.domain.job import check_name
from ropeway.domain.keys import KEY_ID, KeyRecord
from ropeway.engines.secrets import Secrets
from ropeway.serving.bodies import read_json
from ropeway.serving.callers import caller_of, who_asked
from ropeway.serving.door import require
from ropeway.serving.keys.routes import KEYS_DEFAULT, KEYS_LIMIT
from ropeway.serving.parts import Parts
from ropeway.serving.questions import base_of, job_id_of, limit_of
from ropeway.serving.replies import Reply, json_reply

__all__ = ["KeyRoutes"]


class KeyRoutes:
    """One method for each route."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._ring = parts.door.ring
        self._secrets = Secrets(parts.engine, parts.clock, parts.random)

    async def create_key(self, request: Request) -> Reply:
        caller = caller_of(request.scope)
        asked = await read_json(request, self._parts, KeyRequest)
        scopes = ANY_SCOPES if asked.scopes is None else frozenset(asked.scopes)
        if caller.key_id is None and Scope.admin not in scopes:
            raise InvalidRequest(
                "the first key is to have the scope admin: from then on each request needs a key, and without it "
                "nobody could make another",
                param="scopes",
            )
        key, token = await self._ring.create(
            asked.name,
            tenant=asked.tenant or caller.tenant,
            scopes=scopes,
            limits=asked.limits.limits(),
            ttl_s=asked.ttl,
        )
        self._parts.door.lock()
        audit.key_created(key, who_asked(request))
        return self._shown(request, key, token)

    async def list_keys(self, request: Request) -> Reply:
        limit = limit_of(request.query_params.get("limit"), KEYS_DEFAULT, KEYS_LIMIT)
        after = request.query_params.get("cursor")
        if after is not None and not KEY_ID.fullmatch(after):
            raise InvalidRequest(f"{after[:40]!r} is not a cursor", param="cursor")
        keys, more = await self._ring.page(after or "", limit)
        now = self._parts.clock.now_ms()
        return json_reply(KeyList([key_body(key, now) for key in keys], more is not None, more))

    async def get_key(self, request: Request) -> Reply:
        key = await self._ring.get(request.path_params["id"])
        return json_reply(key_body(key, self._parts.clock.now_ms()))

    async def revoke_key(self, request: Request) -> Reply:
        key = await self._ring.revoke(request.path_params["id"])
        audit.key_revoked(key, who_asked(request))
        return json_reply(key_body(key, self._parts.clock.now_ms()))

    async def rotate_key(self, request: Request) -> Reply:
        asked = await read_json(request, self._parts, RotateRequest)
        old = request.path_params["id"]
        key, token = await self._ring.rotate(old, asked.overlap)
        audit.key_rotated(key, old, asked.overlap, who_asked(request))
        return self._shown(request, key, token)

    # -- tenants

    async def list_tenants(self, request: Request) -> Reply:
        found = [TenantBody(name, KeyLimits.of(limits)) async for name, limits in self._ring.tenants()]
        return json_reply(TenantList(found))

    async def get_tenant(self, request: Request) -> Reply:
        name = request.path_params["name"]
        return json_reply(TenantBody(name, KeyLimits.of(await self._ring.limits(name))))

    async def set_tenant(self, request: Request) -> Reply:
        name = request.path_params["name"]
        limits = await read_json(request, self._parts, KeyLimits)
        await self._ring.set_limits(name, limits.limits())
        audit.limits_set(name, who_asked(request))
        return json_reply(TenantBody(name, limits))

    async def list_webhook_secrets(self, request: Request) -> Reply:
        name = check_name("tenant", request.path_params["name"])
        found = await self._secrets.valid(name)
        audit.secrets_shown(name, who_asked(request))
        return json_reply(SecretList([secret_body(secret) for secret in found]))

    async def rotate_webhook_secret(self, request: Request) -> Reply:
        asked = await read_json(request, self._parts, SecretRotateRequest)
        name = check_name("tenant", request.path_params["name"])
        made = await self._secrets.rotate(name, asked.overlap)
        audit.secret_rotated(name, asked.overlap, who_asked(request))
        return json_reply(secret_body(made), 201)

    # -- tokens

    async def create_token(self, request: Request) -> Reply:
        asked = await read_json(request, self._parts, PassRequest)
        caller = caller_of(request.scope)
        scopes = (Scope.read, Scope.cancel) if asked.cancel else (Scope.read,)
        for scope in scopes:
            require(caller, scope)
        job = await self._parts.job(caller.tenant, job_id_of(request))
        token = await self._parts.door.passes.make(job.id, caller.key_id, scopes, asked.ttl)
        expires_at = timestamp(self._parts.clock.now_ms() + round(asked.ttl * 1000))
        events = f"{base_of(request)}/v1/jobs/{job.id}/events?token={quote(token)}"
        return json_reply(PassBody(token, job.id, scopes, expires_at, events), 201)

    def _shown(self, request: Request, key: KeyRecord, token: str) -> Reply:
        where = f"{base_of(request)}/v1/keys/{key.id}".encode()
        return json_reply(new_key_body(key, token, self._parts.clock.now_ms()), 201, [(b"location", where)])
