"""Other jobs, as a task in a child deals with them: its worker submits them, and looks how they ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

import msgspec

from ropeway.client.transport import Accepted, Ending, Order, Transport
from ropeway.client.wire import request_json
from ropeway.domain.errors import RopewayError, TaskFault
from ropeway.runtime.attempt import Attempt, Snooze
from ropeway.runtime.composing.others import Others
from ropeway.runtime.feed import Feed
from ropeway.runtime.snoozing import Snoozed

__all__ = ["Ends", "Kin", "Submitted"]

Asking = Callable[[str, Any], str]
"""Asks the worker, and waits for its answer: what to do, and with what."""


class Submitted(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one submit: an id, or an error's code and words."""

    id: str | None = None
    code: str | None = None
    detail: str | None = None

    @classmethod
    def of(cls, answer: Accepted | RopewayError) -> Submitted:
        if isinstance(answer, Accepted):
            return cls(answer.id)
        return cls(None, answer.code, answer.detail)

    @property
    def answer(self) -> Accepted | RopewayError:
        if self.id is not None:
            return Accepted(self.id)
        return TaskFault(self.detail, code=self.code or "task_error")


class Ends(msgspec.Struct, frozen=True, omit_defaults=True):
    """How jobs ended; or how the attempt is to snooze until they have."""

    endings: list[Ending] = []
    snooze: Snooze | None = None


class Kin(Others):
    """The worker's `Others`, from within a child."""

    def __init__(self, ask: Asking) -> None:
        self._ask = ask

    def children(self, attempt: Attempt, feed: Feed) -> Transport:
        return cast(Transport, _Children(self._ask))

    async def ended(self, attempt: Attempt, feed: Feed, job_ids: Sequence[str], needs_all: bool) -> list[Ending]:
        told = msgspec.json.decode(self._ask("ended", {"ids": job_ids, "needs_all": needs_all}), type=Ends)
        if told.snooze is not None:
            attempt.snooze = told.snooze
            raise Snoozed
        return told.endings


class _Children:
    """As much of a transport as blocking code can use."""

    def __init__(self, ask: Asking) -> None:
        self._ask = ask

    async def submit(self, orders: Sequence[Order]) -> list[Accepted | RopewayError]:
        asked = [(request_json(order.request).decode(), order.idempotency_key) for order in orders]
        told = msgspec.json.decode(self._ask("submit", asked), type=list[Submitted])
        return [each.answer for each in told]

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError('a task with run="process" only submits jobs, and gathers them: ctx.gather_blocking()')
