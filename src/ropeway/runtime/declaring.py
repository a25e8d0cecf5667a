"""Schedules that are declared in an application's code, and how a worker brings them to the engine."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, Unpack

import msgspec

from ropeway.domain.firing import Rules, checked_rules, next_time, rescheduled
from ropeway.domain.ids import RandomBytes
from ropeway.domain.job import DEFAULT_TENANT, check_name
from ropeway.domain.rank import Priority
from ropeway.domain.schedule import (
    Plan,
    Schedule,
    ScheduleConflict,
    ScheduleSettings,
    TooManySchedules,
    check_schedule_name,
)
from ropeway.engines.schedules import Schedules, Store
from ropeway.runtime.settings import priority_of
from ropeway.runtime.task import Task

__all__ = ["Declaration", "DeclarationSettings", "declaration_of", "declare"]

log = logging.getLogger("ropeway.worker")

UID_BYTES = 8


class DeclarationSettings(ScheduleSettings, total=False):
    """What `app.schedule(...)` takes, beside the times (see `ScheduleSettings`).

    name: the schedule's own; the task's when left out. input: the task's input, by field. tenant: whose jobs they are.
    queue, priority, tags: of its jobs, where the task's own will not do. Timeouts and retries are the task's.
    """

    name: str
    input: Mapping[str, Any]
    tenant: str
    queue: str
    priority: Priority | Literal["low", "normal", "high"]
    tags: Sequence[str]


class Declaration(msgspec.Struct, frozen=True):
    """A schedule as the code says it."""

    tenant: str
    name: str
    rules: Rules
    plan: Plan

    @property
    def id(self) -> str:
        return f"{self.tenant}/{self.name}"


def declaration_of(task: Task[..., Any, Any], **told: Unpack[DeclarationSettings]) -> Declaration:
    """The schedule that these settings declare. Raises TypeError, InvalidRequest, and InputInvalid for its input."""
    unknown = told.keys() - DeclarationSettings.__annotations__.keys()
    if unknown:
        raise TypeError(f"a schedule has no setting '{min(unknown)}': {', '.join(DeclarationSettings.__annotations__)}")
    tags = tuple(told.get("tags", ()))
    plan = Plan(
        task=task.name,
        input=task.bind(**told.get("input", {})),
        queue=check_name("queue", told["queue"]) if "queue" in told else None,
        priority=priority_of(task.name, told["priority"]) if "priority" in told else None,
        options={"tags": [*task.card.options.tags, *tags]} if tags else {},
    )
    name = check_schedule_name(told.get("name", task.name))
    return Declaration(check_name("tenant", told.get("tenant", DEFAULT_TENANT)), name, checked_rules(told), plan)


async def declare(engine: Store, declarations: Sequence[Declaration], random: RandomBytes) -> None:
    """Bring these schedules to the engine as the code says them; what has become of them so far stays.

    One that somebody made by hand is left as it is, and the log says so. Raises EngineUnavailable.
    """
    if not declarations:
        return
    schedules = Schedules(engine)
    now_ms = await schedules.now_ms()
    for wanted in declarations:
        try:
            if not await schedules.make(_new(wanted, random(UID_BYTES).hex(), now_ms)):
                await schedules.change(wanted.tenant, wanted.name, partial(_over, wanted=wanted, now_ms=now_ms))
        except (ScheduleConflict, TooManySchedules) as error:
            log.error("%s", error)


def _new(wanted: Declaration, uid: str, now_ms: int) -> Schedule:
    rules = wanted.rules
    return Schedule(
        tenant=wanted.tenant,
        name=wanted.name,
        uid=uid,
        timing=rules.timing,
        plan=wanted.plan,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        catch_up=rules.catch_up,
        grace_ms=rules.grace_ms,
        overlap=rules.overlap,
        declared=True,
        next_at_ms=next_time(rules.timing, now_ms, now_ms),
    )


def _over(known: Schedule, wanted: Declaration, now_ms: int) -> Schedule:
    """The schedule as the code says it now; unchanged, when it said so before."""
    if not known.declared:
        raise ScheduleConflict(
            f"schedule '{wanted.name}' of tenant '{wanted.tenant}' was made by hand, so the one that the code declares "
            f"is not used: `ropeway schedules remove {wanted.name}`, or give this one another name"
        )
    rules = wanted.rules
    said = known if rules.timing == known.timing else rescheduled(known, rules.timing, now_ms)
    said = msgspec.structs.replace(
        said, plan=wanted.plan, catch_up=rules.catch_up, grace_ms=rules.grace_ms, overlap=rules.overlap
    )
    return known if said == known else msgspec.structs.replace(said, updated_at_ms=now_ms)
