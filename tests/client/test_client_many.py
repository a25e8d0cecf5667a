"""Submitting many: in order, in batches, no faster than they are taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from client_support import GREET, TRANSPORTS, Greeting, Stage, stage

from ropeway.client import Call, call
from ropeway.client.submitter import BATCH_JOBS, Submitter
from ropeway.client.transport import Accepted, Order
from ropeway.domain.errors import InputInvalid, InvalidRequest, QueueFull, RopewayError, TaskNotFound
from ropeway.domain.queue import QueueChange


@pytest.fixture(name="on", params=TRANSPORTS)
async def make_stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(request.param, tmp_path) as made:
        yield made


async def test_many_calls_become_many_jobs_in_order(on: Stage) -> None:
    """More calls than a batch holds: a handle for each, in the calls' order, each with its own input."""
    count = BATCH_JOBS + 3
    jobs = [job async for job in on.client.submit_many(call(GREET, str(n)) for n in range(count))]
    assert len({job.id for job in jobs}) == count
    for n in (0, BATCH_JOBS - 1, BATCH_JOBS, count - 1):
        assert (await jobs[n].get()).input == {"name": str(n), "times": 1}


async def test_handles_of_many_decode_as_their_task_does(on: Stage) -> None:
    """A call remembers the task that made it."""
    (job,) = [job async for job in on.client.submit_many([call(GREET, "Ada")])]
    await on.hand.succeed(await on.hand.take(), {"text": "x"})
    assert await job.result(timeout=10) == Greeting("x")


async def test_a_call_with_a_key_makes_one_job(on: Stage) -> None:
    """Keys belong to calls, so a batch that is submitted again makes nothing new."""
    calls = [call(GREET, str(n)).keyed(f"k{n}") for n in range(3)]
    first = [job.id async for job in on.client.submit_many(calls)]
    again = [job.id async for job in on.client.submit_many(calls)]
    assert again == first


async def test_calls_may_come_from_an_async_source(on: Stage) -> None:
    """Rows of a database cursor, lines of a stream: whatever is iterated asynchronously."""

    async def source() -> AsyncIterator[Call[Greeting]]:
        for n in range(BATCH_JOBS + 1):
            yield call(GREET, str(n))

    assert len([job async for job in on.client.submit_many(source())]) == BATCH_JOBS + 1


async def test_a_source_is_read_no_further_than_a_batch_ahead(on: Stage) -> None:
    """A source of millions is not gathered in memory: one batch is read ahead of that whose handles are being taken."""
    read = 0

    def source() -> Iterator[Call[Greeting]]:
        nonlocal read
        while True:
            read += 1
            yield call(GREET, "Ada")

    jobs = on.client.submit_many(source())
    await anext(jobs)
    assert read == 2 * BATCH_JOBS
    for _ in range(BATCH_JOBS):
        await anext(jobs)
    assert read == 3 * BATCH_JOBS


async def test_a_refusal_is_raised_at_its_own_place(on: Stage) -> None:
    """Handles before the refused call are given; then its error is."""
    calls = [call("greet", name="a"), call("greet", name=5)]
    jobs = on.client.submit_many(calls)
    await anext(jobs)
    with pytest.raises(InputInvalid):
        await anext(jobs)


async def test_a_full_queue_is_refused_once_patience_ends(on: Stage) -> None:
    """With no patience at all, what a full queue refuses is raised at once, and what it took is given."""
    await on.engine.set_queue([QueueChange("hall", max_depth=2)])
    jobs = on.client.submit_many((call(GREET, str(n)) for n in range(3)), patience=0)
    assert [await anext(jobs), await anext(jobs)]
    with pytest.raises(QueueFull):
        await anext(jobs)


class Narrow:
    """A transport with room for so many jobs at a time, made free each time the submitter waits."""

    def __init__(self, room: int, retry_after_s: float | None = None) -> None:
        self.room = room
        self.free = room
        self.waits: list[float] = []
        self.stored: list[str] = []
        self.retry_after_s = retry_after_s

    async def submit(self, orders: list[Order]) -> list[Accepted | RopewayError]:
        return [self._one(order) for order in orders]

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.free = self.room

    def _one(self, order: Order) -> Accepted | RopewayError:
        if not self.free:
            refusal = QueueFull("hall", self.room)
            refusal.retry_after_s = self.retry_after_s
            return refusal
        self.free -= 1
        self.stored.append(bytes(order.request.input).decode())
        return Accepted(f"job_{len(self.stored)}")


async def test_what_a_full_queue_refuses_is_tried_again_until_it_fits() -> None:
    """Back-pressure is waited out: every call is stored once, and the handles still come in the calls' order."""
    narrow = Narrow(room=2)
    submitter = Submitter(narrow, sleep=narrow.wait)  # type: ignore[arg-type]
    jobs = [job.id async for job in submitter.submit_many(call("t", n=n) for n in range(5))]
    assert jobs == [f"job_{n}" for n in range(1, 6)]
    assert narrow.stored == [f'{{"n":{n}}}' for n in range(5)]
    assert len(narrow.waits) == 2


async def test_a_wait_is_never_shorter_than_the_server_asked() -> None:
    """Retry-After is honoured."""
    narrow = Narrow(room=1, retry_after_s=7)
    submitter = Submitter(narrow, sleep=narrow.wait)  # type: ignore[arg-type]
    assert len([job async for job in submitter.submit_many(call("t", n=n) for n in range(3))]) == 3
    assert all(wait >= 7 for wait in narrow.waits)


async def test_patience_counts_only_waits_without_progress() -> None:
    """A long crowd that keeps moving is no reason to give up; one that stands still is."""
    moving = Narrow(room=1)
    submitter = Submitter(moving, sleep=moving.wait)  # type: ignore[arg-type]
    assert len([job async for job in submitter.submit_many((call("t", n=n) for n in range(50)), patience=1)]) == 50
    stuck = Narrow(room=0)
    submitter = Submitter(stuck, sleep=stuck.wait)  # type: ignore[arg-type]
    with pytest.raises(QueueFull):
        await anext(submitter.submit_many([call("t")], patience=1))
    assert 0 < sum(stuck.waits) <= 1


async def test_one_unknown_name_does_not_hide_in_a_batch(on: Stage) -> None:
    """A call by a name that nobody announced is refused like any other."""
    with pytest.raises(TaskNotFound):
        await anext(on.client.submit_many([call("nobody", n=1)]))


def test_a_named_task_takes_fields_only() -> None:
    """Positions mean nothing without the task's signature."""
    with pytest.raises(InvalidRequest):
        call("greet", "Ada")  # type: ignore[call-overload]
