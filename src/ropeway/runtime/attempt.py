"""An attempt as the worker holds it, and the session that it is held under."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

from ropeway.client.transport import Transport
from ropeway.domain.flow import Awaited
from ropeway.domain.lease import Assignment
from ropeway.domain.log import opening_count
from ropeway.domain.output import Made

__all__ = ["Attempt", "Mail", "Reason", "Session", "Snooze"]


class Reason(StrEnum):
    """Why a worker asks its own running code to stop. A shutdown is never taken for a client's cancel."""

    cancel = "cancel"
    timeout = "timeout"
    first_output_timeout = "first_output_timeout"
    output_timeout = "output_timeout"
    drain = "drain"
    lost = "lost"

    @property
    def is_timeout(self) -> bool:
        """Whether the attempt is out of one of its times. The reason's name is then the error's code."""
        return self.value.endswith("timeout")


class Session:
    """A session: what the engine knows this worker by, and the attempts that it holds.

    `lost` is set from any thread, as soon as the engine has said so or has not been reached for too long: nothing of
    this session is committed any more. `renewed_at_s` is on the monotonic clock, from before the last good renewal;
    `trying` is set while a renewal is under way, and stays so when it failed; `refused` when it failed for another
    reason than that the engine was away.
    """

    __slots__ = ("attempts", "id", "lost", "overdue", "refused", "renewed_at_s", "retiring", "trying")

    def __init__(self, session_id: str, now_s: float) -> None:
        self.id = session_id
        self.attempts: dict[str, Attempt] = {}
        self.lost = False
        self.retiring = False
        self.renewed_at_s = now_s
        self.trying = False
        self.refused = False
        self.overdue = 0


class Snooze(NamedTuple):
    """An attempt's own wish to end now and to be run again, after so many ms. `detail` says why, for people."""

    delay_ms: int
    detail: str | None = None


class Mail(Protocol):
    """Where an attempt's code reads what its job was sent."""

    def close(self) -> None:
        """Let go whoever waits for more."""
        ...


class Attempt:
    """One run of one job.

    `reason` is why it was asked to stop, None while it may go on. `closed` tells that its outcome is decided: nothing
    that its code does later counts. Both are set in the loop and read from any thread. `mail` is made when it is read,
    `earlier` is what the attempts before it made, once that was read. `snooze` is set by its own code, in any thread,
    which ends it. `awaited` are the jobs that its job waited for; `children` is what it submits others with, made when
    it is used.
    """

    __slots__ = ("assignment", "awaited", "children", "closed", "earlier", "mail", "reason", "session", "snooze")

    def __init__(self, assignment: Assignment, session: Session) -> None:
        self.assignment = assignment
        self.session = session
        self.reason: Reason | None = None
        self.closed = False
        self.mail: Mail | None = None
        self.earlier: Made | None = None
        self.snooze: Snooze | None = None
        self.awaited: tuple[Awaited, ...] = ()
        self.children: Transport | None = None

    @property
    def runs_again(self) -> bool:
        """Whether there was an earlier attempt, also one that was given back: a lease writes one event more then."""
        return self.assignment.next_seq > opening_count(1)

    @property
    def lost(self) -> bool:
        """Whether its lease is no longer held: nothing may be written for it."""
        return self.reason is Reason.lost or self.session.lost

    def forget(self) -> None:
        """Out of its session's books, where a later attempt of the same job may stand by now."""
        job_id = self.assignment.lease.job_id
        attempts = self.session.attempts
        if attempts.get(job_id) is self:
            del attempts[job_id]
