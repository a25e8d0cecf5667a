"""Every route, once: the router is built from this table, and so is the OpenAPI document."""

from __future__ import annotations

from typing import Any

from ropeway.client.fleet import (
    HealthBody,
    InfoBody,
    PolicyRequest,
    PurgeBody,
    QueueBody,
    QueueList,
    StatsBody,
    TaskBody,
    TaskList,
    WorkerList,
)
from ropeway.client.wire import EventBody, JobBody, JobList, JobRequest
from ropeway.domain.caller import Scope
from ropeway.domain.lifecycle import State
from ropeway.serving.bodies import CancelRequest
from ropeway.serving.delivery_routes import DELIVERY_ROUTES
from ropeway.serving.files.routes import FILE_ROUTES
from ropeway.serving.keys.routes import KEY_ROUTES
from ropeway.serving.limits import LIMIT_ROUTES
from ropeway.serving.openai.routes import OPENAI_ROUTES, RESULT_PARAMS
from ropeway.serving.questions import LIST_DEFAULT, LIST_LIMIT
from ropeway.serving.route import JSON, NDJSON, SSE, UNDECLARED, Answer, Param, Route
from ropeway.serving.schedule_routes import SCHEDULE_ROUTES
from ropeway.serving.submit import SubmitLine
from ropeway.serving.websocket.routes import SOCKET_ROUTES

__all__ = ["ROUTES", "UNDECLARED", "Answer", "Param", "Route"]


def _text(name: str, about: str, where: str = "query") -> Param:
    return Param(name, where, {"type": "string", "maxLength": 255}, about)


def _choice(name: str, about: str) -> Param:
    return Param(name, "query", {"type": "string", "enum": ["0", "1", "true", "false"]}, about)


_NAME = {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,128}$"}
_ID = Param("id", "path", {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}, "The job's id.")
_QUEUE = Param("name", "path", _NAME, "The queue's name.")
_TASK = Param("name", "path", _NAME, "The task's name.")
_BY_QUEUE = Param("queue", "query", _NAME, "Of this queue only.")
_BY_TAG = _text("tag", "With this tag only.")
_WAIT = Param(
    "wait", "query", {"type": "number", "minimum": 0, "maximum": 60}, "Seconds to hold the answer back for the end."
)
_PREFER = Param(
    "Prefer",
    "header",
    {"type": "string", "examples": ["wait=10"]},
    "`wait=N`: hold the answer back for up to N seconds (at most 60), as `?wait=` does.",
)
_KEY = Param(
    "Idempotency-Key",
    "header",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "Makes the call safe to repeat: the same key and body give the same job, another body is refused.",
)
_MATCH = Param(
    "If-None-Match",
    "header",
    {"type": "string"},
    "The ETag known: 304 while it holds; with a wait, waits for any change.",
)
_EVENT_ID = {"type": "string", "pattern": "^([0-9]+-[0-9]+)?$", "maxLength": 40}
_AFTER = Param("after", "query", _EVENT_ID, "Begin strictly after this event id.")
_LAST_ID = Param(
    "Last-Event-ID", "header", {"type": "string"}, "As `after`, and wins over it: browsers send it by themselves."
)
_TOKEN = Param("token", "query", {"type": "string"}, "A page's token for this job, where no header can be sent.")
_TYPES = _text("types", "Event types, with commas between: only these.")

_BODILESS = (400, 408, 413, 415)  # a POST that needs no body may still be sent a wrong one

_JOB = ((JSON, JobBody),)
_EVENTS = ((SSE, EventBody), (NDJSON, EventBody))

_SUBMIT = Route(
    "POST",
    "/v1/jobs",
    "submit_job",
    "jobs",
    "Submit a job; as `application/x-ndjson`, up to 1,000 of them, one a line, answered line by line. With "
    "`Accept: text/event-stream` the answer is the job's events.",
    (
        Answer(
            202,
            "Accepted: the job is stored durably.",
            _JOB,
            ("Location", "ETag", "Idempotency-Replayed", "Cache-Status", "Retry-After"),
        ),
        Answer(
            200,
            "It ended within the wait or was there already, or its events, or the answers to many.",
            ((JSON, JobBody), (SSE, EventBody), (NDJSON, SubmitLine)),
            ("Cache-Status",),
        ),
    ),
    (_KEY, _PREFER),
    ((JSON, JobRequest), (NDJSON, JobRequest)),
    needs_body=True,
    errors=(400, 404, 406, 408, 413, 415, 422, 429, 503),
    scope=Scope.write,
)

