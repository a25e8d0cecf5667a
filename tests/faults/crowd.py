"""Clients under a chaos: they submit with idempotency keys until they are answered, and follow streams to the end."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence

import httpx
from story import Order, Seen, Story

from ropeway.client.sse import SseReader
from ropeway.domain.event import TERMINAL_TYPES

__all__ = ["Crowd"]

CLIENTS = 24
TASKS = ("spell", "spell", "spell", "echo", "echo", "stumble", "drawl")
FOLLOWED = 0.7  # of the jobs
LEAVES = 0.02  # how often a reader leaves at an event, to come back elsewhere
BACKOFF_S = 0.1


class Crowd:
    """Clients of some gateways. `answers` counts what was accepted, refused or served: the test's own clock."""

    def __init__(self, urls: Sequence[str], story: Story, seed: int) -> None:
        self.answers = 0
        self.breaks = 0
        self._story = story
        self._dice = random.Random(seed)
        self._gateways = [httpx.AsyncClient(base_url=url, timeout=30) for url in urls]
        self._closing = False
        self._milestones: list[tuple[int, asyncio.Event]] = []

    async def run(self) -> None:
        """Until closed: then what was begun is ended, which needs a fleet that is whole again."""
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._client())
        for gateway in self._gateways:
            await gateway.aclose()

    def close(self) -> None:
        """Begin nothing more."""
        self._closing = True

    async def more_answers(self, count: int) -> None:
        """Until so many more requests were answered, by a refusal if need be."""
        reached = asyncio.Event()
        self._milestones.append((self.answers + count, reached))
        await reached.wait()

    async def _client(self) -> None:
        while not self._closing:
            job_id = await self._submit(self._order())
            if self._dice.random() < FOLLOWED:
                await self._follow(job_id)

    def _order(self) -> Order:
        n = len(self._story.orders)
        order = Order(f"key-{n}", self._dice.choice(TASKS), f"<{n}>")
        self._story.asked(order)
        return order

    async def _submit(self, order: Order) -> str:
        """Ask, under the same key, until there is an answer: the job's id."""
        body = {"task": order.task, "input": {"word": order.word}}

        async def ask(gateway: httpx.AsyncClient) -> str | None:
            reply = await gateway.post("/v1/jobs", json=body, headers={"idempotency-key": order.key})
            if reply.status_code == 503:
                return None
            assert reply.status_code in (200, 202), f"{reply.status_code}: {reply.text}"
            job_id: str = reply.json()["id"]
            return job_id

        job_id = await self._persistently(ask)
        self._story.promise(order, job_id)
        return job_id

    async def _follow(self, job_id: str) -> None:
        """Read the job's log to its end, live, over as many connections as it takes."""
        seen = self._story.reader(job_id)

        async def read(gateway: httpx.AsyncClient) -> bool | None:
            headers = {"accept": "text/event-stream"} | ({"last-event-id": seen[-1].id} if seen else {})
            reader = SseReader()
            async with gateway.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as stream:
                if stream.status_code == 503:
                    return None
                assert stream.status_code == 200, f"{stream.status_code} for a stream that has not ended"
                async for chunk in stream.aiter_bytes():
                    for block in reader.feed(chunk):
                        if block.id is None:  # not of the log: it asks us to connect again
                            continue
                        seen.append(Seen(block.id, block.event, json.loads(block.data)))
                        if block.event in TERMINAL_TYPES:
                            return True
                    if self._dice.random() < LEAVES:
                        return None
            return None

        await self._persistently(read)

    async def _persistently(self, ask: Callable[[httpx.AsyncClient], Awaitable[str | bool | None]]) -> str:
        """Ask one gateway or the other until there is an answer that is not None."""
        while True:
            try:
                answer = await ask(self._dice.choice(self._gateways))
            except httpx.TransportError:
                self.breaks += 1
            else:
                self._count()
                if answer is not None:
                    return str(answer)
            await asyncio.sleep(BACKOFF_S * self._dice.random())  # a client's manners, not a wait for anything

    def _count(self) -> None:
        self.answers += 1
        for milestone, reached in self._milestones:
            if self.answers >= milestone:
                reached.set()
        self._milestones = [entry for entry in self._milestones if not entry[1].is_set()]
