"""What a worker and a gateway tell the engine of themselves: sessions, and the catalogue of tasks."""

from __future__ import annotations

import msgspec

from ropeway.domain.job import DEFAULT_OPTIONS, JobOptions
from ropeway.domain.lease import DEFAULT_SESSION_TTL_MS
from ropeway.domain.rank import Priority

__all__ = ["ModelCard", "TaskCard", "WorkerCard"]


class ModelCard(msgspec.Struct, frozen=True):
    """A model that a task serves to those who ask by a model's name. `kind` is `chat` or `embedding`."""

    id: str
    kind: str
    owned_by: str = "ropeway"
    created: int = 0  # seconds since the epoch, as OpenAI's list has it


class TaskCard(msgspec.Struct, frozen=True):
    """A task as its callers see it: enough to accept or refuse a job without importing user code.

    `input_schema` and `output_schema` are JSON Schema (2020-12) as JSON text; `streams` tells that it yields items.
    `options` and `priority` hold for a job that does not say otherwise. `models` it serves on the OpenAI routes.
    """

    name: str
    queue: str = "default"
    input_schema: str = "{}"
    output_schema: str = "{}"
    streams: bool = False
    run: str = "loop"
    doc: str = ""
    options: JobOptions = DEFAULT_OPTIONS
    priority: Priority = Priority.normal
    models: tuple[ModelCard, ...] = ()


class WorkerCard(msgspec.Struct, frozen=True):
    """A worker's session as it announces itself, again whenever something here changes.

    `state` is ready, busy or draining. `expires_at_ms` and `started_at_ms` are the engine's to fill in.
    """

    session: str
    name: str
    queues: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    slots: int = 1
    running: int = 0
    threads: int = 0
    state: str = "ready"
    host: str = ""
    pid: int = 0
    ttl_ms: int = DEFAULT_SESSION_TTL_MS
    started_at_ms: int = 0
    expires_at_ms: int = 0
