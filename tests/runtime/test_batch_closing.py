"""When a batch goes: full, waited for long enough, or nobody else can come. Time and timers are moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
from runtime_support import an_assignment, eventually

from ropeway.domain.job import JobOptions
from ropeway.runtime import App, Batch, Context
from ropeway.runtime.artifacts import Artifacts
from ropeway.runtime.attempt import Attempt, Reason, Session
from ropeway.runtime.batching.batcher import Batcher
from ropeway.runtime.batching.tools import Tools
from ropeway.runtime.feed import Feed
from ropeway.runtime.inbox import Inbox
from ropeway.runtime.isolation import ThreadPool
from ropeway.runtime.resources import OpenResources
from ropeway.runtime.run import Run, Work
from ropeway.testing import ManualClock


class Timers:
    """Timers that go off when the test says so."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._set: dict[object, tuple[float, Callable[[], None]]] = {}

    def later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        timer = Timer(self._set)
        self._set[timer] = (self._clock.monotonic_s() + delay_s, call)
        return timer

    def pass_time(self, ms: int) -> None:
        """Let so much time pass, and the timers go off that are due by then."""
        self._clock.advance(ms)
        for timer, (at_s, call) in list(self._set.items()):
            if at_s <= self._clock.monotonic_s() + 1e-9:
                del self._set[timer]
                call()


class Timer:
    def __init__(self, timers: dict[object, Any]) -> None:
        self._timers = timers

    def cancel(self) -> None:
        self._timers.pop(self, None)


class Queue:
    """Where jobs come from, by the word of the test."""

    def __init__(self) -> None:
        self.coming = False


class Desk:
    """What came of each job; nothing is committed."""

    def __init__(self) -> None:
        self.running: set[Run] = set()
        self.outputs: dict[str, str | BaseException | None] = {}

    def ask(self, attempt: Attempt, reason: Reason, grace_s: float | None = None) -> None:
        attempt.reason = reason
        if isinstance(attempt, Run) and attempt.handle is not None and attempt.started:
            attempt.handle.cancel()

    def open_feed(self, run: Run) -> None:
        """None of these jobs tells anything."""

    def watch(self, run: Run) -> None:
        """Nor has a timeout."""

    def needs(self, run: Run) -> bool:
        return False

    async def bring(self, run: Run) -> None:
        raise AssertionError("nothing is to be brought")

    def context(self, run: Run, feed: Feed) -> Context:
        raise AssertionError("nobody asked for one")

    def ended(self, run: Run, ended: str | BaseException | None) -> None:
        self.running.discard(run)
        self.outputs[run.assignment.job_id] = ended


