"""The worker at its plain work: lease, run, commit, for every kind of task, and only what it has room for."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import date
from typing import Any

import msgspec
import pytest
from runtime_support import eventually, stage

from ropeway.domain.chat import ChatDelta
from ropeway.domain.errors import Fail
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry
from ropeway.runtime import App, Context, Worker, given

ONCE = Retry(max_attempts=1)


class Gate:
    """Holds tasks until a test opens it, on the loop or on threads, and counts who is inside."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self._open = threading.Event()
        self._lock = threading.Lock()

    async def hold(self) -> None:
        with self._entered():
            await eventually(self._open.is_set, "the gate is open")

    def block(self) -> None:
        with self._entered():
            assert self._open.wait(20)

    def open(self) -> None:
        self._open.set()

    def _entered(self) -> Any:
        return _Inside(self)

    def count(self, step: int) -> None:
        with self._lock:
            self.inside += step
            self.most = max(self.most, self.inside)


class _Inside:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __enter__(self) -> None:
        self._gate.count(+1)

    def __exit__(self, *_: object) -> None:
        self._gate.count(-1)


async def test_every_kind_of_task_runs() -> None:
    """Async and blocking functions and generators: what they return, or yield, is the job's output."""
    app = App()

    @app.task
    async def coroutine(n: int) -> int:
        await asyncio.sleep(0)
        return n + 1

    @app.task
    async def async_words(n: int) -> AsyncIterator[str]:
        for i in range(n):
            yield f"{i} "

    @app.task
    async def async_items(n: int) -> AsyncIterator[dict[str, int]]:
        for i in range(n):
            yield {"i": i}

    @app.task
    def function(n: int) -> list[int]:
        return [n]

    @app.task
    def words(n: int) -> Iterator[str]:
        yield from (f"{i} " for i in range(n))

    @app.task
    def mixed(n: int) -> Iterator[str | int]:
        yield "a"
        yield n

    async with stage(app) as on:
        await on.work()
        assert await on.output("coroutine", n=1) == 2
        assert await on.output("async_words", n=3) == "0 1 2 "
        assert await on.output("async_items", n=2) == [{"i": 0}, {"i": 1}]
        assert await on.output("function", n=1) == [1]
        assert await on.output("words", n=3) == "0 1 2 "
        assert await on.output("mixed", n=7) == ["a", 7]


@pytest.mark.parametrize("blocking", [False, True])
async def test_the_text_of_a_chat_is_one_however_it_ends(blocking: bool) -> None:
    """An answer that was cut by `length` is its text and the reason, not its tokens; between calls of tools too."""
    app = App()
    words = [f"wörd{n}\n" for n in range(100)]
    call, end = ChatDelta(tool_calls=[{"index": 0, "id": "call_1"}]), ChatDelta(finish_reason="length")
    pieces: list[str | ChatDelta] = [*words, call, "and ", "so ", end]

    @app.task
    async def chat() -> AsyncIterator[str | ChatDelta]:
        for piece in pieces:
            yield piece

    @app.task
    def blocking_chat() -> Iterator[str | ChatDelta]:
        yield from pieces

    async with stage(app) as on:
        await on.work()
        job = await on.run("blocking_chat" if blocking else "chat")
        assert msgspec.json.decode(job.output or "") == [
            "".join(words), {"tool_calls": [{"index": 0, "id": "call_1"}]}, "and so ", {"finish_reason": "length"},
        ]  # fmt: skip
        assert "".join(data["delta"] for data in (await on.data(job.id, "output.delta"))[:-3]).startswith(words[0])


async def test_strings_that_follow_each_other_are_one_in_a_list_too() -> None:
    """As a reader of the log puts them together; what only looks like text stays apart."""
    app = App()

    @app.task
    def mixed() -> Iterator[Any]:
        yield from ("a", "b", 1, "c", date(2026, 1, 1), "d", "é", "\n")

    @app.task
    def days() -> Iterator[date]:
        yield from (date(2026, 1, 1), date(2026, 1, 2))

    async with stage(app) as on:
        await on.work()
        assert await on.output("mixed") == ["ab", 1, "c", "2026-01-01", "dé\n"]
        assert await on.output("days") == ["2026-01-01", "2026-01-02"]


