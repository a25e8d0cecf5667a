"""Clients that leave before their answer is there: a synchronous call is cancelled, unless somebody takes it up again.

Whoever takes a call up again (an SDK's retry, the next hop of a long call, a resumed stream) may come to another
gateway, so it says so in a record of the job's. The gateway that saw the client leave looks there when its grace is
over: a record that is not as it knew it is somebody else's to end.
"""

from __future__ import annotations

import asyncio
import logging

from ropeway.domain.errors import RopewayError
from ropeway.domain.job import Job
from ropeway.domain.record import Put, Record, RecordKey
from ropeway.serving.parts import Parts

__all__ = ["FIRST", "LEFT_REASON", "NEVER", "Departures"]

LEFT_REASON = "the client disconnected"
FIRST = 0
"""What the reader who submitted the job holds: nobody has taken it up yet."""
NEVER = -1
"""What one holds who shares another's job, and whose leaving is no cancel."""

_KIND = "reader"
_TTL_MS = 86_400_000

_log = logging.getLogger("ropeway.serving")


class Departures:
    """The synchronous calls whose clients have left this gateway."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._waiting: dict[asyncio.Task[None], tuple[Job, int]] = {}

    async def take_up(self, job: Job) -> int:
        """Note that somebody reads this job again; what its reader holds from now on."""
        if job.state.terminal or job.options.on_disconnect != "cancel":
            return FIRST
        (answer,) = await self._parts.engine.put([Put(_key(job), "{}", ttl_ms=_TTL_MS)])
        return answer.version if isinstance(answer, Record) else FIRST

    def left(self, job: Job, held: int) -> None:
        """The reader who holds this left before the end."""
        if job.options.on_disconnect != "cancel":
            return
        waiting = asyncio.get_running_loop().create_task(self._after_grace(job, held))
        self._waiting[waiting] = job, held
        waiting.add_done_callback(lambda task: self._waiting.pop(task, None))

    async def close(self) -> None:
        """Wait no longer for those who left: this gateway will not be here to see them come back."""
        left = list(self._waiting.items())
        for waiting, _ in left:
            waiting.cancel()
        for _, (job, held) in left:
            await self._end(job, held)

    async def _after_grace(self, job: Job, held: int) -> None:
        await asyncio.sleep(self._parts.options.departure_grace_s)
        await self._end(job, held)

    async def _end(self, job: Job, held: int) -> None:
        """Cancel the job, unless somebody has taken it up."""
        try:
            (record,) = await self._parts.engine.fetch([_key(job)])
            if (FIRST if record is None else record.version) == held:
                await self._parts.engine.cancel(job.tenant, [job.id], LEFT_REASON)
        except RopewayError as error:
            self._parts.noticed(error)
            _log.warning("the call %s was left by its client, and could not be cancelled: %s", job.id, error)


def _key(job: Job) -> RecordKey:
    return RecordKey(_KIND, job.tenant, job.id)
