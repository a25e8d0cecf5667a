"""Webhooks: whom to tell when a job has ended, and the names under which that is done."""

from __future__ import annotations

from typing import Literal

import msgspec

from ropeway.domain.retry import Retry

__all__ = [
    "DELIVERY_QUEUE",
    "DELIVERY_RETRY",
    "DELIVERY_TASK",
    "WEBHOOK_EVENTS",
    "Webhook",
    "WebhookEvent",
    "delivery_id",
    "parent_id",
]

WebhookEvent = Literal["job.succeeded", "job.failed", "job.cancelled"]

WEBHOOK_EVENTS: tuple[WebhookEvent, ...] = ("job.succeeded", "job.failed", "job.cancelled")

DELIVERY_TASK = "ropeway.webhook"
DELIVERY_QUEUE = "webhooks"

DELIVERY_RETRY = Retry(max_attempts=10, schedule_s=(5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400))
"""At once, then over three days. Source: Standard Webhooks, "Retry schedule"."""

_MARK = "-d"


class Webhook(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where to tell of a job's end. `events`: which ends; all of them by default."""

    url: str
    events: tuple[WebhookEvent, ...] = WEBHOOK_EVENTS


def delivery_id(job_id: str, number: int = 0) -> str:
    """The id of a job's delivery: number 0 is made with its end, later ones when somebody asks for it again."""
    return f"{job_id}{_MARK}{number}"


def parent_id(job_id: str) -> str:
    """The job that a delivery tells of; any other job's own id. Who spreads jobs keeps the two together by it."""
    head, mark, number = job_id.rpartition(_MARK)
    return head if mark and head and number.isdigit() else job_id