async def test_a_generator_that_yields_nothing_has_an_empty_output() -> None:
    """Empty text when it is declared to yield strings, else an empty list; None when a function returns nothing."""
    app = App()

    @app.task
    async def no_words() -> AsyncIterator[str]:
        return
        yield ""

    @app.task
    def no_items() -> Iterator[int]:
        return
        yield 1

    @app.task
    def nothing() -> None: ...

    async with stage(app) as on:
        await on.work()
        assert await on.output("no_words") == ""
        assert await on.output("no_items") == []
        assert await on.output("nothing") is None


async def test_the_context_tells_the_task_its_job() -> None:
    """Id, attempt, tenant, queue and task name."""
    app = App()

    @app.task(queue="night")
    async def who(*, ctx: Context = given) -> list[Any]:
        return [ctx.job_id, ctx.attempt, ctx.tenant, ctx.queue, ctx.task, ctx.cancelled, ctx.stop_reason]

    async with stage(app) as on:
        await on.work()
        job_id = await on.submit("who")
        job = await on.ended(job_id)
        assert job.output == f'["{job_id}",1,"default","night","who",false,null]'


async def test_blocking_tasks_run_on_threads_and_steps_too() -> None:
    """A blocking task never runs in the loop; an async one sends its blocking steps to threads, with its context."""
    app = App()
    request_id = contextvars.ContextVar[str]("request_id")

    @app.task
    def blocking() -> str:
        return threading.current_thread().name

    @app.task
    async def steps(*, ctx: Context = given) -> list[str]:
        request_id.set("r-7")

        def step(name: str) -> str:
            return f"{name} {request_id.get()} {threading.current_thread() is not threading.main_thread()}"

        return list(await asyncio.gather(ctx.to_thread(step, "a"), ctx.to_thread(step, name="b")))

    @app.task(retry=ONCE)
    async def bad_step(*, ctx: Context = given) -> None:
        await ctx.to_thread(int, "x")

    @app.task(retry=ONCE)
    async def stopping_step(*, ctx: Context = given) -> None:
        await ctx.to_thread(next, iter(()))

    async with stage(app) as on:
        await on.work()
        assert (await on.output("blocking")).startswith("ropeway-")
        assert await on.output("steps") == ["a r-7 True", "b r-7 True"]
        assert (await on.error("bad_step")).type == "ValueError"
        assert "StopIteration" in (await on.error("stopping_step")).message


async def test_an_unknown_task_fails_its_job() -> None:
    """The job tells what to do; the worker goes on."""
    app = App()

    @app.task
    async def known() -> int:
        return 1

    other = App()

    @other.task
    async def unknown() -> int:
        return 1

    async with stage(app) as on:
        await on.work()
        on.app = other
        error = await on.error("unknown")
        assert (error.code, error.retryable) == ("task_not_found", False)
        on.app = app
        assert await on.output("known") == 1


async def test_an_input_that_does_not_fit_fails_without_a_retry() -> None:
    """It was submitted past the gateway's checks, or the task has changed since."""
    app = App()

    @app.task
    async def add(n: int) -> int:
        return n

    async with stage(app) as on:
        await on.work()
        error = await on.error("add", n="x")
        assert (error.code, error.attempt, error.retryable) == ("input_invalid", 1, False)
        assert "/n: Expected 'int', got 'str'" in error.message


async def test_an_output_that_json_cannot_carry_fails_the_job_not_the_worker() -> None:
    """`output_invalid`, without a retry: the same code would make the same thing again."""
    app = App()

    @app.task
    async def returns() -> Any:
        return object()

    @app.task
    def returns_in_thread() -> Any:
        return {1j: 2}

    @app.task
    async def yields() -> AsyncIterator[Any]:
        yield "a"
        yield "\ud800"

    forgotten = asyncio.sleep(0)

    @app.task
    def forgot_to_await() -> Any:
        return forgotten

    async with stage(app) as on:
        await on.work()
        for task in ("returns", "returns_in_thread", "yields", "forgot_to_await"):
            error = await on.error(task)
            assert (task, error.code, error.attempt) == (task, "output_invalid", 1)
    forgotten.close()


