"""Schedules behind a gateway. To change them needs a key with the scope `schedules`."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from ropeway.client.http_keys import Caller, Decode
from ropeway.client.schedules import ScheduleBody, ScheduleList, ScheduleRequest
from ropeway.client.transport import Ending
from ropeway.client.wire import request_json
from ropeway.domain.ids import RandomBytes
from ropeway.domain.worker import TaskCard

__all__ = ["HttpSchedules"]

KEY_BYTES = 16

_PATH = "/v1/schedules"


class HttpSchedules:
    """`ScheduleDesk` over HTTP."""

    def __init__(self, call: Caller, decode: Decode, random: RandomBytes) -> None:
        self._call = call
        self._decode = decode
        self._random = random

    async def set(self, name: str, request: ScheduleRequest, card: TaskCard | None) -> ScheduleBody:
        headers = {"Content-Type": "application/json"}
        content = _request_json(request)
        return self._decode(await self._call("PUT", _path(name), content=content, headers=headers), ScheduleBody)

    async def get(self, name: str) -> ScheduleBody:
        return self._decode(await self._call("GET", _path(name)), ScheduleBody)

    async def find(self) -> list[ScheduleBody]:
        found: list[ScheduleBody] = []
        params: dict[str, str] = {"limit": "500"}
        while True:
            page = self._decode(await self._call("GET", _PATH, params=params), ScheduleList)
            found += page.data
            if page.next_cursor is None:
                return found
            params["cursor"] = page.next_cursor

    async def pause(self, name: str, paused: bool) -> ScheduleBody:
        verb = "pause" if paused else "resume"
        return self._decode(await self._call("POST", _path(name, f"/{verb}")), ScheduleBody)

    async def run(self, name: str) -> str:
        headers = {"Idempotency-Key": self._random(KEY_BYTES).hex()}  # so that the call may be repeated
        return self._decode(await self._call("POST", _path(name, "/run"), headers=headers), Ending).id

    async def remove(self, name: str) -> None:
        await self._call("DELETE", _path(name))


def _path(name: str, rest: str = "") -> str:
    return f"{_PATH}/{quote(name, safe='')}{rest}"


def _request_json(request: ScheduleRequest) -> bytes:
    """The request with no more than it says, so that an older gateway understands what it can."""
    said: dict[str, Any] = {
        field.name: value
        for field in msgspec.structs.fields(request)
        if (value := getattr(request, field.name)) != field.default
    }
    return msgspec.json.encode({**said, "job": msgspec.Raw(request_json(request.job))})