class Model:
    """A model whose calls end when the test lets them. `calls` are the batches that it was given."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self._gates: list[asyncio.Event] = []
        self._is_open = False

    async def run(self, numbers: list[int]) -> list[int]:
        gate = asyncio.Event()
        self.calls.append(numbers)
        self._gates.append(gate)
        if not self._is_open:
            await gate.wait()
        return numbers

    async def end(self, call: int = 0) -> None:
        """Let this call end, once it has begun."""
        await eventually(lambda: len(self._gates) > call, "the call begins")
        self._gates[call].set()

    def end_all(self) -> None:
        """Hold up no call any more."""
        self._is_open = True
        for gate in self._gates:
            gate.set()


class Bench:
    """A batcher with everything about it in the test's hands."""

    def __init__(self, batch: Batch, concurrency: int) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.queue = Queue()
        self.desk = Desk()
        self.model = Model()
        self.freed = 0
        app = App()

        @app.task(batch=batch, concurrency=concurrency)
        async def work(n: list[int], kind: list[str]) -> list[int]:
            return await self.model.run(n)

        inbox = Inbox(asyncio.get_running_loop())
        pool = ThreadPool(inbox, 1)
        tools = Tools(
            self.desk,
            OpenResources({}, pool),
            pool,
            inbox,
            Artifacts(None),
            self.clock,
            self.timers.later,
            self._count_freed,
            cast(Callable[[Any], None], self._count_freed),
        )
        assert work.batching is not None
        self.batcher = Batcher(Work(work, ()), work.batching, tools)
        self.batcher.sources = [self.queue]
        self._session = Session("ses_1", 0.0)

    def _count_freed(self, *_: object) -> None:
        self.freed += 1

    def lease(self, *numbers: int, kind: str = "a", options: JobOptions | None = None) -> None:
        """These jobs come with one answer of the engine, as the poller brings it."""
        coming, self.queue.coming = self.queue.coming, True
        for n in numbers:
            assignment = an_assignment(input=f'{{"n":{n},"kind":"{kind}"}}', options=options or JobOptions())
            lease = msgspec.structs.replace(assignment.lease, job_id=f"job_{n}")
            self.batcher.start(msgspec.structs.replace(assignment, lease=lease), self._session)
        self.queue.coming = coming
        self.batcher.looked()

    async def called(self, *batches: list[int]) -> None:
        """The model was given these, and no others."""
        await eventually(lambda: len(self.model.calls) >= len(batches), "the calls begin")
        assert self.model.calls == list(batches)

    async def ended(self, *numbers: int) -> None:
        await eventually(lambda: all(f"job_{n}" in self.desk.outputs for n in numbers), "these jobs end")

    @property
    def closed(self) -> dict[str, int]:
        return self.batcher.snapshot.closed

    @property
    def waiting(self) -> int:
        return self.batcher.snapshot.waiting


@asynccontextmanager
async def bench(batch: Batch | None = None, *, concurrency: int = 1) -> AsyncIterator[Bench]:
    made = Bench(batch or Batch(max_size=3, max_wait=0.005), concurrency)
    try:
        yield made
    finally:
        made.model.end_all()
        await eventually(lambda: made.batcher.snapshot.running == 0, "all calls end")


async def test_a_full_batch_goes_at_once() -> None:
    """`max_size` jobs are not kept waiting, though more are coming."""
    async with bench() as on:
        on.queue.coming = True
        on.lease(1, 2, 3)
        await on.called([1, 2, 3])
        assert on.closed == {"size": 1}


async def test_jobs_wait_for_others_that_are_on_their_way() -> None:
    """While a lease is out, or hints tell of work, the first job waits; `max_wait` after its arrival the batch goes."""
    async with bench() as on:
        on.queue.coming = True
        on.lease(1)
        on.timers.pass_time(4)
        on.lease(2)
        assert on.model.calls == []
        on.timers.pass_time(1)
        await on.called([1, 2])
        assert on.closed == {"wait": 1}


async def test_a_batch_goes_early_when_nothing_else_can_come() -> None:
    """The queue was found empty and nothing is under way: a lone job waits for nobody."""
    async with bench() as on:
        on.lease(1, 2)
        await on.called([1, 2])
        assert on.closed == {"idle": 1}


async def test_the_next_batch_fills_up_while_one_runs() -> None:
    """When the call ends, all that came meanwhile goes together, and at once."""
    async with bench() as on:
        on.lease(1)
        await on.called([1])
        on.timers.pass_time(50)
        on.lease(2)
        on.lease(3)
        assert (on.waiting, len(on.model.calls)) == (2, 1)
        await on.model.end()
        await on.called([1], [2, 3])
        assert on.closed == {"idle": 2}


async def test_no_more_is_leased_ahead_than_one_batch() -> None:
    """Room for each call that could begin, else for one batch; what waits is taken off."""
    async with bench(concurrency=2) as on:
        assert on.batcher.free == 6
        on.queue.coming = True
        on.lease(1, 2, 3)
        assert on.batcher.free == 3
        on.lease(4, 5, 6)
        assert on.batcher.free == 3
        on.lease(7, 8)
        assert (on.batcher.free, on.waiting) == (1, 2)
        await on.called([1, 2, 3], [4, 5, 6])