async def test_concurrency_is_what_the_worker_was_given() -> None:
    """Never more jobs on the loop than `concurrency`, nor blocking ones than `threads`; the others stay queued."""
    app = App()
    looping, blocking = Gate(), Gate()

    @app.task(queue="loop")
    async def hold() -> None:
        await looping.hold()

    @app.task(queue="threads")
    def block() -> None:
        blocking.block()

    async with stage(app) as on:
        worker = await on.work(concurrency=3, threads=2)
        jobs = [await on.submit(task) for task in ("hold", "block") for _ in range(5)]
        await eventually(lambda: (looping.inside, blocking.inside) == (3, 2), "both kinds are full")
        assert worker.snapshot().state == "busy"
        states = [(await on.job(job_id)).state for job_id in jobs]
        assert states.count(State.queued) == 5
        looping.open()
        blocking.open()
        for job_id in jobs:
            assert (await on.ended(job_id)).state is State.succeeded
        assert (looping.most, blocking.most) == (3, 2)


async def test_a_task_s_own_concurrency_holds_and_leaves_other_queues_alone() -> None:
    """A task with `concurrency` fills its own queue only."""
    app = App()
    gate = Gate()

    @app.task(queue="heavy", concurrency=2)
    async def heavy() -> None:
        await gate.hold()

    @app.task
    async def light() -> int:
        return 1

    async with stage(app) as on:
        await on.work()
        jobs = [await on.submit("heavy") for _ in range(4)]
        await eventually(lambda: gate.inside == 2, "the heavy lane is full")
        assert await on.output("light") == 1
        assert (await on.job(jobs[2])).state is State.queued
        gate.open()
        for job_id in jobs:
            await on.ended(job_id)
        assert gate.most == 2


async def test_a_mixed_queue_leases_only_what_can_start_whatever_it_is() -> None:
    """While its blocking tasks fill the threads, a mixed queue waits; a queue of async tasks alone does not."""
    app = App()
    gate = Gate()

    @app.task(queue="mixed")
    def block() -> None:
        gate.block()

    @app.task(queue="mixed")
    async def beside() -> int:
        return 1

    @app.task(queue="pure")
    async def pure() -> int:
        return 2

    async with stage(app) as on:
        await on.work(threads=1)
        blocked = await on.submit("block")
        await eventually(lambda: gate.inside == 1, "the thread is taken")
        waiting = await on.submit("beside")
        assert await on.output("pure") == 2
        assert (await on.job(waiting)).state is State.queued
        gate.open()
        assert (await on.ended(waiting)).state is State.succeeded
        assert (await on.ended(blocked)).state is State.succeeded


async def test_jobs_wait_for_no_poll() -> None:
    """A hint wakes the worker, also for many jobs at once, and for a queue that was paused."""
    app = App()

    @app.task
    async def echo(n: int) -> int:
        return n

    async with stage(app) as on:
        await on.work(concurrency=10)
        jobs = [await on.submit("echo", n=n) for n in range(1_000)]
        assert [(await on.ended(job_id)).output for job_id in jobs] == [str(n) for n in range(1_000)]


async def test_work_found_without_a_hint_is_told_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """An idle worker looks now and then all the same; what that finds late says whose hint was lost."""
    app = App()

    @app.task
    async def echo(n: int) -> int:
        return n

    caplog.set_level("INFO", "ropeway.worker")
    async with stage(app) as on:
        worker = await on.work(safety_poll_s=0.02)
        assert (await on.run("echo", n=1)).output == "1"
        await on.submit("echo", n=2, delay_ms=5_000)
        on.clock.advance(s=5)
        with _silence(on.engine):
            await on.engine.promote(10)
        await eventually(lambda: worker.snapshot().outcomes == {"succeeded": 2}, "it is found all the same")
        assert worker.snapshot().safety_finds == 1
    (told,) = [record.getMessage() for record in caplog.records if "no hint" in record.getMessage()]
    assert told == (
        "no hint on queue:default came: job_0002, the first of 1 jobs for worker worker-1, "
        "was found by looking all the same, after 5.0 s"
    )


async def test_work_that_comes_just_as_a_worker_looks_is_no_find() -> None:
    """A look that finds a job of this moment says nothing of hints."""
    app = App()

    @app.task
    async def echo(n: int) -> int:
        return n

    async with stage(app) as on:
        worker = await on.work(safety_poll_s=0.02)
        with _silence(on.engine):
            await on.submit("echo", n=1)
        await eventually(lambda: worker.snapshot().outcomes == {"succeeded": 1}, "it is found")
        assert worker.snapshot().safety_finds == 0


