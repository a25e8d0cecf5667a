"""Leases: the right to run one attempt of a job, and the fence that every write of it carries.

Leases belong to a worker's session. One small write renews a session and with it all it holds; a session silent past
its deadline is rescued whole.
"""

from __future__ import annotations

import msgspec

from ropeway.domain.job import JobOptions

__all__ = [
    "DEFAULT_SESSION_TTL_MS",
    "Append",
    "Appended",
    "Assignment",
    "Commit",
    "Lease",
    "LeaseRequest",
    "Outcome",
    "Renewal",
    "next_epoch",
]

DEFAULT_SESSION_TTL_MS = 9_000
"""How long a worker may be silent before all it holds is rescued. Renewed every 1.8 s: four may fail. With the second
between two looks for silent ones, a killed worker's jobs run elsewhere within 10 s."""


def next_epoch(previous: int, now_ms: int) -> int:
    """The epoch of a new lease, rescue or forced cancel.

    Above the last one, and above any that a store rolled back to an older state may have forgotten.
    """
    return max(previous + 1, now_ms)


class Lease(msgspec.Struct, frozen=True, gc=False):
    """The right to run one attempt. `token` is random and compared for equality with the row's: the fence."""

    job_id: str
    epoch: int
    token: str


class Assignment(msgspec.Struct, frozen=True, gc=False):
    """A leased job: what a worker needs to run one attempt.

    `next_seq` is the n that the attempt's first own event gets, after those that the lease itself wrote.
    `input` is JSON text. The worker itself counts `options.timeout_s`; the engine keeps no deadline of an attempt.
    """

    lease: Lease
    tenant: str
    queue: str
    task: str
    input: str
    attempt: int
    crashes: int
    next_seq: int
    created_at_ms: int
    started_at_ms: int
    options: JobOptions

    @property
    def job_id(self) -> str:
        return self.lease.job_id


class LeaseRequest(msgspec.Struct, frozen=True):
    """A worker's wish for work: at most `limit` jobs of these queues, the first queue first."""

    session: str
    worker: str
    queues: tuple[str, ...]
    limit: int


class Append(msgspec.Struct, frozen=True, gc=False):
    """Events for a running attempt: a compare-and-set on the next n.

    The holder's own repeat of an append that was written is answered as the first was.
    `drafts` is a tuple of (type, data as JSON text).
    """

    lease: Lease
    expected_seq: int
    drafts: tuple[tuple[str, str], ...]


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The n that the next event will get, and whether a client has asked for the job to be cancelled."""

    next_seq: int
    cancel_requested: bool = False


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What an attempt came to.

    Attributes:
        kind: `succeeded`, `failed` (for good), `cancelled`, `retry` (after `delay_ms`), `release` (at drain: back to
            its place, the attempt given back), `snooze` (again after `delay_ms`, the attempt given back),
            `crashed` (its process died: again after `delay_ms`, or failed at the job's `max_crashes`).
        output: JSON text, kept on failure and cancel too (what had been produced).
        error: JSON text of a JobError, for `failed`, `retry` and `crashed`.
        usage: JSON text.
        detail: what a snooze waits for, for people.
    """

    kind: str
    output: str | None = None
    error: str | None = None
    usage: str | None = None
    delay_ms: int = 0
    detail: str | None = None


class Commit(msgspec.Struct, frozen=True, gc=False):
    """The end of an attempt. Its events are appended before."""

    lease: Lease
    outcome: Outcome


class Renewal(msgspec.Struct, frozen=True):
    """What a session learns when it renews.

    `alive` is False when the session was rescued or is unknown: every attempt it ran must stop now, uncommitted.
    `cancelled` names the jobs it runs that a client asked to stop.
    """

    alive: bool
    cancelled: tuple[str, ...] = ()