async def test_a_backlog_runs_in_full_batches_back_to_back() -> None:
    """The worker is told of new room as soon as a batch has gone, so the next is there when the call ends."""
    async with bench() as on:
        on.queue.coming = True
        on.lease(1, 2, 3)
        assert on.freed == 1
        on.lease(4, 5, 6)
        await on.called([1, 2, 3])
        await on.model.end()
        await on.called([1, 2, 3], [4, 5, 6])
        assert on.closed == {"size": 2}


async def test_the_cost_of_the_jobs_closes_a_batch() -> None:
    """By the jobs' own cost where the batch has no function for it."""
    async with bench(Batch(max_size=10, max_wait=60, max_cost=5)) as on:
        on.queue.coming = True
        on.lease(1, 2, options=JobOptions(cost=2))
        assert on.model.calls == []
        on.lease(3, options=JobOptions(cost=2))
        await on.called([1, 2])
        assert (on.closed, on.waiting) == ({"cost": 1}, 1)


async def test_the_cost_may_be_read_from_the_input() -> None:
    """A function of the parameters that it names."""
    async with bench(Batch(max_size=10, max_wait=60, max_cost=10, cost=lambda n: n)) as on:
        on.queue.coming = True
        on.lease(4, 6, 1)
        await on.called([4, 6])


async def test_only_jobs_of_one_key_share_a_call() -> None:
    """And the group whose first job came first goes first, when several may."""
    async with bench(Batch(max_size=3, max_wait=0.005, key="kind")) as on:
        on.lease(1, kind="a")
        await on.called([1])
        on.timers.pass_time(50)
        on.lease(2, kind="b")
        on.lease(3, kind="a")
        on.lease(4, kind="b")
        await on.model.end()
        await on.called([1], [2, 4])
        await on.model.end(1)
        await on.called([1], [2, 4], [3])


async def test_a_rare_key_is_not_starved_by_a_full_one() -> None:
    """Once it may go, the older job goes before a batch that is fuller."""
    async with bench(Batch(max_size=2, max_wait=0.005, key="kind"), concurrency=1) as on:
        on.queue.coming = True
        on.lease(1, 2, kind="hot")
        on.lease(3, kind="rare")
        on.timers.pass_time(5)
        on.lease(4, 5, kind="hot")
        await on.model.end()
        await on.called([1, 2], [4, 5])  # the rare one could have run for 0 ms so far
        on.lease(6, 7, kind="hot")
        on.timers.pass_time(5)
        await on.model.end(1)
        await on.called([1, 2], [4, 5], [3])


async def test_when_the_room_is_taken_by_many_keys_the_oldest_goes() -> None:
    """Nothing else can come, for there is no room for it: waiting would be in vain."""
    async with bench(Batch(max_size=3, max_wait=60, key="kind")) as on:
        on.queue.coming = True
        on.lease(1, kind="a")
        on.lease(2, kind="b")
        assert on.model.calls == []
        on.queue.coming = False  # as the worker's own queue has it: no room, so no lease
        on.lease(3, kind="c")
        await on.called([1])
        assert on.closed == {"room": 1}


async def test_a_key_that_cannot_be_read_fails_its_job_alone() -> None:
    """A function that raises, or gives what has no hash; the others go on."""

    def key(n: int) -> object:
        if n == 1:
            raise KeyError("no such bucket")
        return [] if n == 2 else "all"

    async with bench(Batch(max_size=3, max_wait=0.005, key=cast(Any, key))) as on:
        on.lease(1, 2, 3)
        await on.called([3])
        assert isinstance(on.desk.outputs["job_1"], KeyError)
        assert isinstance(on.desk.outputs["job_2"], TypeError)
        assert on.waiting == 0


async def test_a_cost_that_is_no_number_fails_its_job_alone() -> None:
    """NaN, infinity and less than nothing would never fill a batch."""
    async with bench(Batch(max_size=3, max_cost=5, cost=lambda n: float("nan") if n == 1 else 1)) as on:
        on.lease(1, 2)
        await on.called([2])
        assert isinstance(on.desk.outputs["job_1"], ValueError)


