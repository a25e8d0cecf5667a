"""Idempotency keys in a cluster, where a key and its job may live in different partitions (see lua/claim.lua)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from ropeway.domain.cache import home_of
from ropeway.domain.errors import IdempotencyKeyReused
from ropeway.domain.ids import RandomBytes
from ropeway.domain.job import CLAIM_MS, NewJob, Receipt
from ropeway.engines.base import Refusal
from ropeway.engines.redis.lane import MAX_ITEMS
from ropeway.engines.redis.moving import load
from ropeway.engines.redis.partition import Partition
from ropeway.engines.redis.reading import get

__all__ = ["free_claims", "submit_under_claim"]


async def submit_under_claim(
    new: NewJob,
    keys: Partition,
    home: Callable[[str], Partition],
    submit: Callable[[NewJob], Awaitable[Receipt | Refusal]],
    random: RandomBytes,
) -> Receipt | Refusal:
    """Submit one job whose key is claimed in the partition `keys`; `home` tells where a job of some id lives."""
    known = (await get(home(new.id), new.tenant, [new.id]))[0]
    if known is not None:
        return await submit(msgspec.structs.replace(new, idempotency_key=None))
    name, word = f"{new.tenant} {new.idempotency_key}", random(8).hex()
    job_id, *made = (await keys.call("claim", "take", name, word, new.id, new.fingerprint, CLAIM_MS)).values
    if job_id == "reused":
        return IdempotencyKeyReused()
    if made[0] and (await get(home(job_id), new.tenant, [job_id]))[0] is None:
        return IdempotencyKeyReused("the job that this idempotency key made is gone")
    cache = new.cache if home_of(job_id) == home_of(new.id) else None  # its claim lies where its jobs do
    answer = await submit(msgspec.structs.replace(new, id=job_id, idempotency_key=None, cache=cache))
    if isinstance(answer, Receipt):
        await keys.call("claim", "confirm", name, word, answer.job.id)
    else:
        await keys.call("claim", "withdraw", name, word)
    if isinstance(answer, Receipt) and job_id != new.id:
        return msgspec.structs.replace(answer, replayed=True, cached=False)
    return answer


async def free_claims(keys: Partition, home: Callable[[str], Partition], limit: int) -> None:
    """Free the keys claimed in this partition whose time is over, and whose jobs are gone from where they lived."""
    found = (await keys.call("claim", "expired", min(limit, MAX_ITEMS))).values
    for name, job_id in zip(found[::2], found[1::2], strict=True):
        (job,) = await load(home(job_id), [job_id], inputs=False)
        await keys.call("claim", "forget" if job is None else "keep", name)
