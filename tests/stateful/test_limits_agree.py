"""Engines against the memory engine in seeded histories of limits, priorities and what jobs turn out to cost.

After each step both tell the same of every job, queue and limit: who is parked under what, who was called, and what
is left.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from twins import Pair, Twins

from harnesses import SqliteHarness
from redis_harness import RedisHarness
from ropeway.domain.job import JobOptions, NewJob
from ropeway.domain.lease import LeaseRequest, Outcome
from ropeway.domain.limit import Limit, LimitPolicy, LimitSignal, LimitState
from ropeway.domain.queue import QueueChange
from ropeway.domain.rank import Priority
from ropeway.domain.worker import WorkerCard
from ropeway.testing.harness import DurableHarness

SEEDS, STEPS = 6, 50
QUEUES, TENANTS = ("q1", "q2"), ("x", "y")
LIMITS = (
    Limit("one", max_running=1),
    Limit("few", max_running=3),
    Limit("rate", per_s=2.0, burst=4.0),
    Limit("both", max_running=2, per_s=1.1, burst=3.0),
    Limit("tokens", per_s=7.3, burst=50.0, amount=20.0, measure="tokens"),
    Limit("tokens", per_s=7.3, burst=50.0, amount=70.5, measure="tokens"),
)
POLICIES = (None, LimitPolicy(max_running=2), LimitPolicy(), LimitPolicy(per_s=3.3, burst=5.0))
USAGE = (None, '{"input_tokens":12,"output_tokens":3}', '{"total_tokens":90}')
KINDS = ("succeeded", "failed", "retry", "release", "snooze", "crashed")


class History:
    """Two engines, and what their one worker holds."""

    def __init__(self, seed: int, harness: DurableHarness) -> None:
        self.twins = Twins(harness)
        self._rng = random.Random(f"limits/{seed}")
        self._held: list[Pair] = []
        self._ids: list[str] = []
        self.announce()

    def step(self) -> None:
        steps: tuple[Callable[[], None], ...] = (
            self.submit,
            self.submit,
            self.lease,
            self.lease,
            self.commit,
            self.commit,
            self.commit,
            self.cancel,
            self.wake,
            self.pass_time,
            self.signal,
            self.set_limit,
            self.set_queue,
            self.close,
        )
        self._rng.choice(steps)()
        self.look()

    def announce(self) -> None:
        self.twins.ask("announce", WorkerCard("s", "w", QUEUES, ttl_ms=10**9))

    def submit(self) -> None:
        limits = {limit.key: limit for limit in self._rng.sample(LIMITS, self._rng.choice((0, 0, 1, 1, 2)))}
        options = JobOptions(
            limits=tuple(limits.values()),
            cost=self._rng.choice((1.0, 1.0, 10.0)),
            cost_measure=self._rng.choice((None, "tokens")),
            queue_timeout_s=self._rng.choice((None, None, None, 2.0)),
        )
        jobs = [self._new(options) for _ in range(self._rng.choice((1, 2, 5, 30)))]
        self.twins.ask("submit", jobs)

    def _new(self, options: JobOptions) -> NewJob:
        self._ids.append(f"j{len(self._ids)}")
        tenant, queue = self._rng.choice(TENANTS), self._rng.choice(QUEUES)
        priority, delay_ms = self._rng.choice(list(Priority)), self._rng.choice((0, 0, 0, 500))
        return NewJob(self._ids[-1], tenant, queue, "echo", "{}", priority, delay_ms, options)

    def lease(self) -> None:
        queues = tuple(self._rng.sample(QUEUES, 2))
        self._held += self.twins.lease(LeaseRequest("s", "w", queues, self._rng.choice((1, 1, 2, 7, 40))))

    def commit(self) -> None:
        if self._held:
            held = self._held.pop(self._rng.randrange(len(self._held)))
            outcome = Outcome(
                self._rng.choice(KINDS), usage=self._rng.choice(USAGE), delay_ms=self._rng.choice((0, 0, 5000))
            )
            self.twins.commit([held], [outcome])

    def cancel(self) -> None:
        if self._ids:
            self.twins.ask("cancel", self._rng.choice(TENANTS), [self._rng.choice(self._ids)], None)

    def wake(self) -> None:
        if self._ids:
            self.twins.ask("wake", self._rng.choice(TENANTS), self._rng.sample(self._ids, min(3, len(self._ids))))

    def pass_time(self) -> None:
        self.twins.clock.advance(self._rng.choice((0, 1, 100, 499, 1000, 2500)))
        self.twins.ask("promote", 10_000)

    def signal(self) -> None:
        left, pause_ms = self._rng.choice((None, 0.0, 1.0, 3.5)), self._rng.choice((0, 0, 700))
        self.twins.ask("signal", [LimitSignal(self._rng.choice(LIMITS), left, pause_ms)])

    def set_limit(self) -> None:
        self.twins.ask("set_limits", {self._rng.choice(LIMITS).key: self._rng.choice(POLICIES)}, form=self._told)

    def set_queue(self) -> None:
        change = QueueChange(
            self._rng.choice(QUEUES), max_running=self._rng.choice((None, 3, 8)), paused=self._rng.random() < 0.1
        )
        self.twins.ask("set_queue", [change])

    def close(self) -> None:
        """Now and then the worker goes, and all it holds is rescued."""
        if self._rng.random() < 0.3:
            self.twins.ask("close", "s")
            self._held.clear()
            self.announce()

    def look(self) -> None:
        for tenant in TENANTS:
            self.twins.ask("get", tenant, self._ids)
            if self._ids:
                self.twins.ask("position", tenant, self._rng.choice(self._ids))
        self.twins.ask("stats")
        self.twins.ask("limits", form=self._told)

    def _told(self, states: list[LimitState]) -> list[LimitState]:
        """Without what is over: a pause of the past may be remembered, and a key of which nothing is left."""
        now = self.twins.clock.now_ms()
        known = [
            state if state.paused_until_ms > now else msgspec.structs.replace(state, paused_until_ms=0)
            for state in states
        ]
        return [state for state in known if state != LimitState(state.key)]

    def end(self) -> None:
        """Let everything run: nobody is left behind."""
        self.twins.ask("set_queue", [QueueChange(queue, paused=False) for queue in QUEUES])
        for _ in range(300):
            self._held += self.twins.lease(LeaseRequest("s", "w", QUEUES, 50))
            while self._held:
                self.twins.commit([self._held.pop()], [Outcome("succeeded")])
            if not self._waiting():
                break
            self.twins.clock.advance(20_000)
            self.twins.ask("promote", 10_000)
        assert self._waiting() == 0

    def _waiting(self) -> int:
        jobs = [job for tenant in TENANTS for job in self.twins.ask("get", tenant, self._ids)]
        return sum(job is not None and not job.state.terminal for job in jobs)


@pytest.mark.parametrize("engine", [SqliteHarness, RedisHarness], ids=["sqlite", "valkey"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_engines_agree_on_limits(engine: Callable[[], DurableHarness], seed: int) -> None:
    """The engine parks, calls and starts the very jobs that the memory engine does, and at the end none waits."""
    history = History(seed, engine())
    try:
        for _ in range(STEPS):
            history.step()
        history.end()
    finally:
        history.twins.stop()
