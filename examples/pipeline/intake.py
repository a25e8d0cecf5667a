"""From what a client asks to a stored request, one or many at a time.

A client's id is mapped to a job id that is made from it, so that nothing has to be looked up. The same id with the same
text is the same request, whenever it comes again; with another text it is refused. Ids that begin with `job_` are the
engine's own and cannot be chosen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from examples.pipeline.http import problem_of
from examples.pipeline.shapes import Accepted, ProcessLine, ProcessRequest
from examples.pipeline.tasks import tasks_by_mode
from examples.pipeline.views import REQUEST_ID
from ropeway import IdempotencyKeyReused, InvalidRequest, RopewayError
from ropeway.domain.clock import SystemClock
from ropeway.domain.ids import SEED_BYTES, job_id, system_random
from ropeway.domain.job import DEFAULT_TENANT, NewJob
from ropeway.engines.base import Engine

__all__ = ["Intake", "job_id_of"]

OWN_PREFIX = "job_"


class Intake:
    """Stores requests on an open engine, to be run in this mode."""

    def __init__(self, engine: Engine, mode: str) -> None:
        self._engine = engine
        self._task = tasks_by_mode[mode]
        self._clock = SystemClock()

    async def one(self, asked: ProcessRequest) -> Accepted:
        """Raises QueueFull, IdempotencyKeyReused, InvalidRequest, EngineUnavailable."""
        (answer,) = await self._store([asked])
        if isinstance(answer, RopewayError):
            raise answer
        return answer

    async def many(self, asked: Sequence[ProcessRequest | RopewayError]) -> list[ProcessLine]:
        """Each answered in its own place; one that could not be read is told so, and costs the others nothing."""
        answers = iter(await self._store([one for one in asked if isinstance(one, ProcessRequest)]))
        told = [next(answers) if isinstance(one, ProcessRequest) else one for one in asked]
        return [_line(answer) for answer in told]

    async def _store(self, asked: Sequence[ProcessRequest]) -> list[Accepted | RopewayError]:
        made = [self._new_job(one) for one in asked]
        jobs = [job for job in made if isinstance(job, NewJob)]
        receipts = iter(await self._engine.submit(jobs) if jobs else ())
        answers: list[Accepted | RopewayError] = []
        for one, job in zip(asked, made, strict=True):
            receipt = next(receipts) if isinstance(job, NewJob) else job
            if isinstance(receipt, RopewayError):
                answers.append(receipt)
            elif isinstance(job, NewJob) and receipt.replayed and receipt.job.input != job.input:
                answers.append(IdempotencyKeyReused(f"request {one.id!r} was submitted before, with another text"))
            else:
                answers.append(_accepted(one.id or receipt.job.id, receipt.job.id, receipt.job.state, receipt.replayed))
        return answers

    def _new_job(self, asked: ProcessRequest) -> NewJob | RopewayError:
        card = self._task.card
        if asked.id is None:
            id_, options = job_id(self._clock.now_ms(), system_random(SEED_BYTES)), card.options
        else:
            if asked.id.startswith(OWN_PREFIX):
                return InvalidRequest(f"ids that begin with {OWN_PREFIX!r} are given, not chosen", param="id")
            id_ = job_id_of(asked.id)
            options = msgspec.structs.replace(card.options, metadata={REQUEST_ID: asked.id})
        return NewJob(id_, DEFAULT_TENANT, card.queue, card.name, self._task.bind(text=asked.text), options=options)


def job_id_of(request_id: str) -> str:
    """The job of a request: its own id, or the one made from the id that its client chose."""
    if request_id.startswith(OWN_PREFIX):
        return request_id
    return OWN_PREFIX + hashlib.blake2b(request_id.encode(), digest_size=16, person=b"pipeline").hexdigest()


def _accepted(named: str, job: str, state: str, replayed: bool) -> Accepted:
    links = {"status": f"/status/{named}", "job": f"/v1/jobs/{job}", "events": f"/v1/jobs/{job}/events"}
    return Accepted(named, job, str(state), replayed, links)


def _line(answer: Accepted | RopewayError) -> ProcessLine:
    if isinstance(answer, RopewayError):
        problem = problem_of(answer)
        return ProcessLine(problem.status, problem=problem)
    return ProcessLine(202, answer)
