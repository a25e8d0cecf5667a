"""`client.schedules`: jobs that are submitted again and again, as a program says them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Unpack

import msgspec

from ropeway.client.handle import JobHandle
from ropeway.client.schedules import ScheduleBody, ScheduleDesk, ScheduleRequest
from ropeway.client.submitter import Call, OptionChanges, TaskLike, call, template
from ropeway.client.transport import Transport
from ropeway.client.wire import JobRequest
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.schedule import ScheduleSettings, check_schedule_name

__all__ = ["ScheduleBox", "SetSettings"]


class SetSettings(ScheduleSettings, total=False):
    """What `schedules.set` takes, beside the times (see `ScheduleSettings`).

    input: the task's input by field, where a task or its name was given. options: as `with_options` takes them.
    paused: whether it fires; left out, it is as it was.
    """

    input: Mapping[str, Any]
    options: OptionChanges
    paused: bool


class ScheduleBox:
    """The caller's schedules, on an engine or behind a gateway. Raises ScheduleNotFound for one that is not there."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def set(
        self, name: str, what: Call[Any] | TaskLike[..., Any] | str, /, **settings: Unpack[SetSettings]
    ) -> ScheduleBody:
        """Make a schedule, or say anew what one is; what it has done so far stays.

            await client.schedules.set("report", "report", cron="30 6 * * 1-5", timezone="Europe/Berlin")
            await client.schedules.set("tidy", call(tidy, days=30), interval=3600, overlap="skip")

        Raises:
            InvalidRequest: the times or options are none. InputInvalid: the input does not fit the task.
            TaskNotFound: nobody announced it. ScheduleConflict: an application's code declares one of this name.
            TooManySchedules, PayloadTooLarge, Forbidden, EngineUnavailable.
        """
        check_schedule_name(name)
        one = what if isinstance(what, Call) else call(what, **settings.get("input", {}))
        return await self._desk.set(name, _request(one, settings), one.card)

    async def get(self, name: str) -> ScheduleBody:
        """A schedule, with its next times."""
        return await self._desk.get(check_schedule_name(name))

    async def find(self) -> list[ScheduleBody]:
        """All schedules, by name."""
        return await self._desk.find()

    async def pause(self, name: str) -> ScheduleBody:
        """Have it fire no more."""
        return await self._desk.pause(check_schedule_name(name), True)

    async def resume(self, name: str) -> ScheduleBody:
        """Have it fire again, from now on: what it was paused through is not caught up with."""
        return await self._desk.pause(check_schedule_name(name), False)

    async def run(self, name: str) -> JobHandle[Any]:
        """Submit its job now, whatever its times are, and whether it is paused."""
        return JobHandle(self._transport, await self._desk.run(check_schedule_name(name)))

    async def remove(self, name: str) -> None:
        """Forget a schedule; its jobs stay. Raises ScheduleConflict for one that a worker's code declares."""
        await self._desk.remove(check_schedule_name(name))

    @property
    def _desk(self) -> ScheduleDesk:
        return self._transport.schedules


def _request(one: Call[Any], settings: SetSettings) -> ScheduleRequest:
    options = settings.get("options", {})
    if "idempotency_key" in options:
        raise InvalidRequest("a schedule's jobs have keys of their own", param="idempotency_key")
    said = template(options) or JobRequest("")
    job = msgspec.structs.replace(said, task=one.task, input=one.input)
    times = {name: _plain(value) for name, value in settings.items() if name not in ("input", "options")}
    try:
        asked = msgspec.convert({**times, "job": {"task": one.task}}, ScheduleRequest)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error).replace("`$.", "`")) from error
    return msgspec.structs.replace(asked, job=job)


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value
