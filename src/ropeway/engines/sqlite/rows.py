"""Jobs and events as they come out of the tables: SQLite writes the JSON, msgspec reads it straight into the domain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ropeway.domain.event import Cursor, Event
from ropeway.domain.job import DEFAULT_OPTIONS, Job, JobOptions
from ropeway.domain.lifecycle import State
from ropeway.engines.sqlite.schema import CODES, STATES
from ropeway.engines.sqlite.statements import Statements, encode_text

__all__ = [
    "EMPTY_INPUT",
    "INPUT",
    "JOB",
    "JOB_BARE",
    "READY",
    "EventRow",
    "decode_jobs",
    "events_of",
    "input_of",
    "job_up_to",
    "options_from",
    "options_text",
    "with_input",
]

_BIG_INPUT_BYTES = 16 * 1024

INPUT = f"iif(octet_length(inputs.input) <= {_BIG_INPUT_BYTES}, inputs.input, '')"
"""An input as one of many in a JSON answer: '' for a big one, fetched alone (in JSON it would cost ten times)."""

EMPTY_INPUT = ""

READY = f"state = {CODES[State.queued]} AND parked IS NULL"
"""Who stands in line."""

_STATE_NAME = " ".join(f"WHEN {code} THEN '{state.value}'" for code, state in enumerate(STATES))

# What stands in the row under the field's own name.
_PLAIN = [
    "id",
    "tenant",
    "queue",
    "task",
    "priority",
    "rank",
    "version",
    "attempt",
    "crashes",
    "runs",
    "epoch",
    "seq",
    "started_epoch",
    "created_at_ms",
    "run_at_ms",
    "queue_deadline_ms",
    "started_at_ms",
    "first_output_at_ms",
    "finished_at_ms",
    "expires_at_ms",
    "cancel_requested_at_ms",
    "cancel_reason",
    "worker",
    "session",
    "token",
    "last_outcome",
    "progress",
    "output",
    "error",
    "usage",
    "retry_of",
    "joined",
    "sharers",
    "parked",
    "woken_epoch",
]


def _job(input_: str, output: str = "jobs.output") -> str:
    """The SQL of a job as a JSON object, from its row `jobs`."""
    columns = {name: f"jobs.{name}" for name in _PLAIN} | {"output": output}
    fields = ", ".join(f"'{name}', {column}" for name, column in columns.items())
    state = f"CASE jobs.state {_STATE_NAME} END"
    return (
        f"json_object({fields}, 'input', {input_}, 'options', json(coalesce(jobs.options, '{{}}')), 'state', {state})"
    )


JOB = _job(INPUT)
"""A whole job, from `jobs JOIN inputs`. Give what comes to `with_input`."""

JOB_BARE = _job("''")
"""A job without its input, from `jobs` alone."""


def job_up_to(epoch: str, seq: str, limit: str) -> str:
    """As `JOB_BARE`, for a page of its log: without the output, too, where the page surely ends before the job does.

    An output may be a thousand times as large as a page, and a log is read in many.
    """
    reaches = f"jobs.seq - 1 <= iif(jobs.epoch = {epoch}, {seq}, -1) + {limit} OR jobs.epoch < {epoch}"
    return _job("''", f"iif({reaches}, jobs.output, NULL)")


decode_jobs = msgspec.json.Decoder(list[Job]).decode

_decode_options = msgspec.json.Decoder(JobOptions).decode
_OPTIONS_CACHE_SIZE = 512


class EventRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One append, as stored: `[epoch, seq of the first, attempt, at_ms, [[type, data], ...]]`."""

    epoch: int
    seq: int
    attempt: int
    at_ms: int
    entries: list[tuple[str, str]]


def events_of(job_id: str, rows: Iterable[EventRow]) -> list[Event]:
    """The events that the rows hold, in the rows' order."""
    return [
        Event(Cursor(row.epoch, seq), type_, job_id, row.attempt, row.at_ms, data)
        for row in rows
        for seq, (type_, data) in enumerate(row.entries, row.seq)
    ]


def input_of(statements: Statements, job_id: str) -> str:
    """One input, of any size; '' when the job is gone."""
    found: str | None = statements.value("SELECT input FROM jobs JOIN inputs USING (n) WHERE id = ?", job_id)
    return found or EMPTY_INPUT


def with_input(statements: Statements, job: Job) -> Job:
    """The job with its input, which `JOB` leaves out when it is big."""
    if job.input != EMPTY_INPUT:
        return job
    return msgspec.structs.replace(job, input=input_of(statements, job.id))


class _OptionsCache:
    """Options and their texts: nearly all jobs of a program share a few."""

    def __init__(self) -> None:
        self._by_text: dict[str, JobOptions] = {}
        self._by_identity: dict[int, tuple[JobOptions, str | None]] = {}

    def read(self, text: str) -> JobOptions:
        options = self._by_text.get(text)
        if options is None:
            options = _decode_options(text)
            _bound(self._by_text)
            self._by_text[text] = options
        return options

    def write(self, options: JobOptions) -> str | None:
        known = self._by_identity.get(id(options))
        if known is not None and known[0] is options:  # an id is used again once its object is gone
            return known[1]
        encoded = encode_text(options)
        text = None if encoded == "{}" else encoded
        _bound(self._by_identity)
        self._by_identity[id(options)] = (options, text)
        return text


def _bound(cache: dict[Any, Any]) -> None:
    if len(cache) >= _OPTIONS_CACHE_SIZE:
        cache.clear()


_options = _OptionsCache()


def options_from(text: str | None) -> JobOptions:
    """The options that `options_text` wrote."""
    return DEFAULT_OPTIONS if text is None else _options.read(text)


def options_text(options: JobOptions) -> str | None:
    """Options as they are stored: None for the default ones."""
    return None if options is DEFAULT_OPTIONS else _options.write(options)
