"""What the driver's clients and workers know while a history runs; the rules draw their next calls from it."""

from __future__ import annotations

import itertools
import random

from ropeway.domain.cache import keyed_id
from ropeway.domain.event import SNAPSHOT, START, Cursor
from ropeway.domain.lease import Appended, Assignment
from ropeway.testing.clock import ManualClock
from ropeway.testing.history.record import TENANTS, Call, Look, Op, Step

__all__ = ["QUEUES", "REPEATABLE", "SESSIONS", "YEAR_MS", "World"]

QUEUES = ("q", "r")
SESSIONS = ("s0", "s1", "s2")
YEAR_MS = 366 * 86_400_000  # longer than any history: what sleeps so long must be woken
REPEATABLE = frozenset({"submit", "retry", "append", "commit", "cancel", "wake"})


class World:
    """Small key spaces, so that things collide: two tenants, two queues, three sessions, few keys.

    `limited`: limits are in play, as in three histories of eight. `wakeful`: jobs sleep, some for a year, and are
    woken, as in six histories of sixteen; no seed that was kept before there were wakings is one of those.
    """

    def __init__(self, seed: int) -> None:
        self.limited = 4 <= seed % 8 <= 6
        self.wakeful = seed % 16 >= 10
        self.rng = random.Random(seed)  # noqa: S311 (a history is to be repeatable)
        self.clock = ManualClock()
        self.look = Look(self.clock.now_ms(), {})
        self.owners: dict[str, str] = {}
        self.gone: set[str] = set()
        self.grants: list[Assignment] = []
        self.next_seq: dict[str, int] = {}
        self.cursors: dict[str, list[Cursor]] = {}
        self.made: list[Call] = []
        self.live: list[str] = []
        self._numbers = itertools.count(1)

    def number(self) -> int:
        """A number never given before: names ids and makes payloads tell apart."""
        return next(self._numbers)

    def new_id(self, tenant: str) -> str:
        job_id = f"job_{self.number():03}"
        self.owners[job_id] = tenant
        return job_id

    def take_key(self, job_id: str, key: str) -> str:
        """The id of a new job, now one of this content key."""
        keyed = keyed_id(job_id, key)
        self.owners = {keyed if known == job_id else known: tenant for known, tenant in self.owners.items()}
        return keyed

    def job_ids(self) -> list[str]:
        return list(self.owners)

    def tenant_for(self, job_id: str) -> str:
        """Who asks for this job: its owner as a rule, now and then a stranger."""
        owner = self.owners[job_id]
        if self.rng.random() < 0.85:
            return owner
        return TENANTS[1 - TENANTS.index(owner)]

    def lease(self) -> Assignment | None:
        """A lease to act under: a recent one, or any old one, or one whose job was leased again since, the zombie's."""
        if not self.grants:
            return None
        luck = self.rng.random()
        if luck < 0.5:
            return self.rng.choice(self.grants[-3:])
        newest = {held.job_id: held for held in self.grants}
        zombies = [held for held in self.grants if newest[held.job_id] is not held]
        return self.rng.choice(zombies if zombies and luck < 0.8 else self.grants)

    def repeatable(self, call: Call) -> bool:
        """Whether the call may be made again without making a purged id anew, which would be another job."""
        if call.method == "submit":
            return not any(new.id in self.gone for new in call.args[0])
        if call.method == "retry":
            return not any(new_id in self.gone for _, new_id in call.args[1])
        return call.method in REPEATABLE

    def learn(self, step: Step) -> None:
        """Take in what a step's answers told, and what is gone since."""
        self.gone |= self.look.jobs.keys() - step.look.jobs.keys()
        self.look = step.look
        for op in step.ops:
            if op.call.method in REPEATABLE:
                self.made.append(op.call)
            if op.is_ok:
                self._learn_answer(op)

    def _learn_answer(self, op: Op) -> None:
        if op.call.method == "announce":
            session = op.call.args[0].session
            self.live = [*(name for name in self.live if name != session), session][-2:]
        elif op.call.method == "lease":
            self.grants += op.answer
            self.next_seq.update((held.lease.token, held.next_seq) for held in op.answer)
        elif op.call.method == "append":
            written = ((append, answer) for append, answer in op.batch if isinstance(answer, Appended))
            self.next_seq.update((append.lease.token, answer.next_seq) for append, answer in written)
        elif op.call.method == "read" and op.answer is not None and op.answer.events:
            last = op.answer.events[-1]
            if last.type != SNAPSHOT:
                self.cursors.setdefault(op.call.args[1], [START]).append(last.cursor)
