"""The same random operations on the memory engine and the SQLite engine, on one clock: every answer must be equal."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec

from ropeway.domain.errors import RopewayError
from ropeway.domain.event import LOG, OUTPUT_DELTA, PROGRESS, START, USAGE, Cursor
from ropeway.domain.job import JobOptions, JobQuery, NewJob
from ropeway.domain.lease import Append, Assignment, Commit, LeaseRequest, Outcome, Renewal
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import Limit, LimitPolicy, LimitSignal
from ropeway.domain.queue import QueueChange
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.base import Engine
from ropeway.testing.clock import ManualClock

__all__ = ["TENANTS", "Oracle"]

TENANTS = ("acme", "zeta")
_QUEUES = ("chat", "gpu")
_SESSIONS = ("s1", "s2")
_KEYS = ("gpt", "gpu", "user")
_DRAFT_TYPES = (OUTPUT_DELTA, PROGRESS, USAGE, LOG)


class Oracle:
    """Draws operations from a seed, does each on both engines, and compares what comes back and what is then there."""

    def __init__(self, seed: int, truth: Engine, subject: Engine, clock: ManualClock) -> None:
        self._random = random.Random(seed)
        self._truth = truth
        self._subject = subject
        self._clock = clock
        self._ids: list[str] = []
        self._held: list[Assignment] = []
        self._seqs: dict[str, int] = {}

    async def play(self, steps: int) -> None:
        """So many operations, one after another."""
        for session in _SESSIONS:
            await self._announce(session)
        operations = [
            *[self._submit] * 5,
            *[self._lease] * 4,
            *[self._commit] * 5,
            *[self._append] * 4,
            *[self._pass_time] * 3,
            *[self._read] * 2,
            self._cancel,
            self._wake,
            self._retry,
            self._purge,
            self._set_queue,
            *[self._upkeep] * 2,
            self._limit,
            self._session,
            self._ask,
        ]
        for _ in range(steps):
            await self._random.choice(operations)()
        await self._compare_everything()

    # -- the operations

    async def _submit(self) -> None:
        jobs = [self._new() for _ in range(self._random.choice((1, 1, 3, 12)))]
        self._ids += [job.id for job in jobs]
        await self._both("submit", jobs)

    def _new(self) -> NewJob:
        pick = self._random
        known = self._ids and pick.random() < 0.1
        key = pick.choice((None, None, None, "k1", "k2", "k3"))
        return NewJob(
            id=pick.choice(self._ids) if known else f"job_{len(self._ids)}_{pick.getrandbits(32):x}",
            tenant=pick.choice(TENANTS),
            queue=pick.choice(_QUEUES),
            task=pick.choice(("echo", "sum")),
            input=pick.choice(('{"n":1}', '{"text":"é\\u0000\\n\\"x\\""}', f'"{"x" * 20_000}"')),
            priority=pick.choice(tuple(Priority)),
            delay_ms=pick.choice((0, 0, 0, 500, 3000)),
            options=self._options(),
            idempotency_key=key,
            fingerprint=pick.choice(("f", "g")) if key else "",
        )

    def _options(self) -> JobOptions:
        pick = self._random
        return JobOptions(
            queue_timeout_s=pick.choice((None, None, 2.0)),
            retention_s=pick.choice((86_400.0, 5.0, None)),
            failed_retention_s=pick.choice((None, 5.0)),
            retry=Retry(max_attempts=pick.choice((1, 2, 3))),
            max_crashes=pick.choice((1, 2)),
            cost=pick.choice((1.0, 0.1, 7.25)),
            cost_measure=pick.choice((None, None, "tokens")),
            limits=self._limits(),
            tags=pick.choice(((), ("a",), ("a", "b"))),
            metadata=pick.choice(({}, {"k": "v"})),
        )

    def _limits(self) -> tuple[Limit, ...]:
        keys = self._random.sample(_KEYS, self._random.choice((0, 0, 0, 1, 1, 2)))
        return tuple(self._a_limit(key) for key in keys)

    def _a_limit(self, key: str) -> Limit:
        pick = self._random
        per_s, burst = pick.choice(((None, None), (None, None), (0.5, 4.0), (2.0, 6.0)))
        return Limit(
            key,
            max_running=pick.choice((None, 1, 2, 3)),
            per_s=per_s,
            burst=burst,
            amount=pick.choice((1.0, 1.0, 2.5, 9.0)),
            measure=pick.choice((None, "tokens")),
        )

    async def _limit(self) -> None:
        pick = self._random
        key = pick.choice(_KEYS)
        if pick.random() < 0.4:
            policy = pick.choice((None, None, LimitPolicy(), LimitPolicy(2), LimitPolicy(None, 1.0, 3.0)))
            await self._both("set_limits", {key: policy, pick.choice(_KEYS): None})
            return
        signal = LimitSignal(self._a_limit(key), pick.choice((None, 0.0, 1.5)), pick.choice((0, 0, 700)))
        await self._both("signal", [signal] * pick.choice((1, 2)))

    async def _lease(self) -> None:
        queues = tuple(self._random.sample(_QUEUES, self._random.choice((1, 2))))
        request = LeaseRequest(
            self._random.choice((*_SESSIONS, "nobody")), "w", queues, self._random.choice((1, 3, 10))
        )
        leased = await self._both("lease", request)
        for assignment in leased:
            self._seqs[assignment.lease.token] = assignment.next_seq
        self._held = [*self._held, *leased][-30:]

    async def _append(self) -> None:
        batch = [self._an_append(held) for held in self._some_held()]
        await self._both("append", batch)

    def _an_append(self, held: Assignment) -> Append:
        pick = self._random
        seq = self._seqs[held.lease.token]
        drafts = tuple(
            (pick.choice(_DRAFT_TYPES), f'{{"n":{pick.randrange(3)}}}') for _ in range(pick.choice((0, 1, 2, 5)))
        )
        if pick.random() < 0.8:
            self._seqs[held.lease.token] += len(drafts)
            return Append(held.lease, seq, drafts)
        return Append(held.lease, max(0, seq + pick.choice((-3, -1, 1))), drafts)

    async def _commit(self) -> None:
        batch = [Commit(held.lease, self._outcome()) for held in self._some_held()]
        await self._both("commit", batch)

    def _outcome(self) -> Outcome:
        pick = self._random
        return Outcome(
            pick.choice(("succeeded", "succeeded", "failed", "cancelled", "retry", "release", "snooze", "crashed")),
            output=pick.choice((None, '{"answer":42}')),
            error=pick.choice((None, '{"code":"task_error","message":"no"}')),
            usage=pick.choice((None, '{"tokens":3}', '{"input_tokens":2,"output_tokens":1}', '{"total_tokens":12}')),
            delay_ms=pick.choice((0, 700)),
        )

    def _some_held(self) -> list[Assignment]:
        if not self._held:
            return []
        recent = self._held[-4:] if self._random.random() < 0.7 else self._held
        return [self._random.choice(recent) for _ in range(self._random.choice((1, 1, 4, 9)))]

    async def _pass_time(self) -> None:
        self._clock.advance(self._random.choice((0, 0, 1, 1, 400, 400, 2500, 9000)))

    async def _cancel(self) -> None:
        tenant, ids = self._random.choice(TENANTS), self._some_ids()
        await self._both("cancel", tenant, ids, "why\x00not")

    async def _wake(self) -> None:
        await self._both("wake", self._random.choice(TENANTS), self._some_ids())

    async def _retry(self) -> None:
        tenant = self._random.choice(TENANTS)
        wishes = [(job_id, f"job_{len(self._ids)}_{self._random.getrandbits(32):x}") for job_id in self._some_ids()]
        if self._random.random() < 0.3:
            wishes += [(new_id, f"{new_id}x") for _, new_id in wishes]
        self._ids += [new_id for _, new_id in wishes]
        await self._both("retry", tenant, wishes)

    async def _purge(self) -> None:
        tenant, ids = self._random.choice(TENANTS), self._some_ids()
        await self._both("purge", tenant, ids)

    def _some_ids(self) -> list[str]:
        return [self._random.choice([*self._ids, "nothing"]) for _ in range(self._random.choice((1, 2, 6)))]

    async def _set_queue(self) -> None:
        pick = self._random
        change = QueueChange(
            pick.choice(_QUEUES),
            max_depth=pick.choice((3, 20, 1000)),
            max_depth_per_tenant=pick.choice((None, 2, 10)),
            weights=pick.choice(({}, {"acme": 3.0})),
            paused=pick.random() < 0.1,
            max_running=pick.choice((None, None, None, 2)),
        )
        await self._both("set_queue", [change, msgspec.structs.replace(change, max_depth=30)])

    async def _upkeep(self) -> None:
        limit = self._random.choice((1000, 1000, 2))
        # Which of the jobs due at one time go first is not promised: promote and prune take them all.
        await self._both(*self._random.choice((("promote", 1000), ("rescue", limit), ("prune", 1000))))
        holder = self._random.choice(("a", "b"))
        await self._both("elect", "upkeep", holder, 1000)

    async def _session(self) -> None:
        session = self._random.choice(_SESSIONS)
        kind = self._random.choice(("announce", "renew", "close", "publish"))
        if kind == "announce":
            await self._announce(session)
        elif kind == "renew":
            await self._both("renew", session, 6000)
        elif kind == "close":
            await self._both("close", session)
        else:
            card = TaskCard(self._random.choice(("echo", "sum")), doc=str(self._random.random()))
            await self._both("publish", [card])

    async def _announce(self, session: str) -> None:
        card = WorkerCard(session, f"worker-{session}", _QUEUES, ttl_ms=6000)
        await self._both("announce", card)

    async def _read(self) -> None:
        tenant = self._random.choice(TENANTS)
        cursor = self._random.choice((START, Cursor(0, 1), Cursor(self._clock.now_ms() - 300, 2), Cursor(2**70, 1)))
        limit = self._random.choice((1, 2, 5, 100))
        for job_id in self._some_ids():
            page = await self._both("read", tenant, job_id, cursor, limit)
            if page and page.events:
                after = self._random.choice(page.events).cursor
                await self._both("read", tenant, job_id, after, limit)

    async def _ask(self) -> None:
        pick = self._random
        query = JobQuery(
            pick.choice(TENANTS),
            tuple(pick.sample(tuple(State), pick.choice((0, 0, 1, 2, 5)))),
            pick.choice((None, "chat")),
            pick.choice((None, "echo")),
            pick.choice((None, "a", "b")),
            pick.choice((1, 3, 100)),
        )
        page = await self._both("find", query)
        if page.next_cursor is not None:
            onward = msgspec.structs.replace(query, before=page.next_cursor)
            await self._both("find", onward)
        for job_id in self._some_ids():
            limit = pick.choice((0, 3, 10_000))
            await self._both("position", query.tenant, job_id, limit)
        await self._both("limits")

    # -- comparing

    async def _compare_everything(self) -> None:
        for tenant in TENANTS:
            await self._both("get", tenant, self._ids)
            await self._both("find", JobQuery(tenant, limit=10_000))
            for job_id in set(self._ids):
                await self._both("read", tenant, job_id, START, 10_000)
                await self._both("position", tenant, job_id)
            await self._both("stats", tenant)
        await self._both("stats")
        await self._both("limits")
        await self._both("tasks")
        await self._both("workers")

    async def _both(self, method: str, *args: object, **kwargs: object) -> Any:
        """Call both; the answer, which is the same."""
        expected, actual = await asyncio.gather(
            _answer(self._truth, method, args, kwargs), _answer(self._subject, method, args, kwargs)
        )
        assert actual == expected, f"{method}{args}: {actual!r}, not {expected!r}"
        return expected


async def _answer(engine: Engine, method: str, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    try:
        return _plain(await getattr(engine, method)(*args, **kwargs))
    except RopewayError as error:
        return _plain(error)


def _plain(answer: object) -> object:
    """An answer that compares by what it says: errors are equal when their kind and words are."""
    if isinstance(answer, RopewayError):
        return type(answer).__name__, answer.detail
    if isinstance(answer, Renewal):
        return answer.alive, sorted(answer.cancelled)
    return [_plain(item) for item in answer] if isinstance(answer, list) else answer
