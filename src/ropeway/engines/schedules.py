"""Schedules as records of an engine: one each, of kind `schedule`, its id `<tenant>/<name>`.

They have no tenant as records, so that one look finds all of them: the worker that fires them needs that, and in a
cluster they lie in one partition. Every change is a compare-and-set and a hint on the topic `schedules`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey
from ropeway.domain.schedule import MOST_SCHEDULES, Plan, Schedule, ScheduleNotFound, TooManySchedules
from ropeway.domain.worker import WorkerCard
from ropeway.engines.records import Records

__all__ = ["TOPIC", "Held", "Schedules", "Store", "declared_now"]

TOPIC = "schedules"
PAGE = 500

_KIND = "schedule"
_CLOCK = RecordKey("schedules", "", "clock")
_CLOCK_TTL_MS = 60_000
_REMOVED_TTL_MS = 86_400_000  # as long as an idempotency key is claimed: who was stopped for longer finds no record
_TRIES = 100  # so many others wrote in the meantime: not in this world

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Schedule).decode


class Store(Records, Protocol):
    """What this needs of an engine."""

    async def tell(self, *topics: str) -> None: ...


class Held(NamedTuple):
    """A schedule in a version of its record."""

    schedule: Schedule
    version: int


class Schedules:
    """The schedules of all tenants."""

    def __init__(self, engine: Store) -> None:
        self._engine = engine

    async def get(self, tenant: str, name: str) -> Held:
        """A schedule. Raises ScheduleNotFound."""
        (held,) = await self.fetch([f"{tenant}/{name}"])
        if held is None:
            raise ScheduleNotFound(f"no schedule {name}")
        return held

    async def fetch(self, ids: Sequence[str]) -> list[Held | None]:
        """Schedules by id; None for what is not there."""
        return [None if held is None or held.schedule.removed else held for held in await self._records(ids)]

    async def page(self, tenant: str, after: str, limit: int) -> tuple[list[Schedule], str | None]:
        """A tenant's schedules by name, those after this name; and what to go on after, None at the end."""
        records = await self._engine.scan(_KIND, "", f"{tenant}/{after}", limit)
        own = [_held(record).schedule for record in records if record.key.id.startswith(f"{tenant}/")]
        more = own[-1].name if len(own) == limit else None
        return [schedule for schedule in own if not schedule.removed], more

    async def of(self, tenant: str) -> list[Schedule]:
        """All of a tenant's."""
        found, after = await self.page(tenant, "", PAGE)
        while after is not None:
            more, after = await self.page(tenant, after, PAGE)
            found += more
        return found

    async def every(self) -> AsyncIterator[Held]:
        """All schedules of all tenants."""
        after = ""
        while True:
            records = await self._engine.scan(_KIND, "", after, PAGE)
            for held in map(_held, records):
                if not held.schedule.removed:
                    yield held
            if len(records) < PAGE:
                return
            after = records[-1].key.id

    async def make(self, schedule: Schedule) -> bool:
        """Keep a new one; False when there is one of this name already. Raises TooManySchedules."""
        (known,) = await self._records([schedule.id])
        if known is not None and not known.schedule.removed:
            return False
        if len(await self.of(schedule.tenant)) >= MOST_SCHEDULES:
            raise TooManySchedules(f"a tenant has {MOST_SCHEDULES:,} schedules at the most: remove one")
        (made,) = await self.store([Held(schedule, 0 if known is None else known.version)])
        if made:
            await self._engine.tell(TOPIC)
        return made

    async def change(self, tenant: str, name: str, changed: Callable[[Schedule], Schedule]) -> Schedule:
        """Write a change over whatever the schedule is by then. Raises ScheduleNotFound, and what `changed` does."""
        for _ in range(_TRIES):
            held = await self.get(tenant, name)
            after = changed(held.schedule)
            if after == held.schedule:
                return after
            if (await self.store([Held(after, held.version)]))[0]:
                await self._engine.tell(TOPIC)
                return after
        raise EngineUnavailable(f"schedule {name} is being changed by too many at once")

    async def remove(self, tenant: str, name: str, checked: Callable[[Schedule], None]) -> None:
        """Forget a schedule; its jobs stay. Raises ScheduleNotFound, and what `checked` does."""

        def removed(schedule: Schedule) -> Schedule:
            checked(schedule)
            return msgspec.structs.replace(schedule, removed=True, next_at_ms=None, plan=Plan(schedule.plan.task))

        await self.change(tenant, name, removed)

    async def store(self, changed: Sequence[Held]) -> list[bool]:
        """Write schedules, each over the version that it was read in (0: none); whether it was. Tells nobody."""
        puts = [_put(held) for held in changed]
        return [not isinstance(answer, RecordConflict) for answer in await self._engine.put(puts)]

    async def now_ms(self) -> int:
        """The engine's clock, which is the one that counts: of it only a write tells."""
        (written,) = await self._engine.put([Put(_CLOCK, "0", ttl_ms=_CLOCK_TTL_MS)])
        assert isinstance(written, Record)
        assert written.expires_at_ms is not None
        return written.expires_at_ms - _CLOCK_TTL_MS

    async def _records(self, ids: Sequence[str]) -> list[Held | None]:
        records = await self._engine.fetch([_key(id_) for id_ in ids])
        return [None if record is None else _held(record) for record in records]


def declared_now(workers: Sequence[WorkerCard]) -> frozenset[str]:
    """The ids of the schedules that workers declare."""
    return frozenset(id_ for worker in workers for id_ in worker.schedules)


def _put(held: Held) -> Put:
    schedule = held.schedule
    ttl_ms = _REMOVED_TTL_MS if schedule.removed else None
    return Put(_key(schedule.id), _encode(schedule).decode(), held.version, ttl_ms)


def _key(id_: str) -> RecordKey:
    return RecordKey(_KIND, "", id_)


def _held(record: Record) -> Held:
    return Held(_decode(record.body), record.version)
