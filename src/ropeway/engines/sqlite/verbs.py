"""The writing operations as the writer sees them: what to run, in which order, and how hard to write it down.

All operations of one transaction are concurrent: none was answered before another began. So any order among them is
a legal one, and this one merges the most (all submits, then all commits, ...) and lets a lease see what was
submitted, and which places were freed, in the same breath.

`durable` operations are fsynced before they are answered. The others may be lost when the power goes (not when a
process dies): a lost lease or append is an attempt that its worker, who lost power too, does not go on with; a lost
renewal, rescue, promotion or signal is made again; a bucket that forgot what was spent is full too soon, once. WAL
keeps what was written in order, so nothing durable ever follows a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ropeway.domain.bucket import Allowance, Spend
from ropeway.domain.errors import JobLive, JobNotFound, JobNotRetryable, LeaseLost
from ropeway.domain.job import Job, NewJob, Receipt
from ropeway.domain.lease import Append, Appended, Assignment, Commit, LeaseRequest, Renewal
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import LimitSignal, LimitState
from ropeway.domain.queue import QueueChange, QueuePolicy
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.base import Promotion, Refusal
from ropeway.engines.sqlite import appending, committing, controlling, leasing, recording, sessions, submitting, upkeep
from ropeway.engines.sqlite.transaction import Transaction

__all__ = [
    "ANNOUNCE",
    "APPEND",
    "CANCEL",
    "CLOSE",
    "COMMIT",
    "DROP",
    "ELECT",
    "LEASE",
    "PROMOTE",
    "PRUNE",
    "PUBLISH",
    "PURGE",
    "PUT",
    "RENEW",
    "RESCUE",
    "RETRY",
    "SET_LIMITS",
    "SET_QUEUE",
    "SIGNAL",
    "SPEND",
    "SUBMIT",
    "Verb",
]

Wish = TypeVar("Wish")
Answer = TypeVar("Answer")

_count = iter(range(100))


class Verb(Generic[Wish, Answer]):
    """One kind of operation: answers a batch of wishes, as many and in their order."""

    __slots__ = ("durable", "order", "run")

    def __init__(self, run: Callable[[Transaction, Sequence[Wish]], list[Answer]], *, durable: bool) -> None:
        self.run = run
        self.durable = durable
        self.order = next(_count)


SET_QUEUE: Verb[QueueChange, QueuePolicy] = Verb(controlling.set_queue, durable=True)
SET_LIMITS: Verb[controlling.LimitChange, LimitState] = Verb(controlling.set_limits, durable=True)
PUBLISH: Verb[TaskCard, None] = Verb(sessions.publish, durable=False)
ANNOUNCE: Verb[WorkerCard, None] = Verb(sessions.announce, durable=False)
RENEW: Verb[sessions.Renew, Renewal] = Verb(sessions.renew, durable=False)
SUBMIT: Verb[NewJob, Receipt | Refusal] = Verb(submitting.submit, durable=True)
RETRY: Verb[submitting.Again, Receipt | JobNotFound | JobNotRetryable | Refusal] = Verb(submitting.retry, durable=True)
CANCEL: Verb[controlling.Cancel, Job | JobNotFound] = Verb(controlling.cancel, durable=True)
WAKE: Verb[controlling.Wake, Job | JobNotFound] = Verb(controlling.wake, durable=True)
SIGNAL: Verb[LimitSignal, None] = Verb(leasing.signal, durable=False)
APPEND: Verb[Append, Appended | LeaseLost] = Verb(appending.append, durable=False)
COMMIT: Verb[Commit, State | LeaseLost] = Verb(committing.commit, durable=True)
PURGE: Verb[controlling.Purge, JobNotFound | JobLive | None] = Verb(controlling.purge, durable=True)
CLOSE: Verb[str, None] = Verb(sessions.close, durable=False)
RESCUE: Verb[int, int] = Verb(sessions.rescue, durable=False)
PROMOTE: Verb[int, Promotion] = Verb(upkeep.promote, durable=False)
LEASE: Verb[LeaseRequest, list[Assignment]] = Verb(leasing.lease, durable=False)
PRUNE: Verb[int, int] = Verb(upkeep.prune, durable=False)
ELECT: Verb[upkeep.Elect, bool] = Verb(upkeep.elect, durable=False)
PUT: Verb[Put, Record | RecordConflict] = Verb(recording.put, durable=True)
DROP: Verb[RecordKey, bool] = Verb(recording.drop, durable=True)
SPEND: Verb[Sequence[Spend], list[Allowance]] = Verb(recording.spend, durable=False)
