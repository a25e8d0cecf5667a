"""The task that delivers, added to an application's own: a delivery is a job, and a worker runs it as any other."""

from __future__ import annotations

import ssl
from typing import Any

from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.ids import RandomBytes, system_random
from ropeway.domain.targets import AllowList
from ropeway.domain.webhook import DELIVERY_QUEUE, DELIVERY_TASK
from ropeway.engines.records import Records
from ropeway.engines.secrets import Secrets
from ropeway.operations.webhooks.endpoints import Endpoints
from ropeway.operations.webhooks.posting import TIMEOUT_S, Poster
from ropeway.operations.webhooks.resolving import Resolve, resolver
from ropeway.operations.webhooks.sender import Message, Sender, Undelivered
from ropeway.runtime import App
from ropeway.runtime.context import Context
from ropeway.runtime.registry import TaskSettings

__all__ = ["with_deliveries", "with_webhooks"]

SENDS_AT_ONCE = 100  # by one worker; each holds a socket and at most 15 s


def with_deliveries(queues: tuple[str, ...]) -> tuple[str, ...]:
    """The queues that a worker of such an application serves, when it was told which; the deliveries are the last."""
    return tuple(dict.fromkeys((*queues, DELIVERY_QUEUE))) if queues else ()


def with_webhooks(
    app: App,
    engine: Records,
    allowed: AllowList,
    *,
    clock: Clock | None = None,
    random: RandomBytes = system_random,
    resolve: Resolve | None = None,
    context: ssl.SSLContext | None = None,
    timeout_s: float = TIMEOUT_S,
) -> App:
    """A copy of the application that delivers webhooks too, on the queue `webhooks`.

    Args:
        engine: keeps the secrets, and which endpoints asked for no more.
        allowed: what may be reached beside the public network.
        resolve, context, timeout_s: names to addresses, whom TLS trusts, and for how long an endpoint may think.
    """
    clock = clock or SystemClock()

    async def webhook(
        url: str,
        type: str,  # noqa: A002 - the field's own name
        job_id: str,
        timestamp: str,
        data: dict[str, Any],
        *,
        ctx: Context,
        ropeway_webhook_sender: Sender,
    ) -> None:
        """Deliver one event to a webhook."""
        try:
            attempted = await ropeway_webhook_sender.send(Message(ctx.tenant, url, type, job_id, timestamp, data))
        except Undelivered as error:
            ctx.emit(error.attempted)
            raise error.fault from None
        ctx.emit(attempted)

    async def ropeway_webhook_sender() -> Sender:
        """Made in the worker's own loop."""
        poster = Poster(allowed, resolve or resolver(), context, timeout_s)
        return Sender(poster, Secrets(engine, clock, random), Endpoints(engine, clock), allowed, clock)

    extended = app.copy()
    extended.resource(ropeway_webhook_sender)
    settings: TaskSettings = {"name": DELIVERY_TASK, "queue": DELIVERY_QUEUE, "concurrency": SENDS_AT_ONCE}
    extended.add(webhook, settings, {"Sender": Sender, "Context": Context})
    return extended
