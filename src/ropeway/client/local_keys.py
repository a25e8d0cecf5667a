"""Keys, tenants' limits and the secrets of webhooks, on an engine in this process. Each change is told to the log."""

from __future__ import annotations

from collections.abc import Iterable

from ropeway.client import audit
from ropeway.client.keyring import ANY_SCOPES, KeyRing
from ropeway.client.keys import KeyBody, KeyLimits, NewKeyBody, TenantBody, key_body, new_key_body
from ropeway.client.signing import SecretBody, checked_overlap_s, secret_body
from ropeway.domain.caller import Scope
from ropeway.domain.clock import Clock
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.ids import RandomBytes
from ropeway.domain.job import check_name
from ropeway.engines.records import Records
from ropeway.engines.secrets import OVERLAP_S, Secrets

__all__ = ["LocalKeys", "parsed_scopes"]


class LocalKeys:
    """`KeyAdmin` on an engine. `tenant` is whose a key is that is made for nobody in particular."""

    def __init__(self, engine: Records, tenant: str, clock: Clock, random: RandomBytes) -> None:
        self._ring = KeyRing(engine, clock, random)
        self._secrets = Secrets(engine, clock, random)
        self._tenant = tenant
        self._clock = clock

    async def create(
        self,
        name: str,
        *,
        tenant: str | None = None,
        scopes: Iterable[Scope | str] | None = None,
        limits: KeyLimits | None = None,
        ttl: float | None = None,
    ) -> NewKeyBody:
        key, token = await self._ring.create(
            name,
            tenant=tenant or self._tenant,
            scopes=ANY_SCOPES if scopes is None else frozenset(parsed_scopes(scopes)),
            limits=(limits or KeyLimits()).limits(),
            ttl_s=ttl,
        )
        audit.key_created(key, audit.operator())
        return new_key_body(key, token, self._clock.now_ms())

    async def find(self, tenant: str | None = None) -> list[KeyBody]:
        now = self._clock.now_ms()
        return [key_body(key, now) async for key in self._ring.all(tenant)]

    async def revoke(self, key_id: str) -> KeyBody:
        key = await self._ring.revoke(key_id)
        audit.key_revoked(key, audit.operator())
        return key_body(key, self._clock.now_ms())

    async def rotate(self, key_id: str, overlap: float = 0.0) -> NewKeyBody:
        key, token = await self._ring.rotate(key_id, overlap)
        audit.key_rotated(key, key_id, overlap, audit.operator())
        return new_key_body(key, token, self._clock.now_ms())

    async def tenants(self) -> list[TenantBody]:
        return [TenantBody(name, KeyLimits.of(limits)) async for name, limits in self._ring.tenants()]

    async def set_limits(self, tenant: str, limits: KeyLimits) -> TenantBody:
        await self._ring.set_limits(tenant, limits.limits())
        audit.limits_set(tenant, audit.operator())
        return TenantBody(tenant, limits)

    async def webhook_secrets(self, tenant: str) -> list[SecretBody]:
        found = await self._secrets.valid(check_name("tenant", tenant))
        audit.secrets_shown(tenant, audit.operator())
        return [secret_body(secret) for secret in found]

    async def rotate_webhook_secret(self, tenant: str, overlap: float = OVERLAP_S) -> SecretBody:
        made = await self._secrets.rotate(check_name("tenant", tenant), checked_overlap_s(overlap))
        audit.secret_rotated(tenant, overlap, audit.operator())
        return secret_body(made)


def parsed_scopes(scopes: Iterable[Scope | str]) -> tuple[Scope, ...]:
    """Raises InvalidRequest for what is no scope."""
    try:
        return tuple(Scope(scope) for scope in ([scopes] if isinstance(scopes, str) else scopes))
    except ValueError as error:
        raise InvalidRequest(f"{error}; scopes are {', '.join(Scope)}", param="scopes") from error
