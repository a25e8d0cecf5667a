"""What the routes of a gateway share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from ropeway.blobs import Files
from ropeway.client.wire import JobBody, job_body
from ropeway.domain.clock import Clock
from ropeway.domain.errors import JobNotFound, JobPurged, RopewayError
from ropeway.domain.file import OUTPUT_PURPOSE, FileNotFound, FilesNotKept, referred_output
from ropeway.domain.ids import SEED_BYTES, RandomBytes, job_id
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Engine
from ropeway.serving.catalogue import Catalogue
from ropeway.serving.deadlines import Deadlines
from ropeway.serving.door import Door
from ropeway.serving.options import GatewayOptions
from ropeway.serving.rates import Rates
from ropeway.serving.replies import Headers, Reply, json_reply
from ropeway.serving.rounds import Rounds
from ropeway.serving.watches import Watches

__all__ = ["Parts"]

OUTPUT_LIMIT_BYTES = 64 << 20  # of an output that is taken into memory as a whole


@dataclass(frozen=True, slots=True)
class Parts:
    """One gateway's engine, limits and helpers.

    `noticed` is told of what went wrong with the engine where that is not raised. `files`: None without a store.
    """

    engine: Engine
    options: GatewayOptions
    catalogue: Catalogue
    rates: Rates
    watches: Watches
    rounds: Rounds
    deadlines: Deadlines
    clock: Clock
    random: RandomBytes
    noticed: Callable[[RopewayError], None]
    door: Door
    files: Files | None = None

    @property
    def kept_files(self) -> Files:
        """The files of this gateway. Raises FilesNotKept where there is no store for them."""
        if self.files is None:
            raise FilesNotKept
        return self.files

    def new_id(self) -> str:
        return job_id(self.clock.now_ms(), self.random(SEED_BYTES))

    async def job(self, tenant: str, id_: str) -> Job:
        """The tenant's job. Raises JobNotFound, the same for what is not there and what is another's."""
        (job,) = await self.engine.get(tenant, [id_])
        if job is None:
            raise JobNotFound(f"no job {id_}")
        return job

    async def filled(self, job: Job) -> Job:
        """The job with its output, also where that was too large for its row. Raises as `output` does."""
        output = job.output if job.output is None else await self.output(job)
        return job if output == job.output else msgspec.structs.replace(job, output=output)

    async def output(self, job: Job) -> str:
        """A job's output as JSON text, from its file where it was too large for the job's row.

        Raises JobPurged when that file was deleted, PayloadTooLarge above 64 MiB.
        """
        output = job.output or "null"
        named = referred_output(output)
        if named is None or self.files is None:
            return output
        try:
            (file,) = await self.files.get_all(job.tenant, [named], held=True)
        except FileNotFound:
            raise JobPurged(f"the output of {job.id} was deleted") from None
        if file.purpose != OUTPUT_PURPOSE:  # a file that the task gave, and no output of its own
            return output
        return (await self.files.read_all(file, OUTPUT_LIMIT_BYTES)).decode()

    def submitted(self, job: Job, base: str, ahead: int | None, *, cached: bool = False) -> JobBody:
        """The job as a submit is answered: without the input, which its sender has."""
        waits = job.state is State.queued
        return job_body(
            job,
            position=ahead if waits else None,
            eta_s=self.rates.wait_s(job.queue, ahead + 1) if waits and ahead is not None else None,
            durability=self.engine.info.durability,
            base=base,
            with_input=False,
            cached=cached,
        )

    async def shown(self, job: Job, base: str) -> JobBody:
        """The job in full, with its place in line."""
        position = await self.engine.position(job.tenant, job.id) if job.state is State.queued else None
        return job_body(
            job,
            position=position,
            eta_s=None if position is None or job.parked else self.rates.wait_s(job.queue, position + 1),
            durability=self.engine.info.durability,
            base=base,
        )

    @staticmethod
    def job_reply(body: JobBody, status: int, headers: Headers = ()) -> Reply:
        """A job with its version as ETag."""
        return json_reply(body, status, [(b"etag", b'"%d"' % body.version), *headers])
