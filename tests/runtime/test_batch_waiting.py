"""The bookkeeping of batches: who shares a call, when a batch is full, whom a failing call fails for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import pytest

from ropeway.domain.errors import RetryAfter
from ropeway.runtime.batching.bet import Bet
from ropeway.runtime.batching.parts import CALLS_PER_HALVING, Parts
from ropeway.runtime.batching.waiting import Closing, Waiting


@dataclass(eq=False)
class Job:
    number: int
    key: Hashable = None
    cost: float = 1.0


def waiting(*jobs: Job, max_size: int = 4, max_cost: float | None = None) -> Waiting[Job]:
    made: Waiting[Job] = Waiting(max_size, max_cost)
    for job in jobs:
        made.add(job)
    return made


def test_the_oldest_of_a_key_go_first_and_no_more_than_fit() -> None:
    """A call takes up to `max_size`; the rest stay, in their order."""
    line = waiting(*(Job(n) for n in range(6)))
    (group,) = line.groups
    assert line.full(group) is Closing.size
    assert [job.number for job in line.take(group)] == [0, 1, 2, 3]
    assert line.full(group) is None
    assert [job.number for job in line.take(group)] == [4, 5]


def test_jobs_of_different_keys_never_mix_and_no_key_is_kept() -> None:
    """A group ends with its last job: ten thousand keys leave nothing behind."""
    line = waiting(*(Job(n, key=n % 3) for n in range(9)), max_size=10)
    assert [[job.number for job in line.take(group)] for group in list(line.groups)] == [
        [0, 3, 6],
        [1, 4, 7],
        [2, 5, 8],
    ]
    assert (len(line), list(line.groups)) == (0, [])


def test_a_batch_is_full_by_its_cost_and_never_above_it() -> None:
    """The job that would exceed it waits for the next call; one that exceeds it by itself goes alone."""
    line = waiting(*(Job(n, cost=cost) for n, cost in enumerate((4, 4, 4, 50))), max_cost=10, max_size=9)
    (group,) = line.groups
    assert line.full(group) is Closing.cost
    assert [[job.number for job in line.take(group)] for _ in range(3)] == [[0, 1], [2], [3]]


def test_who_leaves_takes_his_cost_along() -> None:
    """A cancelled job neither fills the batch nor keeps its key."""
    first, second = Job(0, cost=0.1), Job(1, cost=9.9)
    line = waiting(first, second, max_cost=10)
    (group,) = line.groups
    line.remove(second)
    assert (line.full(group), group.cost, len(line)) == (None, 0.1, 1)
    line.remove(first)
    assert list(line.groups) == []


def run_parts(
    parts: Parts[int], fails: Callable[[list[int]], bool], error: BaseException | None = None
) -> tuple[list[list[int]], list[int]]:
    """Make all calls; those that were made, and who failed."""
    calls, failed = [], []
    while part := parts.take():
        calls.append(part)
        if fails(part):
            failed += parts.failed(part, error or ValueError("bad"), part)
    return calls, failed


@pytest.mark.parametrize("culprit", [0, 5, 63])
def test_one_culprit_is_found_by_halving(culprit: int) -> None:
    """Two calls at each of log2(n) halvings, and everybody else is served."""
    calls, failed = run_parts(Parts(list(range(64)), lambda _: True, split=True), lambda part: culprit in part)
    assert failed == [culprit]
    assert len(calls) == 1 + 2 * 6


def test_a_failure_of_everybody_is_not_chased_for_ever() -> None:
    """A model that is broken is called a bounded number of times; all of its jobs fail."""
    calls, failed = run_parts(Parts(list(range(64)), lambda _: True, split=True), lambda _: True)
    assert sorted(failed) == list(range(64))
    assert len(calls) <= 1 + CALLS_PER_HALVING * 6


@pytest.mark.parametrize("error", [RetryAfter(5), asyncio.CancelledError(), KeyboardInterrupt()])
def test_what_is_true_of_the_whole_call_is_not_tried_in_halves(error: BaseException) -> None:
    """A provider that says 'later' says it for all; a cancelled call is not made again."""
    calls, failed = run_parts(Parts([1, 2, 3, 4], lambda _: True, split=True), lambda _: True, error)
    assert (len(calls), failed) == (1, [1, 2, 3, 4])


def test_code_that_must_not_be_repeated_is_not() -> None:
    """`split=False`: all jobs of a failing call fail."""
    calls, failed = run_parts(Parts([1, 2, 3, 4], lambda _: True, split=False), lambda _: True)
    assert (len(calls), failed) == (1, [1, 2, 3, 4])


def test_who_is_not_wanted_any_more_is_left_out_of_the_next_half() -> None:
    """A job cancelled while halves are run is not called again."""
    wanted = {1, 2, 3, 4}
    parts = Parts([1, 2, 3, 4], wanted.__contains__, split=True)
    part = parts.take()
    parts.failed(part, ValueError(), part)
    wanted -= {1, 2}
    assert parts.take() == [3, 4]
    assert parts.take() == []


def test_the_bet_on_more_company_follows_the_last_one() -> None:
    """A batch that left somebody behind makes the next ones wait; a wait in vain ends that."""
    bet, call = Bet(), object()
    assert not bet.waits
    bet.went_early(call, "key", until_s=10.0)
    bet.came("other", 9.0)
    bet.came("key", 10.0)
    assert not bet.waits
    bet.came("key", 9.0)
    assert bet.waits
    bet.waited_in_vain()
    assert not bet.waits


def test_who_comes_after_the_call_is_no_company_missed() -> None:
    """A client that awaits its result before it submits again could not have been in that batch."""
    bet, call = Bet(), object()
    bet.went_early(call, None, until_s=10.0)
    bet.ended(call)
    bet.came(None, 1.0)
    assert not bet.waits
