"""The JSON shapes of schedules, and the port between a client and where they are kept."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal, Protocol

import msgspec

from ropeway.client.wire import JobRequest, PriorityName
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.firing import Rules, checked_rules, times_after
from ropeway.domain.flow import places_in
from ropeway.domain.instants import timestamp
from ropeway.domain.rank import Priority
from ropeway.domain.schedule import CatchUp, Incident, Overlap, Plan, Schedule, ScheduleSettings, state_of
from ropeway.domain.targets import masked
from ropeway.domain.worker import TaskCard

__all__ = [
    "IncidentBody",
    "ScheduleBody",
    "ScheduleDesk",
    "ScheduleJob",
    "ScheduleList",
    "ScheduleRequest",
    "rules_of",
    "schedule_body",
]

UPCOMING = 5

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=366 * 86_400)]


class ScheduleRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A schedule to be set: what to submit, and when. It has either `cron` or `interval`. Durations are seconds.

    Attributes:
        job: as it is submitted; what it leaves out is as the task declares it by then.
        cron: minute, hour, day of month, month, day of week; or a word such as `@daily`.
        timezone: an IANA name, for `cron` and for instants without an offset.
        starts_at, ends_at: no time before the one, nor at or after the other; RFC 3339.
        jitter: each time comes up to so much later.
        catch_up: what becomes of times that were missed: none, one job for the last, or a job for each (100 at most).
        grace: a time that comes so much late was not missed.
        overlap: `skip` makes no job while the one of the time before has not ended.
        paused: whether it fires; left out, it is as it was.
    """

    job: JobRequest
    cron: str | None = None
    interval: Annotated[float, msgspec.Meta(ge=1, le=366 * 86_400)] | None = None
    timezone: str = "UTC"
    starts_at: str | None = None
    ends_at: str | None = None
    jitter: _Seconds = 0.0
    catch_up: CatchUp = "latest"
    grace: _Seconds = 60.0
    overlap: Overlap = "allow"
    paused: bool | None = None


class IncidentBody(msgspec.Struct, frozen=True):
    """Why a time made no job: when that was seen, and which time it was."""

    at: str
    time: str
    code: str
    message: str


class ScheduleJob(msgspec.Struct, frozen=True):
    """What a schedule submits. `options` are those that are not as the task declares them."""

    task: str
    input: Any = None
    queue: str | None = None
    priority: PriorityName | None = None
    delay: float = 0.0
    options: dict[str, Any] = {}


class ScheduleBody(msgspec.Struct, frozen=True):
    """A schedule as the world sees it.

    Attributes:
        state: `undeclared` is one of an application's code that no worker has now: it does not fire.
        declared: whether it is written in an application's code.
        next_at: when it fires next, its jitter included; in the past, when that was refused so far.
        upcoming: the next times; of one schedule only, not in lists.
        last_at, last_job_id: the time that made the last job. fired: how many did.
        last_error: why the time that is due makes no job. last_skip: why one in the past made none.
    """

    name: str
    state: Literal["active", "paused", "ended", "undeclared"]
    job: ScheduleJob
    timezone: str
    catch_up: CatchUp
    grace: float
    overlap: Overlap
    declared: bool
    created_at: str
    updated_at: str
    object: Literal["schedule"] = "schedule"
    cron: str | None = None
    interval: float | None = None
    starts_at: str | None = None
    ends_at: str | None = None
    jitter: float = 0.0
    next_at: str | None = None
    upcoming: tuple[str, ...] = ()
    last_at: str | None = None
    last_job_id: str | None = None
    fired: int = 0
    last_error: IncidentBody | None = None
    last_skip: IncidentBody | None = None


class ScheduleList(msgspec.Struct, frozen=True):
    """A page of schedules by name. `next_cursor` asks for the next page; None on the last."""

    data: list[ScheduleBody]
    has_more: bool = False
    next_cursor: str | None = None


