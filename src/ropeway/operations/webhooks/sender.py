"""The sender: one attempt to deliver one message, judged by what came back.

2xx is success and nothing else is. A redirect is a failure and is not followed. 410 ends the endpoint, whose later
deliveries fail at once. All else is tried again on the schedule, or later if the endpoint asked for that.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec
from standardwebhooks import Webhook as Signer

from ropeway.domain.clock import Clock
from ropeway.domain.errors import Fail, InvalidRequest, RetryAfter, TaskFault
from ropeway.domain.targets import AllowList, target_of
from ropeway.engines.secrets import Secrets
from ropeway.operations.webhooks.connecting import Unreachable
from ropeway.operations.webhooks.endpoints import Endpoints
from ropeway.operations.webhooks.posting import Answer, NoAnswer, Poster

__all__ = ["Attempted", "Message", "Sender", "Undelivered"]

log = logging.getLogger("ropeway.webhooks")

LONGEST_RETRY_AFTER_S = 86_400.0
GONE = 410
_AGENT = f"ropeway/{version('ropeway')} (webhooks)"


class Message(msgspec.Struct, frozen=True):
    """What is to be told, and to whom. `job_id` is the job that ended."""

    tenant: str
    url: str
    type: str
    job_id: str
    timestamp: str
    data: dict[str, Any]

    @property
    def id(self) -> str:
        """The same at every attempt and redelivery, so that a receiver knows what it has had."""
        return f"msg_{self.job_id.removeprefix('job_')}".replace(".", "_")  # a dot would end it in what is signed

    @property
    def body(self) -> str:
        return msgspec.json.encode({"type": self.type, "timestamp": self.timestamp, "data": self.data}).decode()


class Attempted(msgspec.Struct, frozen=True):
    """What one attempt came to, as the log keeps it. `status`: of the answer, None when none came."""

    status: int | None = None
    error: str | None = None
    message: str | None = None
    excerpt: str = ""
    duration: float = 0.0


class Undelivered(Exception):
    """The attempt failed. `fault` says what happens next; `attempted` is for the log."""

    def __init__(self, fault: TaskFault, attempted: Attempted) -> None:
        super().__init__(fault.detail)
        self.fault = fault
        self.attempted = attempted


class Sender:
    """Delivers messages."""

    def __init__(
        self, poster: Poster, secrets: Secrets, endpoints: Endpoints, allowed: AllowList, clock: Clock
    ) -> None:
        self._poster = poster
        self._secrets = secrets
        self._endpoints = endpoints
        self._allowed = allowed
        self._clock = clock

    async def send(self, message: Message) -> Attempted:
        """Deliver, once. Raises Undelivered."""
        started_ms = self._clock.now_ms()

        def undelivered(fault: TaskFault, answer: Answer | None = None) -> Undelivered:
            return Undelivered(fault, self._attempted(started_ms, answer, fault))

        if await self._endpoints.is_silenced(message.tenant, message.url):
            raise undelivered(
                Fail("the endpoint answered 410 before, and is not called again", code="webhook_disabled")
            )
        try:
            answer = await self._post(message, started_ms)
        except InvalidRequest as error:
            raise undelivered(Fail(error.detail, code="webhook_refused")) from error
        except Unreachable as error:
            log.info("webhook of %s (%s): %s", message.job_id, message.tenant, error.why)
            raise undelivered(TaskFault(str(error), code="webhook_unreachable")) from None
        except NoAnswer as error:
            raise undelivered(TaskFault(str(error), code=error.code)) from None
        if not 200 <= answer.status < 300:
            raise undelivered(await self._failure(message, answer), answer)
        return self._attempted(started_ms, answer)

    async def _post(self, message: Message, now_ms: int) -> Answer:
        target = target_of(message.url, self._allowed)
        body = message.body
        headers = {
            "User-Agent": _AGENT,
            "webhook-id": message.id,
            "webhook-timestamp": str(now_ms // 1000),
            "webhook-signature": await self._signatures(message, now_ms, body),
        }
        return await self._poster.post(target, headers, body.encode())

    async def _signatures(self, message: Message, now_ms: int, body: str) -> str:
        at = datetime.fromtimestamp(now_ms // 1000, UTC)
        secrets = await self._secrets.valid(message.tenant)
        return " ".join(Signer(one.secret).sign(message.id, at, body) for one in secrets)

    async def _failure(self, message: Message, answer: Answer) -> TaskFault:
        """What an answer that is no 2xx means."""
        if answer.status == GONE:
            await self._endpoints.silence(message.tenant, message.url, message.job_id)
            return Fail("answered 410: the endpoint is not called again", code="webhook_gone")
        redirects = "; redirects are not followed" if 300 <= answer.status < 400 else ""
        what = f"answered {answer.status}{redirects}"
        after_s = answer.retry_after_s(self._clock.now_ms())
        if after_s is None:
            return TaskFault(what, code="webhook_status")
        return RetryAfter(min(after_s, LONGEST_RETRY_AFTER_S), what, code="webhook_status")

    def _attempted(self, started_ms: int, answer: Answer | None, fault: TaskFault | None = None) -> Attempted:
        return Attempted(
            status=None if answer is None else answer.status,
            error=None if fault is None else fault.fault_code,
            message=None if fault is None else fault.detail,
            excerpt="" if answer is None else answer.excerpt,
            duration=(self._clock.now_ms() - started_ms) / 1000,
        )