_JOBS = (
    _SUBMIT,
    Route(
        "GET",
        "/v1/jobs",
        "list_jobs",
        "jobs",
        "List jobs, newest first, without their inputs and outputs.",
        (Answer(200, "A page of jobs.", ((JSON, JobList),)),),
        (
            _text("state", f"One or more of {', '.join(State)}, with commas between."),
            _BY_QUEUE,
            Param("task", "query", _NAME, "Of this task only."),
            _BY_TAG,
            Param(
                "limit",
                "query",
                {"type": "integer", "minimum": 1, "maximum": LIST_LIMIT, "default": LIST_DEFAULT},
                "Jobs on a page.",
            ),
            _text("cursor", "The `next_cursor` of the page before."),
        ),
        errors=(400, 503),
        scope=Scope.read,
    ),
    Route(
        "GET",
        "/v1/jobs/{id}",
        "get_job",
        "jobs",
        "The job as it stands, or once it has ended. A job that failed is 200 too: the status is this request's.",
        (Answer(200, "The job.", _JOB, ("ETag",)), Answer(304, "Unchanged.")),
        (_ID, _WAIT, _PREFER, _MATCH, _TOKEN),
        errors=(400, 404, 503),
        scope=Scope.read,
    ),
    Route(
        "GET",
        "/v1/jobs/{id}/result",
        "get_result",
        "jobs",
        "The output alone. That of a job that failed or was cancelled is a problem with its recorded error (424).",
        (
            Answer(200, "The output.", ((JSON, Any),), ("ETag",)),
            Answer(202, "Not there yet.", _JOB, ("Retry-After", "ETag")),
            Answer(303, "A call that takes long: follow, and wait on.", (), ("Location", "X-Job-Id")),
        ),
        (_ID, _WAIT, _PREFER, *RESULT_PARAMS, _TOKEN),
        errors=(400, 404, 424, 429, 502, 503, 504),
        scope=Scope.read,
    ),
    Route(
        "GET",
        "/v1/jobs/{id}/events",
        "get_events",
        "jobs",
        "The job's log, live, from its beginning or after an event: no gap, no repeat, the terminal event last.",
        (Answer(200, "The events.", _EVENTS), Answer(204, "Nothing comes after that event.")),
        (_ID, _AFTER, _LAST_ID, _TYPES, _choice("follow", "0: what is there now, without waiting for more."), _TOKEN),
        errors=(400, 404, 503),
        scope=Scope.read,
    ),
    Route(
        "POST",
        "/v1/jobs/{id}/cancel",
        "cancel_job",
        "jobs",
        "Cancel: at once when it waits, asked of its worker when it runs. Harmless when repeated, or too late. A job "
        "that others share goes on for them: each cancel takes one away, and one repeated under its key counts once.",
        (Answer(200, "It has ended.", _JOB, ("ETag",)), Answer(202, "It was asked to stop.", _JOB, ("ETag",))),
        (_ID, _KEY),
        ((JSON, CancelRequest),),
        errors=(*_BODILESS, 404, 503),
        scope=Scope.cancel,
    ),
    Route(
        "POST",
        "/v1/jobs/{id}/wake",
        "wake_job",
        "jobs",
        "Have a waiting job go on now: it is queued at once, whatever it waits for. It waits again if it finds that it "
        "has to. A job that waits for nothing stays as it is; harmless when repeated.",
        (Answer(200, "The job.", _JOB, ("ETag",)),),
        (_ID,),
        errors=(*_BODILESS, 404, 503),
        scope=Scope.cancel,
    ),
    Route(
        "POST",
        "/v1/jobs/{id}/retry",
        "retry_job",
        "jobs",
        "Run a job that has ended again: a new job with the same input and options.",
        (Answer(202, "The new job.", _JOB, ("Location", "ETag", "Idempotency-Replayed")),),
        (_ID, _KEY),
        errors=(*_BODILESS, 404, 409, 422, 429, 503),
        scope=Scope.write,
    ),
    Route(
        "DELETE",
        "/v1/jobs/{id}",
        "delete_job",
        "jobs",
        "Delete a job that has ended, with its events.",
        (Answer(204, "It is gone."),),
        (_ID, _choice("force", "1: cancel it first, and wait for it to stop.")),
        errors=(400, 404, 409, 503),
        scope=Scope.cancel,
    ),
    Route(
        "GET",
        "/v1/events",
        "follow_jobs",
        "jobs",
        "What becomes of jobs, as a dashboard wants it: the latest state of each that changed, seen a few times a "
        "second. A `snapshot` event says that changes were missed. A job's own events miss nothing.",
        (Answer(200, "The changes; `data` is the job, without input and output.", _EVENTS),),
        (_AFTER, _LAST_ID, _TYPES, _BY_QUEUE, _BY_TAG),
        errors=(400, 503),
        scope=Scope.read,
    ),
)


