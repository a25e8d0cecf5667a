"""Ids on the OpenAI routes: a job's own suffix behind another prefix, so that either id gives the other."""

from __future__ import annotations

import re

from ropeway.domain.errors import JobNotFound
from ropeway.domain.job import Job

__all__ = ["CHAT", "RESPONSE", "alias", "job_id_of", "seconds"]

CHAT, RESPONSE = "chatcmpl_", "resp_"

_JOB = "job_"
_SUFFIX = re.compile(r"[A-Za-z0-9]{1,60}")


def alias(prefix: str, job_id: str) -> str:
    """The id of what this job is on the OpenAI routes."""
    return prefix + job_id.removeprefix(_JOB)


def job_id_of(prefix: str, id_: str) -> str:
    """The job behind such an id. What cannot be one is JobNotFound, like one that is not there."""
    suffix = id_.removeprefix(prefix)
    if suffix == id_ or not _SUFFIX.fullmatch(suffix):
        raise JobNotFound("no such response")
    return _JOB + suffix


def seconds(job: Job) -> int:
    """When the job came, as OpenAI's `created`: seconds since the epoch."""
    return job.created_at_ms // 1000
