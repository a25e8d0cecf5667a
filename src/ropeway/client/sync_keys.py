"""`KeyAdmin` for code without an event loop."""

from __future__ import annotations

from collections.abc import Iterable

from ropeway.client.keys import KeyAdmin, KeyBody, KeyLimits, NewKeyBody, TenantBody
from ropeway.client.signing import SecretBody
from ropeway.client.thread import LoopThread
from ropeway.domain.caller import Scope
from ropeway.engines.secrets import OVERLAP_S

__all__ = ["SyncKeys"]


class SyncKeys:
    """A `KeyAdmin` whose methods block."""

    def __init__(self, thread: LoopThread, keys: KeyAdmin) -> None:
        self._thread = thread
        self._keys = keys

    def create(
        self,
        name: str,
        *,
        tenant: str | None = None,
        scopes: Iterable[Scope | str] | None = None,
        limits: KeyLimits | None = None,
        ttl: float | None = None,
    ) -> NewKeyBody:
        """As `KeyAdmin.create`."""
        return self._thread.run(self._keys.create(name, tenant=tenant, scopes=scopes, limits=limits, ttl=ttl))

    def find(self, tenant: str | None = None) -> list[KeyBody]:
        """As `KeyAdmin.find`."""
        return self._thread.run(self._keys.find(tenant))

    def revoke(self, key_id: str) -> KeyBody:
        """As `KeyAdmin.revoke`."""
        return self._thread.run(self._keys.revoke(key_id))

    def rotate(self, key_id: str, overlap: float = 0.0) -> NewKeyBody:
        """As `KeyAdmin.rotate`."""
        return self._thread.run(self._keys.rotate(key_id, overlap))

    def tenants(self) -> list[TenantBody]:
        """As `KeyAdmin.tenants`."""
        return self._thread.run(self._keys.tenants())

    def set_limits(self, tenant: str, limits: KeyLimits) -> TenantBody:
        """As `KeyAdmin.set_limits`."""
        return self._thread.run(self._keys.set_limits(tenant, limits))

    def webhook_secrets(self, tenant: str) -> list[SecretBody]:
        """As `KeyAdmin.webhook_secrets`."""
        return self._thread.run(self._keys.webhook_secrets(tenant))

    def rotate_webhook_secret(self, tenant: str, overlap: float = OVERLAP_S) -> SecretBody:
        """As `KeyAdmin.rotate_webhook_secret`."""
        return self._thread.run(self._keys.rotate_webhook_secret(tenant, overlap))
