"""Schedules: jobs that are submitted again and again, at times told by a cron expression or by an interval.

A schedule is one record: what it is and how far it has come. Each of its times makes at most one job, whoever submits
it and however often: the job's id and its idempotency key are derived from the schedule and the time.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Literal, TypedDict

import msgspec

from ropeway.domain.budget import limited
from ropeway.domain.errors import InvalidRequest, RopewayError
from ropeway.domain.ids import SEED_BYTES, job_id
from ropeway.domain.instants import timestamp
from ropeway.domain.job import JobOptions, NewJob
from ropeway.domain.limit import Limit
from ropeway.domain.rank import Priority
from ropeway.domain.worker import TaskCard

__all__ = [
    "DEFAULT_GRACE_MS",
    "MOST_AT_ONCE",
    "MOST_SCHEDULES",
    "CatchUp",
    "Incident",
    "Overlap",
    "Plan",
    "Schedule",
    "ScheduleConflict",
    "ScheduleNotFound",
    "ScheduleSettings",
    "Timing",
    "TooManySchedules",
    "changes_of",
    "check_schedule_name",
    "id_at",
    "job_at",
    "job_now",
    "state_of",
    "tag_of",
]

CatchUp = Literal["skip", "latest", "all"]
Overlap = Literal["allow", "skip"]

DEFAULT_GRACE_MS = 60_000
MOST_AT_ONCE = 100  # times that are caught up with at once: what was missed longer ago is passed over
MOST_SCHEDULES = 1_000  # of a tenant
NAME_LIMIT = 100  # with the tenant's name it is a record's id, which has 255 characters

_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
_CLAIM = "ropeway.schedule"
_SAID = frozenset(field.name for field in msgspec.structs.fields(JobOptions)) - {"limits", "cost_measure"}


class ScheduleNotFound(RopewayError):
    """No such schedule."""

    code = "schedule_not_found"


class ScheduleConflict(RopewayError):
    """The schedule is somebody else's: declared in an application's code, or made by hand."""

    code = "schedule_conflict"


class TooManySchedules(RopewayError):
    """This tenant has as many schedules as it may."""

    code = "too_many_schedules"


class ScheduleSettings(TypedDict, total=False):
    """When a schedule fires, as people say it; durations are seconds.

    cron: five fields, or a word such as `@daily`. interval: every so many seconds instead, 1 at the least.
    timezone: of the cron expression, and of instants without an offset; an IANA name, `UTC` by default.
    starts_at, ends_at: no time before the one, nor at or after the other; a datetime, or RFC 3339.
    jitter: each time comes up to so much later, so that many schedules do not all come at midnight.
    catch_up: what becomes of times that were missed: `skip`, `latest` (one job for all of them) or `all` (100 at most).
    grace: a time that comes so much late was not missed; 60 by default.
    overlap: `allow`, or `skip` a time while the job of the one before has not ended.
    """

    cron: str | None
    interval: float | None
    timezone: str
    starts_at: str | datetime | None
    ends_at: str | datetime | None
    jitter: float
    catch_up: CatchUp
    grace: float
    overlap: Overlap


class Timing(msgspec.Struct, frozen=True, omit_defaults=True):
    """When: by a cron expression in a time zone, or every so many ms from an anchor. Checked by `checked_timing`.

    Attributes:
        starts_at_ms, ends_at_ms: no time before the one, nor at or after the other. An interval counts from its start,
            which is then its first time; else from when the schedule was made, the first time being one interval later.
        jitter_ms: each time comes up to so much later; how much is the schedule's own, and the same whoever asks.
    """

    cron: str | None = None
    interval_ms: int | None = None
    timezone: str = "UTC"
    starts_at_ms: int | None = None
    ends_at_ms: int | None = None
    jitter_ms: int = 0


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is submitted: None is as the task declares it by then.

    `options` are the fields of JobOptions that the schedule says, as JSON has them. `limits` and `max_own` are those of
    whoever set it.
    """

    task: str
    input: str = "{}"
    queue: str | None = None
    priority: Priority | None = None
    delay_ms: int = 0
    options: dict[str, Any] = {}
    limits: tuple[Limit, ...] = ()
    max_own: int | None = None


class Incident(msgspec.Struct, frozen=True):
    """Why no job was made: when it was seen, of which time of the schedule, and what was wrong."""

    at_ms: int
    fire_at_ms: int
    code: str
    message: str


