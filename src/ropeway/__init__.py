"""Ropeway: a durable job queue and streaming gateway for AI inference.

The public face. Everything that is not named here may move between releases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ropeway.client import Client, JobHandle, SyncClient
from ropeway.client.wire import EventBody as Event
from ropeway.client.wire import JobBody as Job
from ropeway.domain.errors import (
    EngineUnavailable,
    Fail,
    IdempotencyKeyReused,
    InputInvalid,
    InvalidRequest,
    JobCancelled,
    JobError,
    JobFailed,
    JobLive,
    JobNotFound,
    JobNotRetryable,
    JobPurged,
    OutcomeUnknown,
    PayloadTooLarge,
    QueueFull,
    RetryAfter,
    RopewayError,
    TaskNotFound,
    TooManyQueued,
    WaitTimeout,
)
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueueChange
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.engines.connect import connect
from ropeway.runtime import App, Context, Task, Worker, WorkerOptions

if TYPE_CHECKING:
    from ropeway.mount import asgi

__all__ = [
    "App",
    "Client",
    "Context",
    "EngineUnavailable",
    "Event",
    "Fail",
    "IdempotencyKeyReused",
    "InputInvalid",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobHandle",
    "JobLive",
    "JobNotFound",
    "JobNotRetryable",
    "JobPurged",
    "OutcomeUnknown",
    "PayloadTooLarge",
    "Priority",
    "QueueChange",
    "QueueFull",
    "Retry",
    "RetryAfter",
    "RopewayError",
    "State",
    "SyncClient",
    "Task",
    "TaskNotFound",
    "TooManyQueued",
    "WaitTimeout",
    "Worker",
    "WorkerOptions",
    "asgi",
    "connect",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`asgi` is imported when it is used: a worker or a client needs no web framework."""
    if name != "asgi":
        raise AttributeError(f"module 'ropeway' has no attribute {name!r}")
    from ropeway.mount import asgi

    return asgi
