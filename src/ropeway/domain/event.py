"""The event log of a job: what an entry is, and the ids that are its cursors.

An id is `<epoch>-<n>`: n is contiguous from 0 within an epoch (`0-1` is `job.queued`), and epochs only rise, so ids
rise for ever along a job. Each lease opens an epoch; so do a rescue and a forced cancel.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ropeway.domain.errors import InvalidRequest

__all__ = [
    "ARTIFACT",
    "CANCELLED",
    "FAILED",
    "LOG",
    "OUTPUT_DELTA",
    "OUTPUT_RESET",
    "OUTPUT_RESUMED",
    "PROGRESS",
    "QUEUED",
    "QUEUED_AT",
    "RETRYING",
    "SNAPSHOT",
    "START",
    "STARTED",
    "STEP_COMPLETED",
    "SUCCEEDED",
    "TERMINAL_TYPES",
    "USAGE",
    "Cursor",
    "Draft",
    "Event",
]

QUEUED = "job.queued"
STARTED = "job.started"
RETRYING = "job.retrying"
SUCCEEDED = "job.succeeded"
FAILED = "job.failed"
CANCELLED = "job.cancelled"
PROGRESS = "progress"
LOG = "log"
OUTPUT_DELTA = "output.delta"
OUTPUT_RESET = "output.reset"
OUTPUT_RESUMED = "output.resumed"
STEP_COMPLETED = "step.completed"
ARTIFACT = "artifact"
USAGE = "usage"
SNAPSHOT = "snapshot"

TERMINAL_TYPES = frozenset({SUCCEEDED, FAILED, CANCELLED})


class Cursor(NamedTuple):
    """A place in a job's log: the epoch and the number in it. Ordered as the log is."""

    epoch: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that `str()` gave. Raises InvalidRequest for anything else."""
        epoch, _, seq = text.partition("-")
        if not (epoch.isascii() and epoch.isdigit() and seq.isascii() and seq.isdigit() and len(text) <= 40):
            raise InvalidRequest(f"{text[:40]!r} is not an event id", param="after")
        return cls(int(epoch), int(seq))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


START = Cursor(0, 0)
"""Before the first event of any job."""

QUEUED_AT = Cursor(0, 1)
"""Where every job's `job.queued` stands."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """An entry of a job's log.

    `data` is JSON text, as stored; `at_ms` is the engine's clock; `attempt` is 0 before the first lease.
    """

    cursor: Cursor
    type: str
    job_id: str
    attempt: int
    at_ms: int
    data: str

    @property
    def id(self) -> str:
        return str(self.cursor)

    @property
    def seq(self) -> int:
        return self.cursor.seq


class Draft(NamedTuple):
    """An event as a worker hands it over: its type, and its data as JSON text."""

    type: str
    data: str
