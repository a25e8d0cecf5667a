"""Exit codes, and how an error becomes one line and one of them.

0  done                             4  no such job, task, file, key or schedule
1  the job failed or was cancelled  5  refused: queue full, job still live, no key or not that one
2  the command or its input is wrong  6  the wait ended before the job
3  engine or gateway out of reach   130  interrupted (Ctrl-C)
"""

from __future__ import annotations

from enum import IntEnum

from ropeway.cli.network import CannotListen
from ropeway.client import GatewayRefused
from ropeway.domain.errors import (
    EngineUnavailable,
    InputInvalid,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobPurged,
    KeyNotFound,
    RopewayError,
    TaskNotFound,
    WaitTimeout,
)
from ropeway.domain.file import FileNotFound
from ropeway.domain.schedule import ScheduleNotFound
from ropeway.runtime import ResourceFailed

__all__ = ["CODES_HELP", "Exit", "exit_of", "message_of"]


class Exit(IntEnum):
    """What a command's exit code means."""

    ok = 0
    job_failed = 1
    usage = 2
    unavailable = 3
    not_found = 4
    refused = 5
    timed_out = 6
    no_start = 7
    interrupted = 130


CODES_HELP = (
    "Exit codes: 0 done; 1 the job failed or was cancelled; 2 the command or its input is wrong; 3 engine or gateway "
    "out of reach; 4 no such job, task, file, key or schedule; 5 refused (queue full, job still live, no key or not "
    "that one); 6 the wait ended before the job; 7 the application or the server could not start; 130 interrupted."
)

_EXITS: tuple[tuple[type[RopewayError], Exit], ...] = (
    (JobFailed, Exit.job_failed),
    (JobCancelled, Exit.job_failed),
    (InvalidRequest, Exit.usage),
    (InputInvalid, Exit.usage),
    (EngineUnavailable, Exit.unavailable),
    (GatewayRefused, Exit.unavailable),
    (JobNotFound, Exit.not_found),
    (JobPurged, Exit.not_found),
    (TaskNotFound, Exit.not_found),
    (KeyNotFound, Exit.not_found),
    (FileNotFound, Exit.not_found),
    (ScheduleNotFound, Exit.not_found),
    (WaitTimeout, Exit.timed_out),
    (CannotListen, Exit.no_start),
    (ResourceFailed, Exit.no_start),
    (RopewayError, Exit.refused),
)


def exit_of(error: RopewayError) -> Exit:
    """The code for an error's class."""
    return next(code for kind, code in _EXITS if isinstance(error, kind))


def message_of(error: RopewayError) -> str:
    """The error for a person: what is wrong, and each fault of an input on its own line."""
    lines = [error.detail]
    if isinstance(error, InputInvalid) and len(error.faults) > 1:
        lines += [f"  {fault.pointer or '(the input)'} {fault.detail}" for fault in error.faults]
    if error.retry_after_s is not None:
        lines.append(f"try again in {error.retry_after_s:g} s")
    return "\n".join(lines)
