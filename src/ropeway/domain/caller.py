"""Who asks: the tenant that owns what it makes, and what its key lets it do."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ropeway.domain.job import DEFAULT_TENANT

__all__ = ["EVERYTHING", "Caller", "Limits", "Scope"]


class Scope(StrEnum):
    """What a key may be allowed to do. `admin` is for keys, tenants and queues; it includes no other."""

    write = "jobs:write"
    read = "jobs:read"
    cancel = "jobs:cancel"
    files = "files"
    admin = "admin"
    metrics = "metrics"


EVERYTHING = frozenset(Scope)


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a key, or a tenant, may take. None: no limit of its own.

    Attributes:
        requests_per_min, tokens_per_min: rates; a burst of one minute's worth is let through.
        max_queued: jobs that may wait in one queue; max_running: that may run at once.
        max_streams: open streams, sockets and long-polls.
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


class Caller(msgspec.Struct, frozen=True):
    """Who made a request. `key_id`: None when no key is asked for; `job_id`: the one job of a browser's token."""

    tenant: str = DEFAULT_TENANT
    scopes: frozenset[Scope] = EVERYTHING
    limits: Limits = Limits()
    key_id: str | None = None
    job_id: str | None = None
