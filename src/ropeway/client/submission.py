"""From a request to a `NewJob`: the task's defaults, the caller's changes, and every limit on what may be asked.

`new_job` is on the path of each submit: a request that changes nothing shares the card's own options.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from ropeway.client.wire import JobRequest, RetryRequest
from ropeway.domain.budget import limited
from ropeway.domain.errors import Fault, InputInvalid, InvalidRequest
from ropeway.domain.flow import AFTER_LIMIT, FAILURES
from ropeway.domain.job import JobOptions, NewJob, check_name
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.domain.targets import parse_url
from ropeway.domain.webhook import Webhook
from ropeway.domain.worker import TaskCard

__all__ = ["canonical_fingerprint", "new_job"]

DURATION_LIMIT_S = 366 * 86_400.0  # a year: what is longer is more likely milliseconds by mistake
COST_LIMIT = 1e9  # keeps start tags inside their rank band for a thousand such jobs
TAG_LIMIT = 32
METADATA_LIMIT = 64
TEXT_LIMIT = 255  # of a tag, a concurrency key, a metadata key, an idempotency key (as in http-api)
METADATA_VALUE_LIMIT = 2048

_PRIORITIES = {"low": Priority.low, "normal": Priority.normal, "high": Priority.high}
_ON_DISCONNECT = (None, "continue", "cancel")
_AFTER_FAILURE = (None, *FAILURES)


def new_job(
    card: TaskCard,
    request: JobRequest,
    *,
    id: str,  # noqa: A002 - the field's own name
    tenant: str,
    idempotency_key: str | None = None,
    fingerprint: str = "",
) -> NewJob:
    """The job that `request` asks of the task `card`. The input itself is checked apart (`SchemaCheck`, `Task`),
    and so is whether the jobs that it waits for are there (`Holding`).

    Raises:
        InvalidRequest: a name, number or list is out of its limits; `param` names the field.
        InputInvalid: the input is not UTF-8.
    """
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= TEXT_LIMIT:
        raise InvalidRequest(f"an idempotency key has 1 to {TEXT_LIMIT} characters", param="Idempotency-Key")
    if request.run_at is not None:  # where it is taken, it is a delay by now
        raise InvalidRequest("run_at is not for this", param="run_at")
    text = _text(request.input)
    options = card.options if _changes_nothing(request) else _changed(card.options, request)
    if options.limits or options.cost_measure:
        options = limited(options, tenant, text)
    return NewJob(
        id,
        tenant,
        card.queue if request.queue is None else _queue(card, request.queue),
        card.name,
        text,
        card.priority if request.priority is None else _priority(request.priority),
        round(_within("delay", request.delay, 0, DURATION_LIMIT_S) * 1000) if request.delay else 0,
        options,
        idempotency_key,
        fingerprint,
    )


def _queue(card: TaskCard, queue: str) -> str:
    """Another queue than the task's own. Raises InvalidRequest where only that one's workers can run it."""
    if card.needs and queue != card.queue:
        needs = " and ".join(card.needs)
        raise InvalidRequest(
            f"task '{card.name}' needs workers with {needs}: those of its own queue, '{card.queue}'", param="queue"
        )
    return check_name("queue", queue)


def canonical_fingerprint(body: bytes | object) -> str:
    """32 hex digits that are equal for bodies of equal JSON, whatever their spacing and the order of their members.

    Raises InvalidRequest when `body` is bytes that are not JSON.
    """
    text = body if isinstance(body, bytes) else msgspec.json.encode(body)
    try:
        canonical = msgspec.json.encode(msgspec.json.decode(text), order="deterministic")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    return hashlib.blake2b(canonical, digest_size=16).hexdigest()


# -- the request's limits


def _changes_nothing(request: JobRequest) -> bool:
    return (
        request.timeout is None
        and request.queue_timeout is None
        and request.first_output_timeout is None
        and request.output_timeout is None
        and request.retention is None
        and request.retry is None
        and request.cost is None
        and request.concurrency_key is None
        and request.on_disconnect is None
        and not request.metadata
        and not request.tags
        and request.webhook is None
        and not request.after
        and request.after_failure is None
    )


def _changed(options: JobOptions, request: JobRequest) -> JobOptions:
    """The task's options with what the request says instead; tags and metadata are added to the task's own."""
    changes: dict[str, Any] = {
        name: value
        for name, value in (
            ("timeout_s", _duration("timeout", request.timeout)),
            ("queue_timeout_s", _duration("queue_timeout", request.queue_timeout)),
            ("first_output_timeout_s", _duration("first_output_timeout", request.first_output_timeout)),
            ("output_timeout_s", _duration("output_timeout", request.output_timeout)),
            ("retention_s", _duration("retention", request.retention, least_s=0)),
            ("retry", None if request.retry is None else _retry(options.retry, request.retry)),
            ("cost", None if request.cost is None else _within("cost", request.cost, 1e-6, COST_LIMIT)),
            ("concurrency_key", _label("concurrency_key", request.concurrency_key)),
            ("on_disconnect", _choice("on_disconnect", request.on_disconnect, _ON_DISCONNECT)),
            ("webhook", None if request.webhook is None else _webhook(request.webhook)),
            ("after", _after(request.after) if request.after else None),
            ("after_failure", _choice("after_failure", request.after_failure, _AFTER_FAILURE)),
        )
        if value is not None
    }
    if request.tags:
        changes["tags"] = _tags(options.tags, request.tags)
    if request.metadata:
        changes["metadata"] = _metadata({**options.metadata, **request.metadata})
    return msgspec.structs.replace(options, **changes)


def _retry(policy: Retry, request: RetryRequest) -> Retry:
    changes = {name: value for name, value in msgspec.structs.asdict(request).items() if value is not None}
    try:
        return msgspec.structs.replace(policy, **changes)
    except ValueError as error:
        raise InvalidRequest(str(error), param="retry") from error


def _webhook(webhook: Webhook) -> Webhook:
    parse_url(webhook.url)
    if not webhook.events:
        raise InvalidRequest("webhook events: name at least one, or leave them out for all", param="webhook")
    return msgspec.structs.replace(webhook, events=tuple(dict.fromkeys(webhook.events)))


def _after(jobs: tuple[str, ...]) -> tuple[str, ...]:
    """The jobs to wait for, each once."""
    ids = tuple(dict.fromkeys(jobs))
    if len(ids) > AFTER_LIMIT:
        raise InvalidRequest(f"a job waits for {AFTER_LIMIT:,} others at the most, not {len(ids):,}", param="after")
    for job_id in ids:
        _label("after", job_id)
    return ids


def _tags(own: tuple[str, ...], added: tuple[str, ...]) -> tuple[str, ...]:
    tags = tuple(dict.fromkeys((*own, *added)))
    if len(tags) > TAG_LIMIT:
        raise InvalidRequest(f"a job has at most {TAG_LIMIT} tags, not {len(tags)}", param="tags")
    for tag in tags:
        _label("tags", tag)
    return tags


def _metadata(pairs: dict[str, str]) -> dict[str, str]:
    if len(pairs) > METADATA_LIMIT:
        raise InvalidRequest(f"metadata has at most {METADATA_LIMIT} pairs, not {len(pairs)}", param="metadata")
    for key, value in pairs.items():
        _label("metadata", key)
        if len(value) > METADATA_VALUE_LIMIT:
            raise InvalidRequest(
                f"metadata '{key}' has {len(value)} characters; {METADATA_VALUE_LIMIT} is the most", param="metadata"
            )
    return pairs


def _priority(name: str) -> Priority:
    _choice("priority", name, tuple(_PRIORITIES))
    return _PRIORITIES[name]


def _choice(param: str, value: str | None, choices: tuple[str | None, ...]) -> str | None:
    if value not in choices:
        named = ", ".join(repr(choice) for choice in choices if choice is not None)
        raise InvalidRequest(f"{param} is one of {named}, not {value!r}", param=param)
    return value


def _duration(param: str, value: float | None, least_s: float = 0.001) -> float | None:
    return None if value is None else _within(param, value, least_s, DURATION_LIMIT_S)


def _within(param: str, value: float, least: float, most: float) -> float:
    if not least <= value <= most:  # so written, it refuses NaN too
        raise InvalidRequest(f"{param} must be {least:.12g} to {most:.12g}, not {value:.12g}", param=param)
    return value


def _label(param: str, text: str | None) -> str | None:
    """`text`, if it may be a key to find things by: not empty, not long, and printable."""
    if text is not None and not (1 <= len(text) <= TEXT_LIMIT and text.isprintable()):
        raise InvalidRequest(f"{param}: {text[:40]!r} is not 1 to {TEXT_LIMIT} printable characters", param=param)
    return text


# -- the input


def _text(raw: msgspec.Raw) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise InputInvalid("the input is not UTF-8", (Fault("", "is not UTF-8"),)) from error
