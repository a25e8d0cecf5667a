"""`/v1/batches`: many calls in a file, answered in a file."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import Request

from ropeway.domain.errors import InvalidRequest
from ropeway.serving.callers import caller_of, tenant_of
from ropeway.serving.openai.batch_keeper import BatchKeeper
from ropeway.serving.openai.batch_lines import ENDPOINTS
from ropeway.serving.openai.batch_record import Batch, Shelf, batch_body, batch_id
from ropeway.serving.openai.bodies import converted, read_call, read_object
from ropeway.serving.parts import Parts
from ropeway.serving.problems import Draining
from ropeway.serving.replies import Reply, json_reply

__all__ = ["BatchRoutes"]

LIST_DEFAULT, LIST_LIMIT = 20, 100
WINDOW_LIMIT_S = 7 * 86_400
EXPIRY_LIMIT_S = 366 * 86_400

_WINDOW = re.compile(r"(\d{1,6})([smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class _Expiry(msgspec.Struct, frozen=True):
    seconds: float | None = None


class _BatchBody(msgspec.Struct, frozen=True):
    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: dict[str, str] | None = None
    output_expires_after: _Expiry | None = None


class BatchRoutes:
    """Batches of one gateway; whichever gateway goes on with them."""

    def __init__(self, parts: Parts, shelf: Shelf, keeper: BatchKeeper) -> None:
        self._parts = parts
        self._shelf = shelf
        self._keeper = keeper

    async def create_batch(self, request: Request) -> Reply:
        if self._parts.watches.draining:
            raise Draining
        body = converted(read_object(await read_call(request, self._parts)), _BatchBody)
        if body.endpoint not in ENDPOINTS:
            raise InvalidRequest(
                f"endpoint is one of {', '.join(ENDPOINTS)}, not {body.endpoint[:80]!r}", param="endpoint"
            )
        await self._parts.kept_files.get(tenant_of(request), body.input_file_id)
        now_ms = self._parts.clock.now_ms()
        expiry = body.output_expires_after
        if expiry is not None and not (expiry.seconds is None or 1 <= expiry.seconds <= EXPIRY_LIMIT_S):
            raise InvalidRequest("output_expires_after.seconds is a number from 1 to a year's", "output_expires_after")
        batch = Batch(
            id=batch_id(self._parts),
            caller=msgspec.structs.replace(caller_of(request.scope), job_id=None),
            endpoint=body.endpoint,
            input_file=body.input_file_id,
            window=body.completion_window,
            created_at_ms=now_ms,
            expires_at_ms=now_ms + 1000 * _window_s(body.completion_window),
            metadata=body.metadata or {},
            output_ttl_s=None if expiry is None else expiry.seconds,
        )
        await self._shelf.add(batch)
        self._keeper.wake()
        return json_reply(batch_body(batch))

    async def list_batches(self, request: Request) -> Reply:
        query = request.query_params
        limit = _limit(query.get("limit"))
        found = await self._shelf.page(tenant_of(request), query.get("after"), limit + 1)
        data: list[dict[str, Any]] = [batch_body(batch) for batch in found[:limit]]
        return json_reply(
            {
                "object": "list",
                "data": data,
                "first_id": data[0]["id"] if data else None,
                "last_id": data[-1]["id"] if data else None,
                "has_more": len(found) > limit,
            }
        )

    async def get_batch(self, request: Request) -> Reply:
        batch, _ = await self._shelf.load(tenant_of(request), request.path_params["id"])
        return json_reply(batch_body(batch))

    async def cancel_batch(self, request: Request) -> Reply:
        """Ask it to end; harmless when repeated, or too late."""
        batch, version = await self._shelf.load(tenant_of(request), request.path_params["id"])
        while batch.status in ("validating", "in_progress"):
            asked = batch.at("cancelling", self._parts.clock.now_ms())
            answer = await self._shelf.save(asked, version)
            if isinstance(answer, int):
                batch = asked
            else:
                batch, version = answer
        self._keeper.wake()
        return json_reply(batch_body(batch))


def _window_s(text: str) -> int:
    found = _WINDOW.fullmatch(text)
    seconds = 0 if found is None else int(found[1]) * _UNITS_S[found[2]]
    if not 1 <= seconds <= WINDOW_LIMIT_S:
        raise InvalidRequest(f"completion_window is a time up to 7d, as 24h; not {text[:40]!r}", "completion_window")
    return seconds


def _limit(text: str | None) -> int:
    if text is None:
        return LIST_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= LIST_LIMIT):
        raise InvalidRequest(f"limit is a number from 1 to {LIST_LIMIT}", param="limit")
    return int(text)