class Schedule(msgspec.Struct, frozen=True, omit_defaults=True):
    """A schedule as it stands.

    Attributes:
        uid: of this schedule and none that had its name before: jobs' ids come from it.
        declared: whether it is written in an application's code; then it fires while a worker declares it.
        catch_up: what becomes of times that nobody was there for: none, the last, or all (100 at the most).
        grace_ms: a time that comes no later than this was not missed.
        overlap: `skip`: no job while the one before has not ended.
        next_at_ms: the next time, without its jitter; None: there is none any more.
        last_at_ms, last_job_id: the last time that made a job. fired: how many did.
        last_error: why the time that is due now makes no job. last_skip: why one in the past made none.
        removed: it is nobody's any more, and kept for a while so that who still has it in hand cannot bring it back.
    """

    tenant: str
    name: str
    uid: str
    timing: Timing
    plan: Plan
    created_at_ms: int
    updated_at_ms: int
    catch_up: CatchUp = "latest"
    grace_ms: int = DEFAULT_GRACE_MS
    overlap: Overlap = "allow"
    paused: bool = False
    declared: bool = False
    next_at_ms: int | None = None
    last_at_ms: int | None = None
    last_job_id: str | None = None
    fired: int = 0
    last_error: Incident | None = None
    last_skip: Incident | None = None
    removed: bool = False

    @property
    def id(self) -> str:
        """Unique in the engine: neither name has a slash."""
        return f"{self.tenant}/{self.name}"

    def due_at_ms(self) -> int | None:
        """When its next time comes, with its jitter."""
        return None if self.next_at_ms is None or self.paused else self.next_at_ms + self.jitter_of(self.next_at_ms)

    def jitter_of(self, at_ms: int) -> int:
        """How much later than planned this time comes."""
        most = self.timing.jitter_ms
        return int.from_bytes(_digest(self.uid, at_ms, "jitter")[:8]) % (most + 1) if most else 0


def check_schedule_name(name: str) -> str:
    """`name`, if it may name a schedule: 1-100 of letters, digits, `_`, `-` and, not first, `.`.

    Raises InvalidRequest.
    """
    if not 1 <= len(name) <= NAME_LIMIT or not _NAME_CHARS.issuperset(name) or name[0] == ".":
        raise InvalidRequest(
            f"{name[:NAME_LIMIT]!r} is no name of a schedule: 1 to {NAME_LIMIT} of letters, digits, '_', '-', and '.' "
            "but not first",
            param="name",
        )
    return name


def state_of(schedule: Schedule, declared: frozenset[str]) -> Literal["active", "paused", "ended", "undeclared"]:
    """What it is doing; `declared` are the ids of those that workers declare now."""
    if schedule.declared and schedule.id not in declared:
        return "undeclared"
    if schedule.paused:
        return "paused"
    return "ended" if schedule.next_at_ms is None else "active"


# -- its jobs


def changes_of(card: TaskCard, job: NewJob, *, says_cost: bool = False) -> Plan:
    """The plan that makes this job of a task again: of its options, those that are not the task's own.

    Its limits are worked out anew for each job, and so is a cost in tokens that nobody said (`says_cost`).
    """
    fields = _SAID if says_cost or card.options.cost_measure is None else _SAID - {"cost"}
    said = [name for name in sorted(fields) if getattr(job.options, name) != getattr(card.options, name)]
    return Plan(
        task=job.task,
        input=job.input,
        queue=None if job.queue == card.queue else job.queue,
        priority=None if job.priority == card.priority else job.priority,
        delay_ms=job.delay_ms,
        options={name: msgspec.to_builtins(getattr(job.options, name)) for name in said},
        max_own=job.max_own,
    )


def tag_of(name: str) -> str:
    """The tag of a schedule's jobs."""
    return f"schedule:{name}"


def id_at(schedule: Schedule, at_ms: int) -> str:
    """The id of the job that this time makes."""
    return job_id(at_ms, _digest(schedule.uid, at_ms, "job"))


def job_at(schedule: Schedule, card: TaskCard, at_ms: int) -> NewJob:
    """The job that this time makes, the same each time it is asked for. Raises InvalidRequest."""
    job = job_now(schedule, card, id_at(schedule, at_ms), at_ms)
    return msgspec.structs.replace(job, idempotency_key=f"{_CLAIM}/{schedule.uid}/{at_ms}", fingerprint=_CLAIM)


def job_now(schedule: Schedule, card: TaskCard, new_id: str, at_ms: int) -> NewJob:
    """A job of this schedule, whatever its times are. Raises InvalidRequest when its options are none any more."""
    plan = schedule.plan
    try:
        said = msgspec.convert(plan.options, JobOptions)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"schedule '{schedule.name}' has options that are none: {error}") from error
    options = msgspec.structs.replace(
        card.options, **{name: getattr(said, name) for name in _SAID & plan.options.keys()}
    )
    marks = {"schedule": schedule.name, "scheduled_for": timestamp(at_ms)}
    options = msgspec.structs.replace(
        options, tags=(*options.tags, tag_of(schedule.name)), metadata={**options.metadata, **marks}
    )
    return NewJob(
        new_id,
        schedule.tenant,
        plan.queue or card.queue,
        plan.task,
        plan.input,
        card.priority if plan.priority is None else plan.priority,
        plan.delay_ms,
        limited(options, schedule.tenant, plan.input, plan.limits),
        max_own=plan.max_own,
    )


def _digest(uid: str, at_ms: int, what: str) -> bytes:
    return hashlib.blake2b(f"{uid}/{at_ms}/{what}".encode(), digest_size=SEED_BYTES).digest()
