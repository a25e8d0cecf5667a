"""The board of hints within a process: who listens, who is woken, and what is left when they have gone."""

from __future__ import annotations

import asyncio

from ropeway.engines.hints import Board


async def test_a_hint_wakes_all_who_listen() -> None:
    """Every listener on a topic is woken, and nobody else."""
    board = Board()
    first, second, other = board.listen("a"), board.listen("a", "b"), board.listen("c")
    board.fire(["a", "nobody"])
    assert await first.wait(0) == {"a"}
    assert await second.wait(0) == {"a"}
    assert await other.wait(0) == set()


async def test_a_waiting_task_is_woken_once_for_several_hints() -> None:
    """Hints that come together end one wait, and are told together."""
    board = Board()
    listener = board.listen("a", "b")
    waiting = asyncio.create_task(listener.wait())
    await asyncio.sleep(0)
    board.fire(["a"])
    board.fire(["b", "a"])
    assert await waiting == {"a", "b"}
    assert await listener.wait(0) == set()


async def test_a_cancelled_wait_keeps_what_comes_after() -> None:
    """A wait that was given up loses no hint: the next one tells it."""
    board = Board()
    listener = board.listen("a")
    waiting = asyncio.create_task(listener.wait(60))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    board.fire(["a"])
    assert await listener.wait(0) == {"a"}


async def test_who_left_leaves_nothing() -> None:
    """A topic is heard until its last listener has left; leaving twice, or without waiting, is no fault."""
    board = Board()
    first, second = board.listen("a"), board.listen("a")
    assert board.topics() == ("a",)
    first.close()
    first.close()
    assert board.hears("a")
    second.close()
    second.close()
    assert not board.hears("a")
    assert board.topics() == ()


async def test_a_wake_after_the_timeout_is_no_fault() -> None:
    """A hint that meets a wait which is just over is kept for the next."""
    board = Board()
    listener = board.listen("a")
    loop = asyncio.get_running_loop()
    waiting = asyncio.create_task(listener.wait(60))
    await asyncio.sleep(0)
    loop.call_soon(board.fire, ["a"])
    loop.call_soon(listener.close)
    assert await waiting == {"a"}
