"""Jobs that an attempt submits: the children of its own job.

A child's id follows from its parent, from what it is, and from how many such the attempt has submitted before. So an
attempt that is repeated submits the same children, which are there already; and what one call submitted is kept as a
step, so that they are known even when they have ended and are gone.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from typing import NamedTuple

from ropeway.blobs import BlobStore
from ropeway.client.local import LocalTransport
from ropeway.client.transport import Accepted, Order
from ropeway.client.wire import request_json
from ropeway.domain.clock import Clock
from ropeway.domain.errors import RopewayError, StepInvalid
from ropeway.domain.flow import CHILDREN_LIMIT
from ropeway.domain.ids import SEED_BYTES, RandomBytes, job_id
from ropeway.engines.base import Engine
from ropeway.engines.waits import Family, Waits
from ropeway.runtime.attempt import Attempt
from ropeway.runtime.steps import Steps

__all__ = ["Children"]


class _Refused(Exception):
    """Not all of a call was accepted: nothing is kept of it, and a repeat finds what was."""

    def __init__(self, answers: list[Accepted | RopewayError]) -> None:
        super().__init__("refused")
        self.answers = answers


class Children(LocalTransport):
    """The transport of one attempt."""

    def __init__(
        self,
        engine: Engine,
        attempt: Attempt,
        steps: Steps,
        waits: Waits,
        *,
        clock: Clock,
        random: RandomBytes,
        blobs: BlobStore | None,
    ) -> None:
        tenant = attempt.assignment.tenant
        super().__init__(engine, owns=False, tenant=tenant, clock=clock, random=random, blobs=blobs)
        self._parent = attempt.assignment.job_id
        self._born_ms = attempt.assignment.created_at_ms
        self._steps = steps
        self._waits = waits
        self._numbers: dict[bytes, _Numbers] = {}
        self._count = 0

    async def submit(self, orders: Sequence[Order]) -> list[Accepted | RopewayError]:
        if self._count + len(orders) > CHILDREN_LIMIT:
            raise StepInvalid(f"a job submits {CHILDREN_LIMIT:,} others at the most")
        if not orders:
            return []
        named = [self._named(order) for order in orders]
        ids = [name.id for name in named]
        call = f"submit {hashlib.blake2b(' '.join(ids).encode(), digest_size=8).hexdigest()}"
        try:
            kept: list[str] = await self._steps.run(call, self._store_all, (orders, ids), {})
        except _Refused as refused:
            for name, answer in zip(named, refused.answers, strict=True):
                if not isinstance(answer, Accepted):
                    name.numbers.give_back(name.number)
                    self._count -= 1
            return refused.answers
        return [Accepted(child) for child in kept]

    async def _store_all(self, orders: Sequence[Order], ids: Sequence[str]) -> list[str]:
        """The children's ids, when all are stored: whoever joined another's job is that job's parent too."""
        await self._adopt(ids)
        answers = await super().submit(
            [order._replace(id=child, parent=self._parent) for order, child in zip(orders, ids, strict=True)]
        )
        stored = [answer.id for answer in answers if isinstance(answer, Accepted)]
        joined = set(stored).difference(ids)
        if joined:
            await self._adopt(sorted(joined))
        await self._waits.tell()
        if len(stored) < len(answers):
            raise _Refused(answers)
        return stored

    async def _adopt(self, ids: Sequence[str]) -> None:
        await self._waits.adopt(Family(self._parent, self._tenant, tuple(ids)), self._clock.now_ms())

    def _named(self, order: Order) -> _Named:
        """The name of a child, as every attempt would come to it. Taken at once: another call may be under way."""
        content = _digest(order)
        numbers = self._numbers.setdefault(content, _Numbers())
        number = numbers.take()
        self._count += 1
        seed = hashlib.blake2b(f"{self._parent} {content.hex()} {number}".encode(), digest_size=SEED_BYTES).digest()
        return _Named(job_id(self._born_ms, seed), number, numbers)


class _Named(NamedTuple):
    id: str
    number: int
    numbers: _Numbers


class _Numbers:
    """Numbers for children that are alike, from 0. One whose child was refused is taken again."""

    __slots__ = ("_free", "_next")

    def __init__(self) -> None:
        self._free: list[int] = []
        self._next = 0

    def take(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        self._next += 1
        return self._next - 1

    def give_back(self, number: int) -> None:
        heapq.heappush(self._free, number)


def _digest(order: Order) -> bytes:
    said = request_json(order.request) + (order.idempotency_key or "").encode()
    return hashlib.blake2b(said, digest_size=16).digest()
