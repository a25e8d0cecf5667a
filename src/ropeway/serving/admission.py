"""What a caller's limits make of what it asks for: its rates, the jobs that it may submit, the sizes of its bodies.

A rate is a bucket that all gateways share; it holds a minute's worth, so a burst of so much is let through. The headers
that tell of it are those of the IETF's draft "RateLimit header fields for HTTP" (draft-ietf-httpapi-ratelimit-headers):
`RateLimit-Policy: "key";q=60;w=60` and `RateLimit: "key";r=12;t=48`, t being the seconds until it is full again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from ropeway.domain.bucket import Allowance, Spend
from ropeway.domain.budget import Budget, limited
from ropeway.domain.caller import Caller
from ropeway.domain.errors import Forbidden, PriorityNotAllowed, RateLimited
from ropeway.domain.job import NewJob
from ropeway.domain.limit import Limit
from ropeway.domain.rank import Priority
from ropeway.engines.records import Records
from ropeway.serving.replies import Scope, told_along

__all__ = ["Admission", "admitted", "body_limit", "check_cancel", "check_job", "is_bounded", "limits_of"]

WINDOW_S = 60
SDK_PATHS = ("/v1/chat/", "/v1/embeddings", "/v1/responses", "/v1/models", "/v1/batches")


class Rate(NamedTuple):
    """So many requests a minute, of a key or of a tenant."""

    who: str
    bucket: str
    per_min: float


class Admission:
    """Takes what a request costs from the buckets of its caller; those without limits cost nothing."""

    def __init__(self, engine: Records) -> None:
        self._engine = engine

    async def take(self, scope: Scope, caller: Caller, requests: int = 1) -> None:
        """Take so many requests, and have the answer tell what is left. Raises RateLimited, EngineUnavailable."""
        rates = _rates_of(caller)
        if not rates or requests <= 0:
            return
        wishes = [Spend(rate.bucket, requests, rate.per_min / WINDOW_S, max(rate.per_min, 1.0)) for rate in rates]
        allowances = await self._engine.spend(wishes)
        told_along(scope, *_headers(rates, allowances))
        if any(path in scope["path"] for path in SDK_PATHS):
            told_along(scope, *_sdk_headers(rates, allowances))
        if not all(allowance.granted for allowance in allowances):
            raise _refusal(rates, allowances)


def admitted(caller: Caller, job: NewJob) -> NewJob:
    """The job as its caller may submit it. Raises Forbidden, PriorityNotAllowed."""
    check_job(caller, job.task, job.priority)
    most, own = caller.limits.max_queued, limits_of(caller)
    if own:
        names = {limit.key for limit in own}
        kept = tuple(limit for limit in job.options.limits if limit.key not in names)  # a retried job brings them
        options = msgspec.structs.replace(job.options, limits=kept)
        job = msgspec.structs.replace(job, options=limited(options, job.tenant, job.input, own))
    return job if most is None else msgspec.structs.replace(job, max_own=most)


def is_bounded(caller: Caller) -> bool:
    """Whether anything of what the caller submits is to be looked at."""
    limits = caller.limits
    asked = (limits.tasks, limits.max_priority, limits.max_queued)
    return any(limit is not None for limit in asked) or bool(limits_of(caller))


def limits_of(caller: Caller) -> list[Limit]:
    """What the jobs of this caller run under: its key's limits, and those of its tenant with all its keys."""
    found: list[Limit] = []
    shared = caller.tenant_limits.max_running
    for name, limits in ((f"tenant:{caller.tenant}", caller.tenant_limits), (f"key:{caller.key_id}", caller.limits)):
        is_own = limits is caller.tenant_limits or limits.max_running != shared  # the key's are within the tenant's
        if limits.max_running is not None and is_own:
            found.append(Limit(name, limits.max_running))
        found += Budget(name, tokens_per_min=limits.tokens_per_min).limits
    return found


def check_job(caller: Caller, task: str, priority: Priority) -> None:
    """Raises Forbidden for a task that the caller may not submit, PriorityNotAllowed for a priority above its own."""
    limits = caller.limits
    if limits.tasks is not None and task not in limits.tasks:
        raise Forbidden(f"this key may not submit task '{task}'")
    if limits.max_priority is not None and priority > Priority[limits.max_priority]:
        raise PriorityNotAllowed(f"this key submits at priority {limits.max_priority} at the most, not {priority.name}")


def check_cancel(caller: Caller, for_all: bool) -> None:
    """Raises Forbidden for a page's token that would end a job for those, too, who share it."""
    if for_all and caller.job_id is not None:
        raise Forbidden("a browser's token cancels for itself, not for those who share its job")


def body_limit(caller: Caller, limit_bytes: int) -> int:
    """The most that is read of this caller where the gateway would read so much."""
    most = caller.limits.max_body_bytes
    return limit_bytes if most is None else min(most, limit_bytes)


def _rates_of(caller: Caller) -> list[Rate]:
    rates = []
    if caller.limits.requests_per_min is not None and caller.key_id is not None:
        rates.append(Rate("key", f"{caller.tenant}/key:{caller.key_id}", caller.limits.requests_per_min))
    if caller.tenant_limits.requests_per_min is not None:
        rates.append(Rate("tenant", f"{caller.tenant}/requests", caller.tenant_limits.requests_per_min))
    return rates


def _headers(rates: list[Rate], allowances: list[Allowance]) -> list[tuple[bytes, bytes]]:
    policies = ", ".join(f'"{rate.who}";q={_quota(rate)};w={WINDOW_S}' for rate in rates)
    left = ", ".join(map(_left, rates, allowances))
    return [(b"ratelimit-policy", policies.encode()), (b"ratelimit", left.encode())]


def _left(rate: Rate, allowance: Allowance) -> str:
    full_in_s = (_quota(rate) - allowance.left) * WINDOW_S / rate.per_min
    return f'"{rate.who}";r={max(0, math.floor(allowance.left))};t={max(0, math.ceil(full_in_s))}'


def _sdk_headers(rates: list[Rate], allowances: list[Allowance]) -> list[tuple[bytes, bytes]]:
    """The same of the tighter rate, as OpenAI's API tells it."""
    rate, allowance = min(zip(rates, allowances, strict=True), key=lambda pair: pair[1].left)
    full_in_s = max(0, math.ceil((_quota(rate) - allowance.left) * WINDOW_S / rate.per_min))
    return [
        (b"x-ratelimit-limit-requests", b"%d" % _quota(rate)),
        (b"x-ratelimit-remaining-requests", b"%d" % max(0, math.floor(allowance.left))),
        (b"x-ratelimit-reset-requests", b"%ds" % full_in_s),
    ]


def _quota(rate: Rate) -> int:
    return max(1, math.floor(rate.per_min))


def _refusal(rates: list[Rate], allowances: list[Allowance]) -> RateLimited:
    wait_s, rate = max(zip((a.retry_after_s for a in allowances), rates, strict=True))
    refusal = RateLimited(f"this {rate.who} may make {rate.per_min:g} requests a minute, and has made them")
    refusal.retry_after_s = math.ceil(wait_s)
    return refusal
