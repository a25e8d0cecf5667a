"""The JSON shapes of keys and of tenants' limits, and the face that they have on an engine and behind a gateway."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Protocol

import msgspec

from ropeway.client.signing import SecretBody
from ropeway.client.wire import PriorityName
from ropeway.domain.caller import Limits, Scope
from ropeway.domain.instants import timestamp
from ropeway.domain.keys import MASK, KeyRecord
from ropeway.engines.secrets import OVERLAP_S

__all__ = [
    "KeyAdmin",
    "KeyBody",
    "KeyLimits",
    "KeyList",
    "KeyRequest",
    "NewKeyBody",
    "PassBody",
    "PassRequest",
    "RotateRequest",
    "TenantBody",
    "TenantList",
    "key_body",
    "new_key_body",
]

DEFAULT_PASS_TTL_S = 600.0

_Count = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class KeyLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a key, or a tenant with all its keys, may take at most; what is left out has no limit of its own.

    Attributes:
        requests_per_min: a burst of one minute's worth is let through. Each line of an NDJSON submit counts.
        tokens_per_min: that its jobs take: estimated at submit, put right by their usage. Those above it wait.
        max_queued: the tenant's jobs that may wait in one queue. max_running: that run at once; the others wait.
        max_streams: open streams, sockets and long-polls, at each gateway.
        max_body_bytes: of one request.
        tasks: those that may be submitted. max_priority: the highest that a job may have.
    """

    requests_per_min: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None
    tokens_per_min: Annotated[float, msgspec.Meta(gt=0, le=1e12)] | None = None
    max_queued: _Count | None = None
    max_running: _Count | None = None
    max_streams: _Count | None = None
    max_body_bytes: _Count | None = None
    tasks: tuple[str, ...] | None = None
    max_priority: PriorityName | None = None

    def limits(self) -> Limits:
        """As the domain has them."""
        return Limits(**msgspec.structs.asdict(self))

    @classmethod
    def of(cls, limits: Limits) -> KeyLimits:
        """As the world sees them."""
        return msgspec.convert(limits, cls, from_attributes=True)


class KeyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key to be made. `tenant`: None for the caller's own. `ttl`: seconds until it expires; None: never."""

    name: str
    tenant: str | None = None
    scopes: tuple[Scope, ...] | None = None
    limits: KeyLimits = KeyLimits()
    ttl: float | None = None


class KeyBody(msgspec.Struct, frozen=True):
    """A key, without what opens anything. `last_used_at` is true to a minute."""

    id: str
    name: str
    tenant: str
    state: Literal["live", "expired", "revoked"]
    scopes: tuple[Scope, ...]
    limits: KeyLimits
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None
    last_used_at: str | None = None


class NewKeyBody(KeyBody, frozen=True):
    """A key just made: `key` is shown here, and never again."""

    key: str = ""

    def __repr__(self) -> str:
        return f"NewKeyBody(id={self.id!r}, name={self.name!r}, key='{MASK}')"


class KeyList(msgspec.Struct, frozen=True):
    data: list[KeyBody]
    has_more: bool = False
    next_cursor: str | None = None


class RotateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how many seconds the old key is to go on beside the new one."""

    overlap: float = 0.0


class TenantBody(msgspec.Struct, frozen=True):
    """What a tenant's keys may take together."""

    name: str
    limits: KeyLimits = KeyLimits()


class TenantList(msgspec.Struct, frozen=True):
    data: list[TenantBody]


class PassRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token for a page: for how many seconds (3600 at the most), and whether it may cancel the job too."""

    ttl: Annotated[float, msgspec.Meta(ge=1, le=3600)] = DEFAULT_PASS_TTL_S
    cancel: bool = False


class PassBody(msgspec.Struct, frozen=True):
    """A token for a page. `events` is where an EventSource follows the job with it."""

    token: str
    job_id: str
    scopes: tuple[Scope, ...]
    expires_at: str
    events: str

    def __repr__(self) -> str:
        return f"PassBody(job_id={self.job_id!r}, token='{MASK}')"


class KeyAdmin(Protocol):
    """Keys, tenants' limits and secrets, for who may change them: by an engine, or by a key of scope `admin`."""

    async def create(
        self,
        name: str,
        *,
        tenant: str | None = None,
        scopes: Iterable[Scope | str] | None = None,
        limits: KeyLimits | None = None,
        ttl: float | None = None,
    ) -> NewKeyBody:
        """Make a key. Its `key` is told only here. `ttl`: seconds until it expires. Raises InvalidRequest."""
        ...

    async def find(self, tenant: str | None = None) -> list[KeyBody]:
        """All keys, or a tenant's; those that open nothing any more too."""
        ...

    async def revoke(self, key_id: str) -> KeyBody:
        """End a key: within a second it opens nothing anywhere, and its streams are closed. Raises KeyNotFound."""
        ...

    async def rotate(self, key_id: str, overlap: float = 0.0) -> NewKeyBody:
        """A new key like this one, which goes on for `overlap` seconds. Raises KeyNotFound, InvalidRequest."""
        ...

    async def tenants(self) -> list[TenantBody]:
        """The tenants that have limits."""
        ...

    async def set_limits(self, tenant: str, limits: KeyLimits) -> TenantBody:
        """Say what a tenant's keys may take together, in place of what was said before."""
        ...

    async def webhook_secrets(self, tenant: str) -> list[SecretBody]:
        """Those that a tenant's webhooks are signed with, the newest first; one is made if there is none."""
        ...

    async def rotate_webhook_secret(self, tenant: str, overlap: float = OVERLAP_S) -> SecretBody:
        """A new secret; the ones before sign beside it for `overlap` seconds, so that receivers can change over."""
        ...


def key_body(key: KeyRecord, now_ms: int) -> KeyBody:
    """The public form of a key."""
    return KeyBody(**_fields(key, now_ms))


def new_key_body(key: KeyRecord, token: str, now_ms: int) -> NewKeyBody:
    """The same with the key itself."""
    return NewKeyBody(**_fields(key, now_ms), key=token)


def _fields(key: KeyRecord, now_ms: int) -> dict[str, Any]:
    state = "live" if key.is_live(now_ms) else "expired" if key.revoked_at_ms is None else "revoked"
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "state": state,
        "scopes": tuple(sorted(key.scopes)),
        "limits": KeyLimits.of(key.limits),
        "created_at": timestamp(key.created_at_ms),
        "expires_at": _maybe(key.expires_at_ms),
        "revoked_at": _maybe(key.revoked_at_ms),
        "last_used_at": _maybe(key.last_used_at_ms),
    }


def _maybe(at_ms: int | None) -> str | None:
    return None if at_ms is None else timestamp(at_ms)