def _get(
    path: str,
    operation: str,
    tag: str,
    about: str,
    kind: Any,
    *params: Param,
    scope: Scope | None,
    errors: tuple[int, ...] = (503,),
) -> Route:
    answers = (Answer(200, "So it is.", ((JSON, kind),)),)
    return Route("GET", path, operation, tag, about, answers, params, errors=errors, scope=scope)


def _of_queue(verb: str, about: str, kind: Any, scope: Scope, *errors: int) -> Route:
    answers = (Answer(200, "Done.", ((JSON, kind),)),)
    path, operation = f"/v1/queues/{{name}}/{verb}", f"{verb}_queue"
    refusals = (*_BODILESS, *errors, 503)
    return Route("POST", path, operation, "queues", about, answers, (_QUEUE,), errors=refusals, scope=scope)


def _health(path: str, operation: str, about: str) -> Route:
    content = ((JSON, HealthBody),)
    answers = (Answer(200, "Yes.", content), Answer(503, "No, and why.", content))
    return Route("GET", path, operation, "health", about, answers, scope=None)


_AROUND = (
    _get(
        "/v1/queues", "list_queues", "queues", "All queues, with the counts of your jobs.", QueueList, scope=Scope.read
    ),
    _get(
        "/v1/queues/{name}",
        "get_queue",
        "queues",
        "A queue: its depth, its measured rate, its policy.",
        QueueBody,
        _QUEUE,
        scope=Scope.read,
        errors=(400, 404, 503),
    ),
    Route(
        "PATCH",
        "/v1/queues/{name}",
        "set_queue",
        "queues",
        "Change a queue's policy, making the queue if it is not there; what is left out stays.",
        (Answer(200, "Done.", ((JSON, QueueBody),)),),
        (_QUEUE,),
        ((JSON, PolicyRequest),),
        needs_body=True,
        errors=(400, 408, 413, 415, 503),
        scope=Scope.admin,
    ),
    _of_queue("pause", "Lease no more jobs of a queue; it goes on taking them.", QueueBody, Scope.admin),
    _of_queue("resume", "Lease its jobs again.", QueueBody, Scope.admin),
    _of_queue("purge", "Cancel your jobs that wait in a queue now.", PurgeBody, Scope.cancel, 404),
    _get(
        "/v1/tasks",
        "list_tasks",
        "tasks",
        "The tasks that may be submitted, with their JSON Schemas.",
        TaskList,
        scope=Scope.read,
    ),
    _get("/v1/tasks/{name}", "get_task", "tasks", "A task.", TaskBody, _TASK, scope=Scope.read, errors=(404, 503)),
    _get("/v1/workers", "list_workers", "fleet", "The workers that are here.", WorkerList, scope=Scope.metrics),
    _get(
        "/v1/stats",
        "get_stats",
        "fleet",
        "Figures over all queues: of your jobs, or of everybody's.",
        StatsBody,
        _choice("all", "1: of all tenants; this needs the scope `metrics`."),
        scope=Scope.read,
        errors=(400, 503),
    ),
    _get(
        "/v1/info",
        "get_info",
        "fleet",
        "What runs here, and what its 202 means.",
        InfoBody,
        scope=Scope.read,
        errors=(),
    ),
    _get("/livez", "get_livez", "health", "Whether this process answers.", HealthBody, scope=None, errors=()),
    _health("/healthz", "get_healthz", "Whether this gateway and its engine answer."),
    _health("/readyz", "get_readyz", "Whether new work may be sent here."),
    _get("/openapi.json", "get_openapi", "about", "This document.", dict[str, Any], scope=None, errors=()),
    Route(
        "GET", "/docs", "get_docs", "about", "It as a page.", (Answer(200, "HTML.", (("text/html", str),)),), scope=None
    ),
)

ROUTES = (
    *_JOBS,
    *SOCKET_ROUTES,
    *FILE_ROUTES,
    *OPENAI_ROUTES,
    *_AROUND,
    *DELIVERY_ROUTES,
    *KEY_ROUTES,
    *LIMIT_ROUTES,
    *SCHEDULE_ROUTES,
)
