"""Schedules on an engine in this process."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ropeway.blobs import Files
from ropeway.blobs.inputs import check_input, hold_input, may_have_files
from ropeway.client.catalogue import Catalogue
from ropeway.client.schedulebook import ScheduleBook
from ropeway.client.schedules import ScheduleBody, ScheduleRequest, rules_of
from ropeway.client.submission import new_job
from ropeway.domain.errors import RopewayError
from ropeway.domain.ids import RandomBytes
from ropeway.domain.schedule import changes_of
from ropeway.domain.worker import TaskCard
from ropeway.engines.base import Engine

__all__ = ["LocalSchedules"]


class LocalSchedules:
    """`ScheduleDesk` on an engine, for one tenant."""

    def __init__(
        self,
        engine: Engine,
        tenant: str,
        catalogue: Catalogue,
        files: Files | None,
        random: RandomBytes,
        new_id: Callable[[], str],
    ) -> None:
        self._engine = engine
        self._tenant = tenant
        self._catalogue = catalogue
        self._files = files
        self._new_id = new_id
        self._book = ScheduleBook(engine, random)

    async def set(self, name: str, request: ScheduleRequest, card: TaskCard | None) -> ScheduleBody:
        rules = rules_of(request)
        card = card or await self._checked_card(request)
        job = new_job(card, request.job, id=name, tenant=self._tenant)
        if may_have_files(job.input):
            await check_input(self._files, self._tenant, job.input)
        plan = changes_of(card, job, says_cost=request.job.cost is not None)
        body, _ = await self._book.set(self._tenant, name, rules, plan, request.paused)
        return _plain(body)

    async def get(self, name: str) -> ScheduleBody:
        return _plain(await self._book.get(self._tenant, name))

    async def find(self) -> list[ScheduleBody]:
        return [_plain(body) for body in await self._book.of(self._tenant)]

    async def pause(self, name: str, paused: bool) -> ScheduleBody:
        return _plain(await self._book.pause(self._tenant, name, paused))

    async def run(self, name: str) -> str:
        job = await self._book.job(self._tenant, name, self._new_id())
        if may_have_files(job.input):
            await hold_input(self._files, self._tenant, job.id, job.input)
        (answer,) = await self._engine.submit([job])
        if isinstance(answer, RopewayError):
            raise answer
        return answer.job.id

    async def remove(self, name: str) -> None:
        await self._book.remove(self._tenant, name)

    async def _checked_card(self, request: ScheduleRequest) -> TaskCard:
        task = request.job.task
        await self._catalogue.prepare({task})
        card = self._catalogue.card(task)
        self._catalogue.check(task, bytes(request.job.input))
        return card


def _plain(body: ScheduleBody) -> ScheduleBody:
    """The body with its input as Python values, just as it comes over HTTP."""
    return msgspec.json.decode(msgspec.json.encode(body), type=ScheduleBody)