@contextlib.contextmanager
def _silence(engine: Any) -> Iterator[None]:
    """What happens meanwhile is hinted at to nobody."""
    board = engine._store.board
    fire, board.fire = board.fire, lambda topics: None
    try:
        yield
    finally:
        board.fire = fire


async def test_a_worker_serves_the_queues_it_was_told_to() -> None:
    """A job of a known task that comes by one of its queues runs there, with the resources it needs."""
    app = App()
    opened: list[str] = []

    @app.resource
    def model() -> str:
        opened.append("model")
        return "m"

    @app.task(queue="gpu")
    async def infer(model: str) -> str:
        return model

    @app.task(queue="cpu")
    async def plain() -> int:
        return 1

    async with stage(app) as on:
        await on.work(queues=("cpu",))
        waiting = await on.submit("infer")
        assert await on.output("plain") == 1
        assert opened == []
        assert (await on.job(waiting)).state is State.queued


async def test_a_resource_is_opened_when_a_job_comes_by_another_queue() -> None:
    """A worker opens what its queues' tasks need; a job that chose its queue at submit still gets the rest."""
    app = App()

    @app.resource
    def model() -> str:
        return "m"

    @app.task(queue="gpu")
    async def infer(model: str) -> str:
        return model

    @app.task(queue="cpu")
    async def plain() -> int:
        return 1

    elsewhere = App()
    elsewhere.resource(model)

    @elsewhere.task(name="infer", queue="cpu")
    async def infer_on_cpu(model: str) -> str:
        return model

    async with stage(app) as on:
        await on.work(queues=("cpu",))
        on.app = elsewhere
        assert await on.output("infer") == "m"


async def test_the_engine_knows_the_worker_and_its_tasks() -> None:
    """The catalogue and the worker's card are there before the first job."""
    app = App()

    @app.task(queue="chat")
    async def chat(text: str) -> str:
        """Answer."""
        return text

    async with stage(app) as on:
        await on.work(name="alice", concurrency=12)
        (card,) = await on.engine.tasks()
        assert (card.name, card.queue, card.doc) == ("chat", "chat", "Answer.")
        (worker,) = await on.engine.workers()
        assert (worker.name, worker.queues, worker.tasks, worker.slots) == ("alice", ("chat",), ("chat",), 12)
        assert worker.state == "starting" or worker.state == "ready"
        await on.crew.announce()
        assert (await on.engine.workers())[0].state == "ready"


async def test_the_snapshot_counts_what_became_of_the_jobs() -> None:
    """Outcomes by the state that the jobs came to; nothing runs at the end."""
    app = App()

    @app.task(retry=Retry(max_attempts=2, base_s=0))
    async def work(good: bool) -> None:
        if not good:
            raise Fail("no")

    async with stage(app) as on:
        worker = await on.work()
        for good in (True, True, False):
            await on.run("work", good=good)
        await eventually(lambda: not worker.snapshot().committing, "all is committed")
        seen = worker.snapshot()
        assert seen.outcomes == {"succeeded": 2, "failed": 1}
        assert (seen.running, seen.state) == (0, "ready")


async def test_a_worker_runs_once() -> None:
    """Its sessions and threads are gone after; make another."""
    app = App()

    @app.task
    async def work() -> None: ...

    async with stage(app) as on:
        worker = await on.work()
        await worker.stop()
        with pytest.raises(RuntimeError, match="make another"):
            await worker.run()


async def test_a_worker_that_was_told_to_drain_before_it_ran_leaves_at_once() -> None:
    """A signal during start-up is not lost."""
    app = App()

    @app.task
    async def work() -> None: ...

    async with stage(app) as on:
        worker = Worker(app, on.engine)
        worker.drain()
        await worker.run()
        assert worker.snapshot().state == "ended"


async def test_a_task_that_calls_exit_fails_alone() -> None:
    """`sys.exit` in a task is the task's failure, not the worker's end."""
    app = App()

    @app.task(retry=ONCE)
    async def leaves() -> None:
        raise SystemExit(3)

    @app.task(retry=ONCE)
    def leaves_in_thread() -> None:
        raise SystemExit(3)

    async with stage(app) as on:
        await on.work()
        assert (await on.error("leaves")).type == "SystemExit"
        assert (await on.error("leaves_in_thread")).type == "SystemExit"