async def test_an_input_that_cannot_be_read_fails_its_job_alone() -> None:
    """A job may have been submitted before its task changed."""
    async with bench() as on:
        on.queue.coming = True
        on.batcher.start(an_assignment(input='{"n":"one","kind":"a"}'), Session("ses_1", 0.0))
        on.lease(2)
        on.timers.pass_time(5)
        await on.called([2])
        await on.model.end()
        await on.ended(1, 2)
        assert isinstance(on.desk.outputs["job_1"], Exception)
        assert on.desk.outputs["job_2"] == "2"


async def test_a_batch_that_left_somebody_behind_makes_the_next_one_wait() -> None:
    """Many clients that each await their result are found in one batch, in the end; a wait in vain ends that."""
    async with bench() as on:
        on.lease(1)
        on.lease(2)
        await on.called([1])
        await on.model.end()
        await on.ended(1)
        assert (len(on.model.calls), on.waiting) == (1, 1)  # the call is free, and the queue is empty: it bets on more
        on.lease(3)
        on.timers.pass_time(5)
        await on.called([1], [2, 3])
        await on.model.end(1)
        await on.ended(2, 3)
        on.lease(4)
        assert on.waiting == 1
        on.timers.pass_time(5)
        await on.called([1], [2, 3], [4])
        await on.model.end(2)
        await on.ended(4)
        on.lease(5)
        await on.called([1], [2, 3], [4], [5])
        assert on.closed == {"idle": 2, "wait": 2}


async def test_time_in_which_no_call_was_free_is_not_held_against_a_batch() -> None:
    """The wait that `max_wait` bounds is for others, not for a call."""
    async with bench() as on:
        on.queue.coming = True
        on.lease(1, 2, 3)
        on.lease(4)
        on.timers.pass_time(100)
        await on.model.end()
        await on.ended(1, 2, 3)
        assert len(on.model.calls) == 1
        on.timers.pass_time(4)
        assert len(on.model.calls) == 1
        on.timers.pass_time(1)
        await on.called([1, 2, 3], [4])


async def test_a_timer_that_is_a_hair_early_ends_the_wait_all_the_same() -> None:
    """The loop's clock and the worker's are two clocks."""
    async with bench() as on:
        on.queue.coming = True
        on.lease(1)
        ((at_s, call),) = on.timers._set.values()
        assert at_s == on.clock.monotonic_s() + 0.005
        on.clock.advance(4)
        call()
        await on.called([1])


async def test_who_is_cancelled_while_he_waits_leaves() -> None:
    """He is judged at once, the others go without him."""
    async with bench() as on:
        on.queue.coming = True
        on.lease(1, 2)
        (second,) = (run for run in on.desk.running if run.assignment.job_id == "job_2")
        on.desk.ask(second, Reason.cancel)
        assert isinstance(on.desk.outputs["job_2"], asyncio.CancelledError)
        on.timers.pass_time(5)
        await on.called([1])


async def test_a_call_that_nobody_wants_before_it_begins_is_not_made() -> None:
    """Its jobs are judged, and the next batch has its place."""
    async with bench() as on:
        on.lease(1)
        (run,) = on.desk.running
        on.desk.ask(run, Reason.cancel)
        await on.ended(1)
        on.lease(2)
        await on.called([2])


async def test_a_drain_gives_back_what_waits_and_lets_finish_what_runs() -> None:
    """Also what a lease that was under way still brings."""
    async with bench() as on:
        on.queue.coming = True
        on.lease(1, 2, 3)
        on.lease(4)
        on.batcher.drain()
        on.lease(5)
        assert {type(on.desk.outputs[f"job_{n}"]) for n in (4, 5)} == {asyncio.CancelledError}
        await on.model.end()
        await on.ended(1, 2, 3)
        assert on.model.calls == [[1, 2, 3]]
