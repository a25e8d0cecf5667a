"""The thread pool: thousands when code blocks, a handful when it does not, none when there is nothing to do."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from runtime_support import PATIENCE_S, eventually

from ropeway.runtime.inbox import Inbox, Wake
from ropeway.runtime.isolation import (
    AT_ONCE,
    LARGE_STACK_BYTES,
    SAFE_STACK_BYTES,
    ThreadPool,
    default_stack_bytes,
)

LONG_S = 120.0  # thousands of threads on a loaded machine


class Blocker:
    """Calls that block until the test lets them go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.inside = 0
        self._lock = threading.Lock()

    def __call__(self, arg: int) -> int:
        with self._lock:
            self.inside += 1
        assert self.go.wait(LONG_S)
        return arg


@pytest.fixture(name="returned")
def make_returned() -> list[int]:
    return []


def pool_of(limit: int, **options: Any) -> ThreadPool:
    return ThreadPool(Inbox(asyncio.get_running_loop()), limit, **options)


@pytest.mark.slow
async def test_four_thousand_calls_block_at_once(returned: list[int]) -> None:
    """All are truly in flight together, each on a thread of its own; none is lost."""
    pool, block = pool_of(4_000), Blocker()
    for n in range(4_000):
        pool.submit(block, n, lambda arg, result: returned.append(result))
    await eventually(lambda: block.inside == 4_000, "all are inside", LONG_S)
    assert (pool.counts.alive, pool.counts.busy, pool.free) == (4_000, 4_000, 0)
    block.go.set()
    await eventually(lambda: len(returned) == 4_000, "all have returned", LONG_S)
    assert sorted(returned) == list(range(4_000))
    assert (pool.counts.busy, pool.counts.idle, pool.free) == (0, 4_000, 4_000)
    pool.close()
    await eventually(lambda: pool.counts.alive == 0, "the threads have ended", LONG_S)


async def test_the_limit_holds_and_the_rest_waits(returned: list[int]) -> None:
    """Calls beyond the limit run when threads come free, in their order."""
    pool, block = pool_of(10), Blocker()
    for n in range(30):
        pool.submit(block, n, lambda arg, result: returned.append(result))
    await eventually(lambda: block.inside == 10, "the pool is full")
    assert (pool.counts.alive, pool.outstanding) == (10, 30)
    block.go.set()
    await eventually(lambda: len(returned) == 30, "all have returned")
    assert pool.counts.peak == 10
    pool.close()


async def test_a_flood_of_quick_calls_needs_few_threads(returned: list[int]) -> None:
    """Threads are started for calls that block, not for many calls."""
    pool = pool_of(1_000)
    for n in range(5_000):
        pool.submit(int, n, lambda arg, result: returned.append(result))
    await eventually(lambda: len(returned) == 5_000, "all have returned")
    assert pool.counts.peak <= 16 * AT_ONCE
    pool.close()


async def test_idle_threads_end_and_come_back(returned: list[int]) -> None:
    """After a while without work there is no thread left; the next call starts one."""
    pool, block = pool_of(50, idle_s=0.05), Blocker()
    block.go.set()
    for n in range(50):
        pool.submit(block, n, lambda arg, result: returned.append(result))
    await eventually(lambda: len(returned) == 50 and pool.counts.alive == 0, "all have ended")
    pool.submit(block, 7, lambda arg, result: returned.append(result))
    await eventually(lambda: len(returned) == 51, "it runs")
    pool.close()


async def test_no_call_is_lost_while_threads_give_up(returned: list[int]) -> None:
    """Calls that come just as a thread ends are still run: many times, at the very edge."""
    pool = pool_of(3, idle_s=0.0)
    for n in range(500):
        pool.submit(int, n, lambda arg, result: returned.append(result))
        if n % 3 == 0:
            await asyncio.sleep(0)
    await eventually(lambda: len(returned) == 500, "all have returned")
    assert pool.outstanding == 0
    pool.close()


async def test_closing_lets_busy_threads_finish_their_call(returned: list[int]) -> None:
    """And ends them after it."""
    pool, block = pool_of(4), Blocker()
    for n in range(4):
        pool.submit(block, n, lambda arg, result: returned.append(result))
    await eventually(lambda: block.inside == 4, "all are inside")
    pool.close()
    block.go.set()
    await eventually(lambda: len(returned) == 4 and pool.counts.alive == 0, "all have ended")


