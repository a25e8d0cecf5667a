"""Who goes on with batches: one gateway at a time, whichever; when it dies another takes over.

Nothing of a batch is in this process that is not in its record, so that needs no handing over. A gateway that has no
batch to go on with asks the engine for open ones now and then, and for nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import msgspec

from ropeway.domain.errors import JobNotFound, RopewayError
from ropeway.domain.file import FilesNotKept
from ropeway.domain.ids import SEED_BYTES
from ropeway.serving.openai.batch_record import BatchGone, BatchMoved, Fault, Shelf
from ropeway.serving.openai.batch_run import BatchRun
from ropeway.serving.parts import Parts

__all__ = ["BatchKeeper"]

DUTY = "batches"
AGAIN_S = 1.0  # after the engine, or the store of files, did not answer

_log = logging.getLogger("ropeway.serving")


class BatchKeeper:
    """Goes on with open batches while this gateway has that duty."""

    def __init__(self, parts: Parts, shelf: Shelf) -> None:
        self._parts = parts
        self._shelf = shelf
        self._holder = parts.random(SEED_BYTES).hex()
        self._news = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._leads = False
        self._runs: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Look for batches from now on; a second call does nothing."""
        if self._parts.files is not None and self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._keep_looking())

    def wake(self) -> None:
        """There is a new one."""
        self.start()
        self._news.set()

    async def close(self) -> None:
        """Leave them to others."""
        tasks = [*self._runs.values(), *([self._looking] if self._looking is not None else [])]
        self._looking = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._leads:
            with contextlib.suppress(RopewayError):
                await self._parts.engine.elect(DUTY, self._holder, 1)  # so that others need not wait for its end

    async def _keep_looking(self) -> None:
        every_s = self._parts.options.batch_lease_s / 4
        while True:
            self._news.clear()
            try:
                await self._look()
            except RopewayError as error:
                self._parts.noticed(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._news.wait()

    async def _look(self) -> None:
        found = await self._shelf.open()
        if not found:
            return
        ttl_ms = round(1000 * self._parts.options.batch_lease_s)
        self._leads = await self._parts.engine.elect(DUTY, self._holder, ttl_ms)
        if not self._leads:
            for run in self._runs.values():
                run.cancel()
            return
        for tenant, id_ in found:
            if id_ not in self._runs:
                run = self._runs[id_] = asyncio.get_running_loop().create_task(self._run(tenant, id_))
                run.add_done_callback(lambda _, id_=id_: self._runs.pop(id_, None))  # type: ignore[misc]

    async def _run(self, tenant: str, id_: str) -> None:
        """Go on with a batch until it has ended, or somebody else does."""
        while True:
            try:
                batch, version = await self._shelf.load(tenant, id_)
                if batch.is_open:
                    await BatchRun(self._parts, self._shelf, batch, version).go()
                else:
                    await self._shelf.close(id_)
                return
            except (BatchMoved, BatchGone):
                return
            except JobNotFound:  # its record is past its time
                await self._shelf.close(id_)
                return
            except FilesNotKept:
                return
            except RopewayError as error:
                self._parts.noticed(error)
                await asyncio.sleep(AGAIN_S)
            except Exception:
                _log.exception("%s cannot be gone on with", id_)
                await self._give_up(tenant, id_)
                return

    async def _give_up(self, tenant: str, id_: str) -> None:
        """It would go wrong again: say so, rather than try for ever."""
        batch, version = await self._shelf.load(tenant, id_)
        fault = Fault("internal_error", "the gateway failed; its log has the reason")
        failed = batch.at("failed", self._parts.clock.now_ms())
        await self._shelf.save(msgspec.structs.replace(failed, faults=(fault,)), version)
        await self._shelf.close(id_)
