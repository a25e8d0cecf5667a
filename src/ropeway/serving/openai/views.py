"""Views of a job that has ended, by the names that `as=` knows; and the headers that tell of it."""

from __future__ import annotations

from typing import Protocol

from ropeway.domain.errors import JobFailed
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.serving.openai.failures import failed, failure, failure_reply
from ropeway.serving.parts import Parts
from ropeway.serving.replies import Headers, Reply

__all__ = ["View", "answer_of", "timing_headers"]


class View(Protocol):
    """Something that a job that succeeded can be seen as. `name` stands in addresses."""

    name: str

    def body(self, job: Job) -> bytes:
        """Its JSON. Raises JobFailed for an output that cannot be seen so."""
        ...


async def answer_of(parts: Parts, view: View, job: Job, headers: Headers) -> Reply:
    """The answer to a call whose job has ended."""
    headers = [*headers, *timing_headers(job)]
    if job.state is not State.succeeded:
        return failure_reply(failure(job), headers)
    try:
        return Reply(200, view.body(await parts.filled(job)), headers=headers)
    except JobFailed as error:
        return failure_reply(failed(job.id, error.error), headers)


def timing_headers(job: Job) -> list[tuple[bytes, bytes]]:
    """How long the job waited and ran, in milliseconds, as browsers show it (`Server-Timing`)."""
    started, finished = job.started_at_ms, job.finished_at_ms
    if started is None:
        return []
    timings = f"queue;dur={started - job.created_at_ms}"
    if finished is not None:
        timings += f", run;dur={finished - started}"
    return [(b"server-timing", timings.encode())]
