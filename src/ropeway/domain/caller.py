"""Who asks: the tenant that owns what it makes, and what its key lets it do."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.rank import Priority

__all__ = ["EVERYTHING", "Caller", "Limits", "Scope"]


class Scope(StrEnum):
    """What a key may be allowed to do. `admin` is for keys, tenants and queues; it includes no other.

    `schedules` is apart from `write`: what it sets goes on when the key is revoked.
    """

    write = "jobs:write"
    read = "jobs:read"
    cancel = "jobs:cancel"
    files = "files"
    schedules = "schedules"
    admin = "admin"
    metrics = "metrics"


EVERYTHING = frozenset(Scope)


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a key, or a tenant with all its keys, may take. None: no limit of its own.

    Attributes:
        requests_per_min, tokens_per_min: rates; a burst of one minute's worth is let through.
        max_queued: the tenant's jobs that may wait in one queue; max_running: that may run at once.
        max_streams: open streams, sockets and long-polls, at each gateway.
        max_body_bytes: of one request, where the gateway's own limit is not lower.
        tasks: names of those that may be submitted. max_priority: `low`, `normal` or `high`.
    """

    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    max_queued: int | None = None
    max_running: int | None = None
    max_streams: int | None = None
    max_body_bytes: int | None = None
    tasks: tuple[str, ...] | None = None
    max_priority: str | None = None

    def within(self, wider: Limits) -> Limits:
        """The narrower of both. Rates are left as they are here: each is taken from a bucket of its own."""
        return Limits(
            requests_per_min=self.requests_per_min,
            tokens_per_min=self.tokens_per_min,
            max_queued=_least(self.max_queued, wider.max_queued),
            max_running=_least(self.max_running, wider.max_running),
            max_streams=_least(self.max_streams, wider.max_streams),
            max_body_bytes=_least(self.max_body_bytes, wider.max_body_bytes),
            tasks=_common(self.tasks, wider.tasks),
            max_priority=_lower(self.max_priority, wider.max_priority),
        )


def _least(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)


def _common(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if one is None or other is None:
        return one if other is None else other
    return tuple(name for name in one if name in other)


def _lower(one: str | None, other: str | None) -> str | None:
    return min((name for name in (one, other) if name is not None), key=lambda name: Priority[name], default=None)


class Caller(msgspec.Struct, frozen=True):
    """Who made a request.

    `limits` are the key's, within the tenant's; `tenant_limits` what all keys of the tenant share. `key_id`: None when
    no key is asked for. `job_id`: the one job of a browser's token. `expires_at_ms`: when the key or token is over.
    """

    tenant: str = DEFAULT_TENANT
    scopes: frozenset[Scope] = EVERYTHING
    limits: Limits = Limits()
    tenant_limits: Limits = Limits()
    key_id: str | None = None
    job_id: str | None = None
    expires_at_ms: int | None = None
