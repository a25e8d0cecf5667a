"""Engines against the reference: any sequence of calls is answered alike, and leaves the same jobs, logs and counts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from twins import Pair, Twins

from harnesses import SqliteHarness
from redis_harness import RedisHarness, RedisServerHarness
from ropeway.domain.cache import keyed_id
from ropeway.domain.event import START, Cursor
from ropeway.domain.job import CacheKey, JobOptions, JobQuery, NewJob
from ropeway.domain.lease import LeaseRequest, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import Limit, LimitPolicy, LimitSignal
from ropeway.domain.queue import QueueChange
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.domain.webhook import Webhook, delivery_id
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.testing.harness import DurableHarness

QUEUES = ("q", "r")
TENANTS = ("a", "b")
SESSIONS = ("s0", "s1")

HOOK = Webhook("https://hooks.example/", ("job.succeeded",))  # in which order lost jobs end is an engine's own

ONE = Limit("one", max_running=1)
RATE = Limit("rate", per_s=1.0, burst=2.0)

tenants, queues, sessions = st.sampled_from(TENANTS), st.sampled_from(QUEUES), st.sampled_from(SESSIONS)
queue_lists = st.sampled_from((QUEUES, QUEUES[::-1], QUEUES[:1], ("absent", *QUEUES)))
texts = st.sampled_from(('"x"', '{"a": [1, 2.50, null]}', '"ja — 日本 🚠"', '"\\u0000"'))
options = st.builds(
    JobOptions,
    queue_timeout_s=st.sampled_from((None, None, 2.0)),
    retention_s=st.sampled_from((None, 5.0, 86_400.0)),
    failed_retention_s=st.sampled_from((None, 5.0)),
    retry=st.builds(Retry, max_attempts=st.integers(1, 3)),
    max_crashes=st.integers(1, 3),
    max_snoozes=st.integers(0, 2),
    resumable=st.booleans(),
    cost=st.sampled_from((0.5, 1.0, 4.0)),
    limits=st.sampled_from(((), (ONE,), (ONE,), (Limit("two", max_running=2), RATE))),
    tags=st.sampled_from(((), ("x",), ("x", "y"))),
    metadata=st.sampled_from(({}, {"k": "v"})),
    webhook=st.sampled_from((None, None, HOOK)),
)
outcomes = st.builds(
    Outcome,
    kind=st.sampled_from(("succeeded", "failed", "cancelled", "retry", "release", "snooze", "crashed")),
    output=st.none() | texts,
    error=st.sampled_from((None, '{"code":"x","message":"y"}')),
    usage=st.none() | texts | st.sampled_from(('{"tokens":2,"cost":0.5,"model":"m"}', '{"tokens":1}')),
    delay_ms=st.sampled_from((0, 0, 700)),
    detail=st.sampled_from((None, "waits — 日本")),
)
deltas = st.sampled_from(('{"index":0,"delta":"ja — 日本"}', '{"index":1,"delta":{"a": 2.50}}'))
SETTINGS = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,  # no test asserts a duration
    derandomize=True,  # the search for new sequences is the driver's; this one is there to shrink what it finds
    database=None,
)
drafts = st.lists(
    st.tuples(st.sampled_from(("output.delta", "progress", "usage", "log")), texts)
    | st.tuples(st.just("output.delta"), deltas),
    min_size=1,
    max_size=3,
).map(tuple)


class EnginesAgree(RuleBasedStateMachine):
    """The rules are the protocol's calls, over few tenants, queues, sessions and keys."""

    harness: Callable[[], DurableHarness]
    jobs: Bundle[str] = Bundle("jobs")
    leases: Bundle[Pair] = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        self.twins = Twins(type(self).harness())
        self.known: dict[str, str] = {}
        for session in SESSIONS:
            self.twins.ask("announce", WorkerCard(session, session, QUEUES, ttl_ms=5000))

    def teardown(self) -> None:
        if hasattr(self, "twins"):
            self.twins.stop()

    # -- clients

    @rule(
        target=jobs,
        tenant=tenants,
        queue=queues,
        text=texts,
        priority=st.sampled_from(Priority),
        delay_ms=st.sampled_from((0, 0, 500)),
        options=options,
        key=st.sampled_from((None, None, "x", "y")),
        body=st.sampled_from(("1", "2")),
        cache=st.sampled_from((None, None, CacheKey("0" * 8, 60_000), CacheKey("0" * 8, 700), CacheKey("1" * 8, 5000))),
        fresh=st.sampled_from((False, False, False, True)),
    )
    def submit(
        self,
        tenant: str,
        queue: str,
        text: str,
        priority: Priority,
        delay_ms: int,
        options: JobOptions,
        key: str | None,
        body: str,
        cache: CacheKey | None,
        fresh: bool,
    ) -> str:
        job_id = self._new_id(tenant, cache)
        wish = None if cache is None else msgspec.structs.replace(cache, fresh=fresh)
        new = NewJob(job_id, tenant, queue, "t", text, priority, delay_ms, options, key, body, cache=wish)
        self.twins.ask("submit", [new, new])
        return job_id

    @rule(
        tenant=tenants,
        job_id=jobs,
        reason=st.sampled_from((None, "why not")),
        word=st.sampled_from((None, None, "w1", "w2")),
        for_all=st.sampled_from((False, False, False, True)),
    )
    def cancel(self, tenant: str, job_id: str, reason: str | None, word: str | None, for_all: bool) -> None:
        self.twins.ask("cancel", tenant, [job_id, "absent"], reason, word, for_all)

    @rule(tenant=tenants, job_id=jobs, other=jobs)
    def wake(self, tenant: str, job_id: str, other: str) -> None:
        self.twins.ask("wake", tenant, [job_id, "absent", other, job_id])

    @rule(target=jobs, tenant=tenants, job_id=jobs)
    def retry(self, tenant: str, job_id: str) -> str:
        new_id = self._new_id(tenant)
        self.twins.ask("retry", tenant, [(job_id, new_id)])
        return new_id

    @rule(tenant=tenants, job_id=jobs)
    def purge(self, tenant: str, job_id: str) -> None:
        self.twins.ask("purge", tenant, [job_id])

    @rule(
        queue=queues,
        paused=st.booleans(),
        depth=st.sampled_from((1, 3, 1000)),
        own=st.sampled_from((None, 2)),
        weight=st.sampled_from((0.5, 1.0, 2.0)),
    )
    def set_queue(self, queue: str, paused: bool, depth: int, own: int | None, weight: float) -> None:
        weighing = QueueChange(queue, weights={"a": weight})
        self.twins.ask("set_queue", [QueueChange(queue, depth, own, paused=paused), weighing])

    @rule(
        key=st.sampled_from(("one", "rate")), policy=st.sampled_from((None, LimitPolicy(), LimitPolicy(max_running=2)))
    )
    def set_limits(self, key: str, policy: LimitPolicy | None) -> None:
        self.twins.ask("set_limits", {key: policy})

    # -- workers

    @rule(
        limit=st.sampled_from((ONE, RATE)),
        left=st.sampled_from((None, 0.0, 1.0)),
        pause_ms=st.sampled_from((0, 500)),
    )
    def signal(self, limit: Limit, left: float | None, pause_ms: int) -> None:
        self.twins.ask("signal", [LimitSignal(limit, left, pause_ms)])

    @rule(session=sessions, ttl_ms=st.sampled_from((1000, 5000)), state=st.sampled_from(("ready", "draining")))
    def announce(self, session: str, ttl_ms: int, state: str) -> None:
        self.twins.ask("announce", WorkerCard(session, session, QUEUES, ttl_ms=ttl_ms, state=state))

    @rule(session=sessions, ttl_ms=st.sampled_from((1000, 5000)))
    def renew(self, session: str, ttl_ms: int) -> None:
        self.twins.ask("renew", session, ttl_ms)

    @rule(session=sessions)
    def close(self, session: str) -> None:
        self.twins.ask("close", session)

    @rule(target=leases, session=sessions, asked=queue_lists, limit=st.integers(1, 4))
    def lease(self, session: str, asked: tuple[str, ...], limit: int) -> MultipleResults[Pair]:
        return multiple(*self.twins.lease(LeaseRequest(session, f"w-{session}", asked, limit)))

    @rule(pair=leases, offset=st.integers(-1, 3), events=drafts)
    def append(self, pair: Pair, offset: int, events: tuple[tuple[str, str], ...]) -> None:
        self.twins.append(pair, pair.next_seq + offset, events)

    @rule(pair=leases, outcome=outcomes)
    def commit(self, pair: Pair, outcome: Outcome) -> None:
        self.twins.commit([pair], [outcome])

    @rule(pair=consumes(leases), other=leases, first=outcomes, second=outcomes)
    def commit_two(self, pair: Pair, other: Pair, first: Outcome, second: Outcome) -> None:
        self.twins.commit([pair, other, pair], [first, second, first])

    # -- upkeep and time

    @rule(ms=st.sampled_from((1, 500, 1000, 5000, 86_400_000)))
    def pass_time(self, ms: int) -> None:
        self.twins.clock.advance(ms)

    @rule(duty=st.sampled_from(("promote", "rescue", "prune")), limit=st.sampled_from((1, 1000)))
    def do_upkeep(self, duty: str, limit: int) -> None:
        self.twins.ask(duty, 1000 if duty == "rescue" else limit)  # which session is rescued first is an engine's own

    @rule(holder=st.sampled_from(("w1", "w2")))
    def elect(self, holder: str) -> None:
        self.twins.ask("elect", "upkeep", holder, 1000)

    @rule(name=st.sampled_from(("t", "u")), doc=texts)
    def publish(self, name: str, doc: str) -> None:
        self.twins.ask("publish", [TaskCard(name, doc=doc)])

    @rule()
    def crash(self) -> None:
        self.twins.reopen()

    # -- readers

    @rule(tenant=tenants, job_id=jobs, epoch=st.sampled_from((0, 1_700_000_000_000)), seq=st.integers(0, 4))
    def read(self, tenant: str, job_id: str, epoch: int, seq: int) -> None:
        for limit in (1, 2, 1000):
            self.twins.ask("read", tenant, job_id, Cursor(epoch, seq), limit)

    @rule(
        tenant=tenants,
        states=st.sampled_from(((), (State.queued,), (State.failed, State.cancelled))),
        queue=st.none() | queues,
        tag=st.sampled_from((None, "x", "y")),
        limit=st.sampled_from((1, 3, 1000)),
    )
    def find(self, tenant: str, states: tuple[State, ...], queue: str | None, tag: str | None, limit: int) -> None:
        self.twins.ask("find", JobQuery(tenant, states, queue, tag=tag, limit=limit))

    @invariant()
    def all_is_alike(self) -> None:
        """After each step: every row, position, count and worker."""
        if not hasattr(self, "twins"):
            return
        for tenant in TENANTS:
            ids = [job_id for job_id, owner in self.known.items() if owner == tenant]
            self.twins.ask("get", tenant, [*ids, *map(delivery_id, ids)])
            self.twins.ask("usage", tenant, date.min, date.max)
            for job_id in ids[-3:]:
                self.twins.ask("position", tenant, job_id)
                self.twins.ask("read", tenant, job_id, START, 1000)
        self.twins.ask("stats")
        self.twins.ask("stats", TENANTS[0])
        self.twins.ask("limits")
        self.twins.ask("workers")
        self.twins.ask("tasks")

    def _new_id(self, tenant: str, cache: CacheKey | None = None) -> str:
        job_id = f"job_{len(self.known):03}"
        if cache is not None:
            job_id = keyed_id(job_id, cache.key)
        self.known[job_id] = tenant
        return job_id


class SqliteAgrees(EnginesAgree):
    harness = SqliteHarness


class ValkeyAgrees(EnginesAgree):
    harness = RedisHarness


class RedisAgrees(EnginesAgree):
    harness = RedisServerHarness


TestSqliteAgrees = SqliteAgrees.TestCase
TestSqliteAgrees.settings = SETTINGS
TestValkeyAgrees = ValkeyAgrees.TestCase
TestValkeyAgrees.settings = settings(SETTINGS, max_examples=25)
TestRedisAgrees = RedisAgrees.TestCase
TestRedisAgrees.settings = settings(SETTINGS, max_examples=10)
