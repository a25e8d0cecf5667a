"""Limits behind a gateway, for who has a key of scope `admin`."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from ropeway.client.http_keys import Caller, Decode
from ropeway.client.limits import LimitBody, LimitList, LimitRequest

__all__ = ["HttpLimits"]

_PATH = "/v1/limits"


class HttpLimits:
    """`LimitAdmin` over HTTP; it needs a key with the scope `admin`, and to look at them `metrics`."""

    def __init__(self, call: Caller, decode: Decode) -> None:
        self._call = call
        self._decode = decode

    async def find(self) -> list[LimitBody]:
        return self._decode(await self._call("GET", _PATH), LimitList).data

    async def set(
        self, key: str, *, max_running: int | None = None, per_s: float | None = None, burst: float | None = None
    ) -> LimitBody:
        body = msgspec.json.encode(LimitRequest(max_running, per_s, burst))
        headers = {"Content-Type": "application/json"}
        return self._decode(await self._call("PUT", _path(key), content=body, headers=headers), LimitBody)

    async def clear(self, key: str) -> LimitBody:
        return self._decode(await self._call("DELETE", _path(key)), LimitBody)


def _path(key: str) -> str:
    return f"{_PATH}/{quote(key, safe='')}"
