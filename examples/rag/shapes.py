"""What the routes take and give."""

from __future__ import annotations

from typing import Any

import msgspec

from examples.rag.prompt import Source
from examples.rag.settings import ANSWER, INGEST
from ropeway import Job

__all__ = ["Accepted", "ChatBody", "IngestBody", "JobStatus", "status_of"]


class ChatBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /chat`."""

    query: str


class IngestBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /ingest`: a folder below the documents' root; all of it when it is left out."""

    folder: str = "."


class Accepted(msgspec.Struct, frozen=True):
    """The answer to both: the job, where its state is asked for, and where it is followed live."""

    job_id: str
    status: str
    status_url: str
    events_url: str


class JobStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job as it stands.

    Attributes:
        status: as in Ropeway: `queued`, `scheduled` (it waits for the jobs that work for it, or to be tried again),
            `running`, `succeeded`, `failed`, `cancelled`.
        position: in line, from 1. progress: `fraction`, `step`, `message`.
        answer, sources, model: of a question that was answered.
        ingested: what became of a folder.
        error: why there is neither.
    """

    job_id: str
    status: str
    kind: str
    attempt: int
    created_at: str
    finished_at: str | None = None
    position: int | None = None
    progress: Any = None
    answer: str | None = None
    sources: tuple[Source, ...] = ()
    model: str | None = None
    ingested: Any = None
    error: dict[str, str] | None = None


def status_of(job: Job) -> JobStatus:
    """The job in this example's words."""
    output = job.output if isinstance(job.output, dict) else {}
    is_answer = job.task == ANSWER and bool(output)
    return JobStatus(
        job_id=job.id,
        status=str(job.state),
        kind=job.task,
        attempt=job.attempt,
        created_at=job.created_at,
        finished_at=job.finished_at,
        position=job.queue_position,
        progress=job.progress,
        answer=output.get("answer") if is_answer else None,
        sources=msgspec.convert(output.get("sources", ()), tuple[Source, ...]) if is_answer else (),
        model=output.get("model") if is_answer else None,
        ingested=output if job.task == INGEST and output else None,
        error=None if job.error is None else {"code": job.error.code, "message": job.error.message},
    )