async def test_the_process_s_own_stack_size_is_left_alone(returned: list[int]) -> None:
    """Ours is set just around each start: other libraries' threads get what they would have."""
    before = threading.stack_size()
    sizes: list[int] = []
    pool = pool_of(2)
    pool.submit(lambda arg: sizes.append(threading.stack_size()), None, lambda arg, result: returned.append(1))
    await eventually(lambda: bool(returned), "it has run")
    assert (threading.stack_size(), before) == (before, 0)
    pool.close()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("always [madvise] never", LARGE_STACK_BYTES),
        ("[always] madvise never", SAFE_STACK_BYTES),
        (None, LARGE_STACK_BYTES),
    ],
)
def test_a_stack_is_as_large_as_costs_nothing(mode: str | None, expected: int, tmp_path: Path) -> None:
    """A system that gives huge pages to everyone could make 2 MiB of memory of every stack of that size."""
    setting = tmp_path / "enabled"
    if mode is not None:
        setting.write_text(mode)
    assert default_stack_bytes(setting) == expected
    assert SAFE_STACK_BYTES < 2 * 1024**2 < LARGE_STACK_BYTES


@pytest.mark.skipif(
    sys.version_info >= (3, 12) and default_stack_bytes() == SAFE_STACK_BYTES, reason="huge pages for everyone"
)
async def test_runaway_recursion_raises_instead_of_killing_the_process(returned: list[int]) -> None:
    """The stack is large enough for Python's own limit, also through C: the job fails, the worker lives."""
    results: list[Any] = []

    def deep(n: int) -> int:
        return sorted([n], key=lambda value: deep(value + 1))[0]

    def catch(_arg: None) -> str:
        try:
            deep(0)
        except RecursionError:
            return "RecursionError"
        return "no error"

    pool = pool_of(1)
    pool.submit(catch, None, lambda arg, result: results.append(result))
    await eventually(lambda: bool(results), "it has run")
    assert results == ["RecursionError"]
    pool.close()


async def test_a_system_that_grants_no_more_threads_is_lived_with(
    returned: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit falls to what there is, told once, and the work goes on with that."""
    granted = 2

    class Scarce(threading.Thread):
        started_ones = 0

        def start(self) -> None:
            if Scarce.started_ones >= granted and self.name != "ropeway-threads":
                raise RuntimeError("can't start new thread")
            Scarce.started_ones += self.name != "ropeway-threads"
            super().start()

    monkeypatch.setattr(threading, "Thread", Scarce)
    pool, block = pool_of(10), Blocker()
    for n in range(6):
        pool.submit(block, n, lambda arg, result: returned.append(result))
    await eventually(lambda: block.inside == granted, "those granted are busy")
    assert pool.limit == granted
    assert "grants no more than 2 threads, not the 10 asked for" in caplog.text
    block.go.set()
    await eventually(lambda: len(returned) == 6, "all have returned")
    pool.close()


async def test_the_inbox_keeps_the_order_and_outlives_a_failing_call(caplog: pytest.LogCaptureFixture) -> None:
    """Calls from a thread are made in the loop in their order; one that fails is logged, and the rest are made."""
    inbox, seen = Inbox(asyncio.get_running_loop()), list[int]()

    def fail(_n: int) -> None:
        raise ValueError("bad call")

    def post() -> None:
        assert not inbox.here
        for n in range(1_000):
            inbox.post(fail if n == 500 else seen.append, n)

    await asyncio.to_thread(post)
    await eventually(lambda: len(seen) == 999, "all were made")
    assert seen == [n for n in range(1_000) if n != 500]
    assert "bad call" in caplog.text
    assert inbox.here


async def test_a_wake_is_kept_until_somebody_waits() -> None:
    """Raised before or during the wait, once for many times."""
    wake = Wake()
    wake.set()
    wake.set()
    await wake.wait()
    waiter = asyncio.ensure_future(wake.wait())
    await asyncio.sleep(0)
    assert not waiter.done()
    wake.set()
    await asyncio.wait_for(waiter, PATIENCE_S)


async def test_the_switch_interval_grows_with_the_threads_and_shrinks_again(returned: list[int]) -> None:
    """A thousand threads that ask for the interpreter every half millisecond would leave no CPU for their work."""
    before_s = sys.getswitchinterval()
    try:
        sys.setswitchinterval(0.0005)
        pool, block = pool_of(400, idle_s=0.05), Blocker()
        for n in range(400):
            pool.submit(block, n, lambda _, result: returned.append(result))
        await eventually(lambda: pool.counts.alive == 400, "all threads are there")
        assert sys.getswitchinterval() == pytest.approx(0.002, rel=0.01)
        block.go.set()
        await eventually(lambda: pool.counts.alive == 0, "all threads have ended")
        assert sys.getswitchinterval() == pytest.approx(0.0005, rel=0.01)
        assert sorted(returned) == list(range(400))
        pool.close()
    finally:
        sys.setswitchinterval(before_s)