class ScheduleDesk(Protocol):
    """What a client does with its tenant's schedules. Raises ScheduleNotFound, ScheduleConflict."""

    async def set(self, name: str, request: ScheduleRequest, card: TaskCard | None) -> ScheduleBody:
        """Make a schedule, or say anew what one is. `card` is known when the task was given as an object."""
        ...

    async def get(self, name: str) -> ScheduleBody: ...

    async def find(self) -> list[ScheduleBody]: ...

    async def pause(self, name: str, paused: bool) -> ScheduleBody: ...

    async def run(self, name: str) -> str:
        """Submit its job now; that job's id."""
        ...

    async def remove(self, name: str) -> None: ...


def rules_of(request: ScheduleRequest) -> Rules:
    """When a request has it fire. Raises InvalidRequest."""
    for name in ("run_at", "cache"):
        if getattr(request.job, name):
            raise InvalidRequest(f"a schedule's job has no {name}: it runs at each of its times", param=f"job.{name}")
    if request.job.after or request.job.after_failure or places_in(bytes(request.job.input)):
        raise InvalidRequest("a schedule's job waits for no other: it runs at each of its times", param="job.after")
    names = ScheduleSettings.__annotations__
    told: Any = {name: value for name, value in msgspec.structs.asdict(request).items() if name in names}
    return checked_rules(told)


def schedule_body(schedule: Schedule, declared: frozenset[str], *, with_upcoming: bool = False) -> ScheduleBody:
    """The public form. `declared` are the ids of those that workers declare now."""
    timing, state = schedule.timing, state_of(schedule, declared)
    due_at_ms = schedule.due_at_ms()
    return ScheduleBody(
        name=schedule.name,
        state=state,
        job=_job(schedule.plan),
        timezone=timing.timezone,
        catch_up=schedule.catch_up,
        grace=schedule.grace_ms / 1000,
        overlap=schedule.overlap,
        declared=schedule.declared,
        created_at=timestamp(schedule.created_at_ms),
        updated_at=timestamp(schedule.updated_at_ms),
        cron=timing.cron,
        interval=None if timing.interval_ms is None else timing.interval_ms / 1000,
        starts_at=_maybe(timing.starts_at_ms),
        ends_at=_maybe(timing.ends_at_ms),
        jitter=timing.jitter_ms / 1000,
        next_at=_maybe(due_at_ms),
        upcoming=tuple(_upcoming(schedule)) if with_upcoming and due_at_ms is not None else (),
        last_at=_maybe(schedule.last_at_ms),
        last_job_id=schedule.last_job_id,
        fired=schedule.fired,
        last_error=_incident(schedule.last_error),
        last_skip=_incident(schedule.last_skip),
    )


def _upcoming(schedule: Schedule) -> list[str]:
    assert schedule.next_at_ms is not None
    times = times_after(schedule.timing, schedule.created_at_ms, schedule.next_at_ms)
    first = itertools.chain([schedule.next_at_ms], times)
    return [timestamp(at_ms + schedule.jitter_of(at_ms)) for at_ms in itertools.islice(first, UPCOMING)]


def _job(plan: Plan) -> ScheduleJob:
    names: tuple[PriorityName, ...] = ("low", "normal", "high")
    options = {name.removesuffix("_s"): value for name, value in plan.options.items() if name != "webhook"}
    if webhook := plan.options.get("webhook"):
        options["webhook"] = {**webhook, "url": masked(webhook["url"])}  # in the rest of it a secret may be
    return ScheduleJob(
        task=plan.task,
        input=msgspec.Raw(plan.input.encode()),
        queue=plan.queue,
        priority=None if plan.priority is None else names[Priority(plan.priority)],
        delay=plan.delay_ms / 1000,
        options=options,
    )


def _incident(incident: Incident | None) -> IncidentBody | None:
    if incident is None:
        return None
    return IncidentBody(timestamp(incident.at_ms), timestamp(incident.fire_at_ms), incident.code, incident.message)


def _maybe(at_ms: int | None) -> str | None:
    return None if at_ms is None else timestamp(at_ms)
