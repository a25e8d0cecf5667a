"""The schedules of an engine, for who may change a tenant's: set, paused, resumed, run now, removed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ropeway.client.schedules import ScheduleBody, schedule_body
from ropeway.domain.errors import InvalidRequest, TaskNotFound
from ropeway.domain.firing import Rules, next_time, rescheduled
from ropeway.domain.ids import RandomBytes
from ropeway.domain.job import NewJob
from ropeway.domain.schedule import Plan, Schedule, ScheduleConflict, check_schedule_name, job_now
from ropeway.engines.base import Engine
from ropeway.engines.schedules import Schedules, declared_now

__all__ = ["ScheduleBook"]

UID_BYTES = 8


class ScheduleBook:
    """The schedules of one engine, which must be open. What it refuses is as `Schedules` refuses it."""

    def __init__(self, engine: Engine, random: RandomBytes) -> None:
        self._engine = engine
        self._random = random
        self._schedules = Schedules(engine)

    async def set(
        self, tenant: str, name: str, rules: Rules, plan: Plan, paused: bool | None
    ) -> tuple[ScheduleBody, bool]:
        """Make a schedule, or say anew what one is; and whether it was made. `paused`: None leaves that as it is.

        Raises ScheduleConflict for one that is declared in code, TooManySchedules, InvalidRequest, PayloadTooLarge.
        """
        now_ms = await self._schedules.now_ms()
        new = self._new(tenant, check_schedule_name(name), rules, plan, paused or False, now_ms)
        if new.next_at_ms is None:
            raise InvalidRequest("it would never fire: it has no time between now and its end", param="ends_at")
        made = await self._schedules.make(new)
        if not made:
            new = await self._schedules.change(tenant, name, lambda known: _over(known, new, paused, now_ms))
        return schedule_body(new, frozenset(), with_upcoming=True), made

    async def get(self, tenant: str, name: str) -> ScheduleBody:
        """A schedule, with its next times."""
        return await self._shown((await self._schedules.get(tenant, name)).schedule)

    async def page(self, tenant: str, after: str, limit: int) -> tuple[list[ScheduleBody], str | None]:
        """Schedules by name, after this one; and what to go on after, None at the end."""
        found, more = await self._schedules.page(tenant, after, limit)
        return await self._bodies(found), more

    async def of(self, tenant: str) -> list[ScheduleBody]:
        """All of a tenant's."""
        return await self._bodies(await self._schedules.of(tenant))

    async def pause(self, tenant: str, name: str, paused: bool) -> ScheduleBody:
        """Have it fire no more, or again: from now on, what it was paused through is not caught up with."""
        now_ms = await self._schedules.now_ms()

        def changed(known: Schedule) -> Schedule:
            return known if known.paused == paused else _paused(known, paused, now_ms)

        return await self._shown(await self._schedules.change(tenant, name, changed))

    async def remove(self, tenant: str, name: str) -> None:
        """Forget it. Raises ScheduleConflict for one that a worker declares."""
        declared = declared_now(await self._engine.workers())

        def checked(known: Schedule) -> None:
            if known.declared and known.id in declared:
                raise ScheduleConflict(
                    f"schedule '{name}' is declared in the code of a worker that is here: remove it there, or pause it"
                )

        await self._schedules.remove(tenant, name, checked)

    async def job(self, tenant: str, name: str, new_id: str) -> NewJob:
        """The job that it would make now. Raises TaskNotFound when its task is no more."""
        schedule = (await self._schedules.get(tenant, name)).schedule
        card = next((card for card in await self._engine.tasks() if card.name == schedule.plan.task), None)
        if card is None:
            raise TaskNotFound(f"no worker has announced task '{schedule.plan.task}'")
        return job_now(schedule, card, new_id, await self._schedules.now_ms())

    def _new(self, tenant: str, name: str, rules: Rules, plan: Plan, paused: bool, now_ms: int) -> Schedule:
        return Schedule(
            tenant=tenant,
            name=name,
            uid=self._random(UID_BYTES).hex(),
            timing=rules.timing,
            plan=plan,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
            catch_up=rules.catch_up,
            grace_ms=rules.grace_ms,
            overlap=rules.overlap,
            paused=paused,
            next_at_ms=next_time(rules.timing, now_ms, now_ms),
        )

    async def _shown(self, schedule: Schedule) -> ScheduleBody:
        return schedule_body(schedule, await self._declared([schedule]), with_upcoming=True)

    async def _bodies(self, schedules: Sequence[Schedule]) -> list[ScheduleBody]:
        declared = await self._declared(schedules)
        return [schedule_body(schedule, declared) for schedule in schedules]

    async def _declared(self, schedules: Sequence[Schedule]) -> frozenset[str]:
        """The ids of those that workers declare; asked only where that matters."""
        asks = any(schedule.declared for schedule in schedules)
        return declared_now(await self._engine.workers()) if asks else frozenset()


def _over(known: Schedule, new: Schedule, paused: bool | None, now_ms: int) -> Schedule:
    """A schedule as it is said anew; what it has done so far stays, and so does a time that is due."""
    if known.declared:
        raise ScheduleConflict(f"schedule '{known.name}' is declared in an application's code: change it there")
    changed = msgspec.structs.replace(
        known, plan=new.plan, catch_up=new.catch_up, grace_ms=new.grace_ms, overlap=new.overlap
    )
    if new.timing != known.timing:
        changed = rescheduled(changed, new.timing, now_ms)
    if paused not in (None, known.paused):
        changed = _paused(changed, paused is True, now_ms)
    return known if changed == known else msgspec.structs.replace(changed, updated_at_ms=now_ms, last_error=None)


def _paused(known: Schedule, paused: bool, now_ms: int) -> Schedule:
    changed = known if paused else rescheduled(known, known.timing, now_ms)
    return msgspec.structs.replace(changed, paused=paused, updated_at_ms=now_ms)
