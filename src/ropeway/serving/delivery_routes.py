"""The routes of webhooks' deliveries, and of what tenants used."""

from __future__ import annotations

from ropeway.client.deliveries import DeliveryBody, DeliveryList
from ropeway.client.usage import UsageList
from ropeway.domain.caller import Scope
from ropeway.serving.route import JSON, Answer, Param, Route

__all__ = ["DELIVERY_ROUTES"]

_TEXT = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
_ID = Param("id", "path", _TEXT, "The job's id.")
_DELIVERY = Param("delivery", "path", _TEXT, "The delivery's id.")
_DAY = {"type": "string", "format": "date"}

DELIVERY_ROUTES = (
    Route(
        "GET",
        "/v1/jobs/{id}/deliveries",
        "list_deliveries",
        "jobs",
        "How the job's end was told to its webhook: each delivery with its attempts, what was answered, and when the "
        "next one is. They are kept longer than the job.",
        (Answer(200, "The deliveries, the oldest first.", ((JSON, DeliveryList),)),),
        (_ID,),
        errors=(404, 503),
        scope=Scope.read,
    ),
    Route(
        "POST",
        "/v1/jobs/{id}/deliveries/{delivery}/redeliver",
        "redeliver",
        "jobs",
        "Deliver again what a delivery that has ended held, under the same `webhook-id`.",
        (Answer(202, "The new delivery.", ((JSON, DeliveryBody),)),),
        (_ID, _DELIVERY),
        errors=(400, 404, 408, 409, 413, 415, 429, 503),
        scope=Scope.write,
    ),
    Route(
        "GET",
        "/v1/usage",
        "get_usage",
        "fleet",
        "What your tasks said that they used (`ctx.usage`), added up by day (UTC) and task. Kept for 400 days.",
        (Answer(200, "The days asked for.", ((JSON, UsageList),)),),
        (
            Param("since", "query", _DAY, "The first day, as 2026-01-31; 30 days back by default."),
            Param("until", "query", _DAY, "The last day; today by default."),
        ),
        errors=(400, 503),
        scope=Scope.read,
    ),
)
