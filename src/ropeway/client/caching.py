"""A submit's cache key: whether it has one, and what of it counts. Made where jobs are, before their files are held.

What must be done for a submit by itself keeps it out of the cache: a webhook, a delay, other jobs to wait for, a queue
other than its task's.
"""

from __future__ import annotations

import msgspec

from ropeway.blobs import Files
from ropeway.blobs.inputs import digests_of, may_have_files
from ropeway.client.wire import CacheRequest, JobRequest
from ropeway.domain.cache import Cache, content_key, keyed_id
from ropeway.domain.errors import InputInvalid, InvalidRequest
from ropeway.domain.flow import awaited_ids
from ropeway.domain.job import CacheKey, NewJob
from ropeway.domain.worker import TaskCard

__all__ = ["keyed"]

TTL_LIMIT_S = 366 * 86_400.0

_AS_DECLARED = CacheRequest()


async def keyed(job: NewJob, card: TaskCard, request: JobRequest, files: Files | None) -> NewJob:
    """The job under the key of its content, where its task or its submit wants that; else as it is.

    Raises InvalidRequest for a time to live out of its limits, InputInvalid as `digests_of`.
    """
    if card.cache is None and request.cache is None:
        return job
    asked = _asked(card, request)
    if asked is None or not _may_be_shared(job, card):
        return job
    cache = card.cache or Cache()
    ttl_s = cache.ttl_s if asked.ttl is None else asked.ttl
    digests = await digests_of(files, job.tenant, job.input) if may_have_files(job.input) else None
    try:
        key = content_key(job.task, cache, job.input, digests)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise InputInvalid(f"the input cannot be read: {error}") from error
    wish = CacheKey(key, round(ttl_s * 1000), asked.mode == "refresh")
    return msgspec.structs.replace(job, id=keyed_id(job.id, key), cache=wish)


def _asked(card: TaskCard, request: JobRequest) -> CacheRequest | None:
    """What is wanted of the cache; None: nothing."""
    said = request.cache
    if said is None or said is True:
        return _AS_DECLARED
    if said is False or said.mode == "off":
        return None
    if said.ttl is not None and not 0 < said.ttl <= TTL_LIMIT_S:
        raise InvalidRequest(
            f"cache.ttl must be above 0 and at most {TTL_LIMIT_S:.0f}, not {said.ttl:g}", param="cache"
        )
    return said


def _may_be_shared(job: NewJob, card: TaskCard) -> bool:
    options = job.options
    return (
        options.webhook is None
        and job.delay_ms == 0
        and job.queue == card.queue
        and not awaited_ids(options, job.input)  # what stands in its input is not known yet
    )
