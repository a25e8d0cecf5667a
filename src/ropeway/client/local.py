"""The transport over an engine in this process: no server between, and nothing is polled.

A waiter listens before it reads, so that no hint is lost between the two; and it looks again every 15 s all the same,
because a hint may be lost (reliability rule 17).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import TypeVar

import msgspec

from ropeway.blobs import BlobStore
from ropeway.blobs.connect import files_of
from ropeway.blobs.inputs import hold_input, may_have_files
from ropeway.client.caching import keyed
from ropeway.client.catalogue import Catalogue
from ropeway.client.deliveries import DeliveryBody, deliveries_of, redelivered
from ropeway.client.expecting import Expected
from ropeway.client.fleet import PolicyRequest, QueueBody, TaskBody, queue_body, task_body
from ropeway.client.holding import Holding
from ropeway.client.limits import LocalLimits
from ropeway.client.local_files import LocalFiles
from ropeway.client.local_keys import LocalKeys
from ropeway.client.local_schedules import LocalSchedules
from ropeway.client.patience import Sleep, persistently
from ropeway.client.submission import canonical_fingerprint, new_job
from ropeway.client.timing import timed
from ropeway.client.transport import Accepted, Ending, JobFilter, Order
from ropeway.client.usage import UsageList, checked_days, usage_body
from ropeway.client.wire import EventBody, JobBody, JobList, event_body, job_body, request_json, timestamp
from ropeway.domain.clock import Clock
from ropeway.domain.errors import InputInvalid, JobError, JobLive, JobNotFound, RopewayError, WaitTimeout
from ropeway.domain.event import START, TERMINAL_TYPES, Cursor, Event
from ropeway.domain.file import FilesNotKept
from ropeway.domain.ids import SEED_BYTES, RandomBytes, job_id
from ropeway.domain.job import Job, JobQuery, NewJob, Receipt
from ropeway.domain.lifecycle import State
from ropeway.domain.output import shown_data
from ropeway.domain.usage import day_of
from ropeway.domain.worker import TaskCard
from ropeway.engines.base import Engine, Refusal
from ropeway.engines.hints import tell_unhinted
from ropeway.engines.inputs import Inputs

__all__ = ["LocalTransport"]

T = TypeVar("T")

log = logging.getLogger("ropeway.client")

SAFETY_S = 15.0
SOON_S = 0.05  # a job whose end would be heard is not looked at before
PAGE_EVENTS = 500
KEY_BYTES = 16


class LocalTransport:
    """Jobs of one tenant on an engine. Opens and shuts the engine only when it `owns` it."""

    def __init__(
        self,
        engine: Engine,
        *,
        owns: bool,
        tenant: str,
        clock: Clock,
        random: RandomBytes,
        sleep: Sleep = asyncio.sleep,
        blobs: BlobStore | str | None = None,
    ) -> None:
        self._engine = engine
        self._owns = owns
        self._tenant = tenant
        self._clock = clock
        self._random = random
        self._sleep = sleep
        self._catalogue = Catalogue(engine, clock)
        self.keys = LocalKeys(engine, tenant, clock, random)
        self.limits = LocalLimits(engine, clock)
        self._kept = files_of(engine, blobs, clock=clock, random=random)
        self.files = LocalFiles(self._kept, tenant)
        self.schedules = LocalSchedules(
            engine, tenant, self._catalogue, self._kept, random, lambda: self._new_ids(1)[0]
        )
        self._inputs = Inputs(engine)
        self._holding = Holding(engine)
        self._expected = Expected(engine.listen)

    async def open(self) -> None:
        if self._owns:
            await self._engine.open()

    async def close(self) -> None:
        self._expected.close()
        if self._owns:
            await self._engine.shut()

    # -- submit

    async def submit(self, orders: Sequence[Order]) -> list[Accepted | RopewayError]:
        named = {order.request.task for order in orders if order.card is None}
        if named:
            await self._catalogue.prepare(named)
        ids = self._new_ids(len(orders))
        made = [await self._new_job(order, order.id or new_id) for order, new_id in zip(orders, ids, strict=True)]
        jobs = [job for job in made if isinstance(job, NewJob)]
        receipts = iter(await (self._submit_one(jobs[0]) if len(jobs) == 1 else self._submit(jobs)))
        answers = (next(receipts) if isinstance(job, NewJob) else job for job in made)
        return [
            answer if isinstance(answer, RopewayError) else Accepted(answer.job.id, answer.replayed, answer.cached)
            for answer in answers
        ]

    async def _submit_one(self, job: NewJob) -> list[Receipt | RopewayError]:
        """Whoever submits one job often waits for it next."""
        self._expected.add(job.id)
        is_new = False
        try:
            receipts = await self._submit([job])
            (receipt,) = receipts
            is_new = isinstance(receipt, Receipt) and receipt.job.id == job.id and not receipt.replayed
        finally:
            if not is_new:
                self._expected.drop(job.id)
        return receipts

    async def _submit(self, jobs: Sequence[NewJob]) -> list[Receipt | RopewayError]:
        # a repeat of a known id is a replay, so a submit of unknown outcome may be sent again
        return await self._holding.submit(jobs, self._clock.now_ms(), self._store)

    async def _store(self, jobs: Sequence[NewJob]) -> list[Receipt | Refusal]:
        return await persistently(lambda: self._engine.submit(jobs), sleep=self._sleep) if jobs else []

    async def _new_job(self, order: Order, new_id: str) -> NewJob | RopewayError:
        request, key = order.request, order.idempotency_key
        try:
            card = order.card or self._checked_card(request.task, bytes(request.input))
            job = new_job(
                card,
                timed(request, self._clock),
                id=new_id,
                tenant=self._tenant,
                idempotency_key=key,
                fingerprint="" if key is None else canonical_fingerprint(request_json(request)),
            )
            if order.parent is not None:
                job = msgspec.structs.replace(job, options=msgspec.structs.replace(job.options, parent=order.parent))
            job = await keyed(job, card, request, self._kept)
            if may_have_files(job.input):
                await hold_input(self._kept, self._tenant, job.id, job.input)
            return job
        except RopewayError as refusal:
            return refusal

    def _checked_card(self, task: str, input_json: bytes) -> TaskCard:
        card = self._catalogue.card(task)
        self._catalogue.check(task, input_json)
        return card

    def _new_ids(self, count: int) -> list[str]:
        now_ms, seeds = self._clock.now_ms(), self._random(SEED_BYTES * count)
        return [job_id(now_ms, seeds[n : n + SEED_BYTES]) for n in range(0, len(seeds), SEED_BYTES)]

    # -- look and wait

    async def get(self, job_id: str) -> JobBody:
        job = await self._job(job_id)
        position = await self._engine.position(self._tenant, job_id) if job.state == "queued" else None
        return self._body(job, position)

    async def ending(self, job_id: str, timeout_s: float | None) -> Ending:
        loop = asyncio.get_running_loop()
        deadline_s = None if timeout_s is None else loop.time() + timeout_s
        self._expected.wake()
        expected = self._expected.take(job_id)
        with expected or self._engine.listen(f"end:{job_id}") as hints:
            hinted = True
            if expected is not None:
                hinted = bool(await hints.wait(SOON_S if timeout_s is None else min(timeout_s, SOON_S)))
            while True:
                if hints.told is not None:
                    return Ending(job_id, State.succeeded, await self._shown(hints.told))
                job = await self._job(job_id)
                if job.state.terminal:
                    if not hinted:
                        self._tell_unhinted(f"end:{job_id}", f"its end ({job.state})", job.finished_at_ms)
                    return await self.ending_of(job)
                left_s = SAFETY_S if deadline_s is None else deadline_s - loop.time()
                if left_s <= 0:
                    raise WaitTimeout(f"{job_id} did not end within {timeout_s:g} s; it goes on")
                hinted = bool(await hints.wait(min(left_s, SAFETY_S)))

    async def ending_of(self, job: Job) -> Ending:
        """What a result is made from, of a job that has ended."""
        error = None if job.error is None else msgspec.json.decode(job.error, type=JobError)
        return Ending(job.id, job.state, await self._shown(job.output or "null"), error, job.cancel_reason)

    async def _shown(self, output: str) -> msgspec.Raw:
        return msgspec.Raw((await self.files.output(output)).encode())

    async def events(self, job_id: str, after: str | None) -> AsyncIterator[EventBody]:
        cursor = START if after is None else Cursor.parse(after)
        with self._engine.listen(f"job:{job_id}") as hints:
            hinted = True
            while True:
                page = await self._engine.read(self._tenant, job_id, cursor, PAGE_EVENTS)
                if page is None:
                    raise JobNotFound(f"no job {job_id}")
                if page.events and not hinted:
                    self._tell_unhinted(f"job:{job_id}", page.events[0].type, page.events[0].at_ms)
                    hinted = True
                for event in page.events:
                    cursor = event.cursor
                    yield await self._event_body(event)
                if page.ended:
                    return
                if len(page.events) < PAGE_EVENTS:
                    hinted = bool(await hints.wait(SAFETY_S))

    def _tell_unhinted(self, topic: str, what: str, at_ms: int | None) -> None:
        if at_ms is not None:
            tell_unhinted(log, topic, what, self._clock.now_ms() - at_ms)

    async def find(self, wanted: JobFilter, limit: int, cursor: str | None) -> JobList:
        query = JobQuery(self._tenant, wanted.states, wanted.queue, wanted.task, wanted.tag, limit, cursor)
        page = await self._engine.find(query)
        durability = self._engine.info.durability
        bodies = [job_body(job, durability=durability, with_input=False, with_output=False) for job in page.jobs]
        return _plain(JobList(bodies, page.next_cursor is not None, page.next_cursor), JobList)

    # -- change

    async def send(self, job_id: str, data: bytes, key: str | None) -> JobBody:
        key = key or self._random(KEY_BYTES).hex()  # a repeat of ours reaches the task once
        await persistently(lambda: self._inputs.give(self._tenant, job_id, data.decode(), key), sleep=self._sleep)
        return await self.get(job_id)

    async def cancel(self, job_id: str, reason: str | None, for_all: bool = False) -> JobBody:
        return self._body(_found(await self._engine.cancel(self._tenant, [job_id], reason, None, for_all)))

    async def wake(self, job_id: str) -> JobBody:
        answers = await persistently(lambda: self._engine.wake(self._tenant, [job_id]), sleep=self._sleep)
        return self._body(_found(answers))

    async def retry(self, job_id: str) -> Accepted:
        (new_id,) = self._new_ids(1)
        receipts = await persistently(lambda: self._engine.retry(self._tenant, [(job_id, new_id)]), sleep=self._sleep)
        receipt = _found(receipts)
        with contextlib.suppress(InputInvalid, FilesNotKept):  # its attempt will say what it misses
            await hold_input(self._kept, self._tenant, receipt.job.id, receipt.job.input)
        return Accepted(receipt.job.id, receipt.replayed)

    async def delete(self, job_id: str, force: bool) -> None:
        if force:
            left = await self.cancel(job_id, "deleted")
            if not left.state.terminal and left.cancel_requested_at is None:
                raise JobLive(f"{job_id} is shared with others, and goes on for them")
            await self.ending(job_id, None)
        _found(await self._engine.purge(self._tenant, [job_id]))

    # -- what is around the jobs

    async def tasks(self) -> list[TaskBody]:
        return [_plain(task_body(card), TaskBody) for card in await self._engine.tasks()]

    async def queues(self) -> list[QueueBody]:
        return [queue_body(stats) for stats in await self._engine.stats()]

    async def deliveries(self, job_id: str) -> list[DeliveryBody]:
        return await deliveries_of(self._engine, self._tenant, job_id)

    async def redeliver(self, job_id: str, delivery_id: str) -> DeliveryBody:
        return await redelivered(self._engine, self._tenant, job_id, delivery_id)

    async def usage(self, since: date | None, until: date | None) -> UsageList:
        first, last = checked_days(since, until, day_of(self._clock.now_ms()))
        rows = await self._engine.usage(self._tenant, first, last)
        return UsageList(first, last, [usage_body(row) for row in rows])

    async def pause(self, queue: str, paused: bool) -> QueueBody:
        return await self.set_queue(queue, PolicyRequest(paused=paused))

    async def set_queue(self, queue: str, policy: PolicyRequest) -> QueueBody:
        await self._engine.set_queue([policy.change(queue)])
        return next(body for body in await self.queues() if body.name == queue)

    async def _job(self, job_id: str) -> Job:
        (job,) = await self._engine.get(self._tenant, [job_id])
        if job is None:
            raise JobNotFound(f"no job {job_id}")
        return job

    async def _event_body(self, event: Event) -> EventBody:
        """The event as a gateway would send it: a terminal one carries the job."""
        if event.type not in TERMINAL_TYPES:
            data = msgspec.json.decode(shown_data(event))
            at = timestamp(event.at_ms)
            return EventBody(event.id, event.seq, event.type, event.job_id, event.attempt, at, data)
        (job,) = await self._engine.get(self._tenant, [event.job_id])
        whole = event_body(event, None if job is None else job_body(job, durability=self._engine.info.durability))
        return _plain(whole, EventBody)

    def _body(self, job: Job, position: int | None = None) -> JobBody:
        return _plain(job_body(job, position=position, durability=self._engine.info.durability), JobBody)


def _plain(body: T, kind: type[T]) -> T:
    """The body with its JSON fields as Python values, just as it comes over HTTP."""
    return msgspec.json.decode(msgspec.json.encode(body), type=kind)


def _found(answers: Sequence[T | RopewayError]) -> T:
    """The one answer, unless it is a refusal, which is raised."""
    (answer,) = answers
    if isinstance(answer, RopewayError):
        raise answer
    return answer
