"""The blocking client: the same face without a loop, on a thread of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from client_support import GREET, Greeting, Hand

from ropeway.client import Call, SyncClient, call
from ropeway.client.submitter import BATCH_JOBS
from ropeway.domain.errors import EngineUnavailable, InvalidRequest, JobCancelled, JobNotFound, WaitTimeout
from ropeway.domain.lifecycle import State
from ropeway.engines.base import Engine
from ropeway.engines.connect import connect
from ropeway.engines.memory import MemoryEngine


class Blocking:
    """A worker in hand whose steps run on the client's own loop, where its engine lives."""

    def __init__(self, client: SyncClient, engine: Engine) -> None:
        self._client = client
        self._hand = Hand(engine)
        client.queues()  # any call starts the loop and opens the engine there
        self._run(self._hand.announce())

    def succeed_next(self, output: object) -> None:
        async def step() -> None:
            await self._hand.succeed(await self._hand.take(), output)

        self._run(step())

    def _run(self, step: object) -> None:
        self._client._thread.run(step)  # type: ignore[arg-type]


@pytest.fixture(name="client", params=["memory", "sqlite"])
def make_client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SyncClient]:
    engine = connect("memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'jobs.db'}")
    with SyncClient(engine) as client:
        client.hand = Blocking(client, engine)  # type: ignore[attr-defined]
        yield client


def hand(client: SyncClient) -> Blocking:
    found: Blocking = client.hand  # type: ignore[attr-defined]
    return found


def test_a_job_is_submitted_followed_and_fetched_without_a_loop(client: SyncClient) -> None:
    """Submit, events and result, all blocking; the result has the task's own type."""
    job = client.submit(GREET, "Ada")
    hand(client).succeed_next({"text": "hello"})
    assert [event.type for event in job.events()] == ["job.queued", "job.started", "job.succeeded"]
    assert job.result(timeout=10) == Greeting("hello")


def test_what_the_client_raises_is_raised_here(client: SyncClient) -> None:
    """Errors cross the thread as they are."""
    job = client.with_options(delay=60).submit("greet", name="Ada")
    with pytest.raises(WaitTimeout):
        job.result(timeout=0)
    assert job.cancel("no").state is State.cancelled
    with pytest.raises(JobCancelled):
        client.result(job.id)
    client.delete(job.id)
    with pytest.raises(JobNotFound):
        job.get()


def test_many_are_submitted_in_order_from_the_callers_own_thread(client: SyncClient) -> None:
    """The source is read here, not on the client's thread, so it may hold a cursor of the caller's."""
    readers = set()

    def source() -> Iterator[Call[Greeting]]:
        for n in range(BATCH_JOBS + 2):
            readers.add(threading.get_ident())
            yield call(GREET, str(n))

    jobs = list(client.submit_many(source()))
    assert readers == {threading.get_ident()}
    assert [job.id for job in jobs[::-1]][:3] == [body.id for body in client.find(limit=3)]
    assert len(jobs) == BATCH_JOBS + 2


def test_threads_share_one_client(client: SyncClient) -> None:
    """Submits from many threads are all stored."""
    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(lambda n: client.submit(GREET, str(n)).id, range(200)))
    assert len(ids) == 200
    assert {body.id for body in client.find()} == ids


def test_events_left_early_are_let_go(client: SyncClient) -> None:
    """A reader that stops before the end leaves nothing listening behind."""
    job = client.submit(GREET, "Ada")
    for event in job.events():
        assert event.type == "job.queued"
        break
    assert client.get(job.id).state is State.queued


def test_a_client_never_used_starts_no_thread_of_its_own() -> None:
    """A client that was made and never used costs nothing; closing it is fine."""
    before = threading.active_count()
    client = SyncClient(MemoryEngine())
    assert threading.active_count() == before
    client.close()


def test_closing_ends_the_thread() -> None:
    """No thread is left when the client is closed."""
    before = set(threading.enumerate())
    with SyncClient(MemoryEngine()) as client:
        client.queues()
        assert len(set(threading.enumerate()) - before) == 1
    assert set(threading.enumerate()) <= before


def test_whoever_waits_when_the_client_is_closed_is_told() -> None:
    """A call in another thread ends with an error that says so: it does not wait for ever."""
    client = SyncClient(MemoryEngine())
    waits = threading.Event()

    async def wait_for_ever() -> None:
        waits.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client._thread.run, wait_for_ever())
        assert waits.wait(30)
        client.close()
        with pytest.raises(EngineUnavailable, match="closed"):
            waiting.result()


def test_a_closed_client_says_so() -> None:
    """It does not open again behind one's back, nor does a reader that was left open break anything."""
    with SyncClient(MemoryEngine()) as client:
        client.queues()
    with pytest.raises(EngineUnavailable, match="closed"):
        client.queues()


def test_events_left_open_end_with_the_client(client: SyncClient) -> None:
    """The reader finds the client closed at its next step."""
    events = client.submit(GREET, "Ada").events()
    next(events)
    client.close()
    with pytest.raises(EngineUnavailable, match="closed"):
        next(events)


def test_after_a_fork_a_used_client_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread stayed in the parent: waiting for it would be for ever."""
    with SyncClient(MemoryEngine()) as client:
        client.queues()
        with monkeypatch.context() as child:
            child.setattr("ropeway.client.thread.os.getpid", lambda: -1)
            with pytest.raises(InvalidRequest, match="forked"):
                client.queues()


def test_a_url_is_opened_and_let_go(tmp_path: Path) -> None:
    """What one client stored, the next one finds."""
    url = f"sqlite:{tmp_path / 'jobs.db'}"
    with SyncClient(url) as client:
        job = client.submit(GREET, "Ada")
    with SyncClient(url) as client:
        assert client.get(job.id).input == {"name": "Ada", "times": 1}


def test_a_target_that_leads_nowhere_is_refused_at_once() -> None:
    """Not at the first call, far from the mistake."""
    with pytest.raises(InvalidRequest):
        SyncClient("memory:")


async def test_it_works_beside_a_running_loop() -> None:
    """Called off a loop's thread, as a framework's sync handlers are, it needs no loop of its caller."""
    with SyncClient(MemoryEngine()) as client:
        assert await asyncio.to_thread(client.queues) == []


def test_a_program_that_does_not_close_its_client_ends_all_the_same(tmp_path: Path) -> None:
    """A script that just ends, in the middle of a stream even, is not held up."""
    script = (
        "from ropeway.client import SyncClient\n"
        "from ropeway.engines.memory import MemoryEngine\n"
        "from client_support import GREET\n"
        "client = SyncClient(MemoryEngine())\n"
        "events = client.submit(GREET, 'Ada').events()\n"
        "print(next(events).type)\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "job.queued\n", "")
