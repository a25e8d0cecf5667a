"""What the routes of a gateway share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ropeway.client.wire import JobBody, job_body
from ropeway.domain.clock import Clock
from ropeway.domain.errors import JobNotFound, RopewayError
from ropeway.domain.ids import SEED_BYTES, RandomBytes, job_id
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Engine
from ropeway.serving.catalogue import Catalogue
from ropeway.serving.deadlines import Deadlines
from ropeway.serving.options import GatewayOptions
from ropeway.serving.rates import Rates
from ropeway.serving.replies import Headers, Reply, json_reply
from ropeway.serving.watches import Watches

__all__ = ["Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """One gateway's engine, limits and helpers.

    `noticed` is told of what went wrong with the engine where that is not raised.
    """

    engine: Engine
    options: GatewayOptions
    catalogue: Catalogue
    rates: Rates
    watches: Watches
    deadlines: Deadlines
    clock: Clock
    random: RandomBytes
    noticed: Callable[[RopewayError], None]

    def new_id(self) -> str:
        return job_id(self.clock.now_ms(), self.random(SEED_BYTES))

    async def job(self, tenant: str, id_: str) -> Job:
        """The tenant's job. Raises JobNotFound, the same for what is not there and what is another's."""
        (job,) = await self.engine.get(tenant, [id_])
        if job is None:
            raise JobNotFound(f"no job {id_}")
        return job

    def submitted(self, job: Job, base: str, ahead: int | None) -> JobBody:
        """The job as a submit is answered: without the input, which its sender has."""
        waits = job.state is State.queued
        return job_body(
            job,
            position=ahead if waits else None,
            eta_s=self.rates.wait_s(job.queue, ahead + 1) if waits and ahead is not None else None,
            durability=self.engine.info.durability,
            base=base,
            with_input=False,
        )

    async def shown(self, job: Job, base: str) -> JobBody:
        """The job in full, with its place in line."""
        position = await self.engine.position(job.tenant, job.id) if job.state is State.queued else None
        return job_body(
            job,
            position=position,
            eta_s=None if position is None else self.rates.wait_s(job.queue, position + 1),
            durability=self.engine.info.durability,
            base=base,
        )

    @staticmethod
    def job_reply(body: JobBody, status: int, headers: Headers = ()) -> Reply:
        """A job with its version as ETag."""
        return json_reply(body, status, [(b"etag", b'"%d"' % body.version), *headers])
