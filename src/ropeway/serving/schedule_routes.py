"""The routes of schedules."""

from __future__ import annotations

from typing import Any

from ropeway.client.schedules import ScheduleBody, ScheduleList, ScheduleRequest
from ropeway.client.wire import JobBody
from ropeway.domain.caller import Scope
from ropeway.serving.route import JSON, Answer, Param, Route

__all__ = ["SCHEDULES_DEFAULT", "SCHEDULES_LIMIT", "SCHEDULE_ROUTES"]

SCHEDULES_DEFAULT, SCHEDULES_LIMIT = 100, 500

_TEXT = {"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}$"}
_NAME = Param("name", "path", _TEXT, "The schedule's name.")
_LIMIT = {"type": "integer", "minimum": 1, "maximum": SCHEDULES_LIMIT, "default": SCHEDULES_DEFAULT}
_KEY = Param(
    "Idempotency-Key",
    "header",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "Makes the call safe to repeat: under the same key it is the same job.",
)

_READ = (400, 408, 413, 415, 503)  # of a body
_ONE = ((JSON, ScheduleBody),)


def _of_one(verb: str, about: str, scope: Scope) -> Route:
    path, operation = f"/v1/schedules/{{name}}/{verb}", f"{verb}_schedule"
    done = (Answer(200, "The schedule.", _ONE),)
    return Route("POST", path, operation, "schedules", about, done, (_NAME,), errors=(*_READ, 404), scope=scope)


def _get(path: str, operation: str, about: str, kind: Any, *params: Param, errors: tuple[int, ...]) -> Route:
    found = (Answer(200, "So it is.", ((JSON, kind),)),)
    return Route("GET", path, operation, "schedules", about, found, params, errors=errors, scope=Scope.read)


SCHEDULE_ROUTES = (
    _get(
        "/v1/schedules",
        "list_schedules",
        "List your schedules by name: what they submit, when they fire next, and what became of their last time.",
        ScheduleList,
        Param("limit", "query", _LIMIT, "Schedules on a page."),
        Param("cursor", "query", _TEXT, "The `next_cursor` of the page before."),
        errors=(400, 503),
    ),
    _get(
        "/v1/schedules/{name}",
        "get_schedule",
        "A schedule, with its next times.",
        ScheduleBody,
        _NAME,
        errors=(400, 404, 503),
    ),
    Route(
        "PUT",
        "/v1/schedules/{name}",
        "set_schedule",
        "schedules",
        "Have a job submitted again and again: by a cron expression in a time zone, or every so many seconds. Set "
        "again, it is what is said then; what it has done so far stays. It goes on when that key is revoked.",
        (Answer(201, "It was made.", _ONE, ("Location",)), Answer(200, "It was there, and is so now.", _ONE)),
        (_NAME,),
        ((JSON, ScheduleRequest),),
        needs_body=True,
        errors=(*_READ, 404, 409, 422, 501),
        scope=Scope.schedules,
    ),
    Route(
        "DELETE",
        "/v1/schedules/{name}",
        "remove_schedule",
        "schedules",
        "Forget a schedule; its jobs stay. One that a worker's code declares is 409: it is removed there.",
        (Answer(204, "It is gone."),),
        (_NAME,),
        errors=(400, 404, 409, 503),
        scope=Scope.schedules,
    ),
    _of_one("pause", "Have a schedule fire no more.", Scope.schedules),
    _of_one(
        "resume",
        "Have a schedule fire again, from now on: what it was paused through is not caught up with.",
        Scope.schedules,
    ),
    Route(
        "POST",
        "/v1/schedules/{name}/run",
        "run_schedule",
        "schedules",
        "Submit a schedule's job now, whatever its times are, and whether it is paused.",
        (Answer(202, "The job.", ((JSON, JobBody),), ("Location", "ETag", "Idempotency-Replayed")),),
        (_NAME, _KEY),
        errors=(*_READ, 404, 422, 429, 501),
        scope=Scope.write,
    ),
)
