"""Jobs that wait for others: what they wait for, when they may begin, and how outputs come into inputs.

A job waits *after* other jobs. In its input `{"$output": "job_..."}` stands for what another job came to; whoever is
named so is waited for too. Such a job is scheduled for a time that never comes, and is woken when those before it have
ended; whatever woke it, its attempt looks for itself before it begins.

    every one has succeeded                 -> it runs
    one has not, and it may not run without -> it fails at once, with `dependency_failed`
    all have ended, and it may              -> it runs; the outputs of those that did not succeed are null
    otherwise                               -> it waits
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from ropeway.domain.errors import JobError
from ropeway.domain.job import Job, JobOptions
from ropeway.domain.lifecycle import State

__all__ = [
    "AFTER_LIMIT",
    "CHILDREN_LIMIT",
    "FAILURES",
    "HOLD_MS",
    "Awaited",
    "Standing",
    "awaited_ids",
    "awaited_of",
    "lost_with",
    "places_in",
    "reference",
    "referred",
    "standing_of",
    "with_outputs",
]

MEMBER = "$output"
AFTER_LIMIT = 1_000  # jobs that one waits for: their ids stand in its row
CHILDREN_LIMIT = 10_000  # of one attempt: they end with it, in one sweep
HOLD_MS = 366 * 86_400_000  # until somebody looks again all the same
FAILURES = ("fail", "run")

Place = tuple[str | int, ...]
"""Where something stands in JSON: the members and numbers on the way to it."""


class Standing(StrEnum):
    """How a job stands with those that it waits for."""

    waits = "waits"
    ready = "ready"
    hopeless = "hopeless"


class Awaited(NamedTuple):
    """A job that was waited for, as it ended. `output` is as JSON has it; None where it did not succeed, or is gone."""

    id: str
    state: State | None
    output: Any = None
    error: JobError | None = None
    task: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.state is State.succeeded


def awaited_ids(options: JobOptions, input_json: str) -> tuple[str, ...]:
    """All jobs that a job waits for, each once: those it names, and those whose outputs stand in its input."""
    if not options.after and MEMBER not in input_json:
        return ()
    return tuple(dict.fromkeys((*options.after, *(job_id for job_id, _ in _references(_decoded(input_json))))))


def standing_of(options: JobOptions, jobs: Sequence[Job | None]) -> tuple[Standing, int]:
    """How a job with these options stands, and which of the jobs decides it: None stands for one that is gone."""
    if options.after_failure == "fail":
        for n, job in enumerate(jobs):
            if job is None or (job.state.terminal and job.state is not State.succeeded):
                return Standing.hopeless, n
    for n, job in enumerate(jobs):
        if job is not None and not job.state.terminal:
            return Standing.waits, n
    return Standing.ready, 0


def awaited_of(job_id: str, job: Job | None) -> Awaited:
    """What its successors are told of a job that has ended."""
    if job is None:
        return Awaited(job_id, None)
    output = job.output if job.state is State.succeeded else None
    error = None if job.error is None else msgspec.json.decode(job.error, type=JobError)
    return Awaited(job.id, job.state, None if output is None else msgspec.json.decode(output), error, job.task)


def lost_with(parent: Job) -> str:
    """Why a child is cancelled whose parent has ended otherwise than well."""
    return f"its parent {parent.id} {'was cancelled' if parent.state is State.cancelled else 'failed'}"


def reference(job_id: str) -> dict[str, str]:
    """How a job's output stands in an input before there is any."""
    return {MEMBER: job_id}


def referred(value: object) -> str | None:
    """The job whose output stands here, if one's does."""
    if isinstance(value, dict) and len(value) == 1:
        named = value.get(MEMBER)
        if isinstance(named, str) and named:
            return named
    return None


def places_in(input_json: str | bytes) -> list[Place]:
    """Where outputs stand in an input: what is there has any type, until they are known."""
    return [place for _, place in _references(_decoded(input_json))]


def with_outputs(input_json: str, outputs: Mapping[str, Any]) -> str:
    """The input with these outputs in their places. What is not among them is null."""
    return msgspec.json.encode(_replaced(msgspec.json.decode(input_json), outputs.get)).decode()


def _references(value: object) -> Iterator[tuple[str, Place]]:
    """In the order in which they stand. Without recursion: an input may hold thousands, dozens of levels deep."""
    stack: list[tuple[object, Place]] = [(value, ())]
    while stack:
        value, place = stack.pop()
        job_id = referred(value)
        if job_id is not None:
            yield job_id, place
        elif isinstance(value, dict):
            stack += [(member, (*place, name)) for name, member in reversed(value.items())]
        elif isinstance(value, list):
            stack += [(value[n], (*place, n)) for n in range(len(value) - 1, -1, -1)]


def _replaced(value: Any, output_of: Callable[[str], Any]) -> Any:
    job_id = referred(value)
    if job_id is not None:
        return output_of(job_id)
    if isinstance(value, dict):
        return {name: _replaced(member, output_of) for name, member in value.items()}
    if isinstance(value, list):
        return [_replaced(item, output_of) for item in value]
    return value


def _decoded(input_json: str | bytes) -> object:
    """The input, if an output may stand in it at all: most have none, and are not read for it."""
    try:
        text = input_json.encode() if isinstance(input_json, str) else input_json
        return msgspec.json.decode(text) if b'"$output"' in text else None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
