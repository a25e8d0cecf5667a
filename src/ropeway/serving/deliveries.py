"""Webhooks' deliveries over HTTP, and what tenants used."""

from __future__ import annotations

import re
from datetime import date

from starlette.requests import Request

from ropeway.client.deliveries import DeliveryList, deliveries_of, redelivered
from ropeway.client.usage import UsageList, checked_days, usage_body
from ropeway.domain.errors import Forbidden, InvalidRequest
from ropeway.domain.usage import day_of
from ropeway.serving.bodies import Nothing, read_json
from ropeway.serving.callers import caller_of, tenant_of
from ropeway.serving.parts import Parts
from ropeway.serving.problems import Draining
from ropeway.serving.questions import job_id_of
from ropeway.serving.replies import Reply, json_reply

__all__ = ["DeliveryRoutes"]

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class DeliveryRoutes:
    """One method for each route."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def list_deliveries(self, request: Request) -> Reply:
        _refuse_pages(request)
        found = await deliveries_of(self._parts.engine, tenant_of(request), job_id_of(request))
        return json_reply(DeliveryList(found))

    async def redeliver(self, request: Request) -> Reply:
        await read_json(request, self._parts, Nothing)
        _refuse_pages(request)
        if self._parts.watches.draining:
            raise Draining
        delivery = request.path_params["delivery"]
        body = await redelivered(self._parts.engine, tenant_of(request), job_id_of(request), delivery)
        return json_reply(body, 202)

    async def get_usage(self, request: Request) -> Reply:
        query = request.query_params
        today = day_of(self._parts.clock.now_ms())
        since, until = checked_days(_day("since", query.get("since")), _day("until", query.get("until")), today)
        rows = await self._parts.engine.usage(tenant_of(request), since, until)
        return json_reply(UsageList(since, until, [usage_body(row) for row in rows]))


def _refuse_pages(request: Request) -> None:
    """A webhook's URL may hold a secret: it is not for a page that has a token for the job alone."""
    if caller_of(request.scope).job_id is not None:
        raise Forbidden("a token shows no deliveries: that needs a key")


def _day(param: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        if not _DAY.fullmatch(text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"{param} is a day such as 2026-01-31, not {text[:40]!r}", param=param) from None
