"""Ropeway: a durable job queue and streaming gateway for AI inference.

The public face. Everything that is not named here may move between releases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ropeway.blobs.handle import File
from ropeway.client import Client, GatewayRefused, JobHandle, SyncClient, call
from ropeway.client.keys import KeyLimits
from ropeway.client.reference import NotKnownYet
from ropeway.client.wire import EventBody as Event
from ropeway.client.wire import JobBody as Job
from ropeway.domain.budget import Budget
from ropeway.domain.cache import Cache
from ropeway.domain.chat import ChatDelta, ChatRequest, EmbeddingRequest
from ropeway.domain.errors import (
    ChildFailed,
    EngineUnavailable,
    Fail,
    Forbidden,
    IdempotencyKeyReused,
    InputInvalid,
    InvalidRequest,
    JobCancelled,
    JobEnded,
    JobError,
    JobFailed,
    JobLive,
    JobNotFound,
    JobNotRetryable,
    JobNotRunning,
    JobPurged,
    KeyNotFound,
    OutcomeUnknown,
    PayloadTooLarge,
    PriorityNotAllowed,
    QueueFull,
    RateLimited,
    RetryAfter,
    RopewayError,
    StepInvalid,
    TaskNotFound,
    TooManyInputs,
    TooManyQueued,
    Unauthenticated,
    WaitTimeout,
)
from ropeway.domain.flow import Awaited
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import Limit
from ropeway.domain.queue import QueueChange
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.domain.schedule import ScheduleConflict, ScheduleNotFound
from ropeway.domain.webhook import Webhook
from ropeway.domain.worker import ModelCard
from ropeway.engines.connect import connect
from ropeway.runtime import (
    DONE,
    NOTHING,
    App,
    Batch,
    Context,
    ResourceFailed,
    Step,
    Task,
    Worker,
    WorkerOptions,
    given,
)

if TYPE_CHECKING:
    from ropeway.mount import asgi
    from ropeway.serving import GatewayOptions

__all__ = [
    "DONE",
    "NOTHING",
    "App",
    "Awaited",
    "Batch",
    "Budget",
    "Cache",
    "ChatDelta",
    "ChatRequest",
    "ChildFailed",
    "Client",
    "Context",
    "EmbeddingRequest",
    "EngineUnavailable",
    "Event",
    "Fail",
    "File",
    "Forbidden",
    "GatewayOptions",
    "GatewayRefused",
    "IdempotencyKeyReused",
    "InputInvalid",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobEnded",
    "JobError",
    "JobFailed",
    "JobHandle",
    "JobLive",
    "JobNotFound",
    "JobNotRetryable",
    "JobNotRunning",
    "JobPurged",
    "KeyLimits",
    "KeyNotFound",
    "Limit",
    "ModelCard",
    "NotKnownYet",
    "OutcomeUnknown",
    "PayloadTooLarge",
    "Priority",
    "PriorityNotAllowed",
    "QueueChange",
    "QueueFull",
    "RateLimited",
    "ResourceFailed",
    "Retry",
    "RetryAfter",
    "RopewayError",
    "ScheduleConflict",
    "ScheduleNotFound",
    "State",
    "Step",
    "StepInvalid",
    "SyncClient",
    "Task",
    "TaskNotFound",
    "TooManyInputs",
    "TooManyQueued",
    "Unauthenticated",
    "WaitTimeout",
    "Webhook",
    "Worker",
    "WorkerOptions",
    "asgi",
    "call",
    "connect",
    "given",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The gateway's part is imported when it is used: a worker or a client needs no web framework."""
    if name == "asgi":
        from ropeway.mount import asgi

        return asgi
    if name == "GatewayOptions":
        from ropeway.serving import GatewayOptions

        return GatewayOptions
    raise AttributeError(f"module 'ropeway' has no attribute {name!r}")
