"""What a worker and a gateway tell the engine of themselves: sessions, and the catalogue of tasks."""

from __future__ import annotations

import msgspec

from ropeway.domain.cache import Cache
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.job import DEFAULT_OPTIONS, JobOptions
from ropeway.domain.lease import DEFAULT_SESSION_TTL_MS
from ropeway.domain.rank import Priority

__all__ = ["MODEL_FEATURES", "MODEL_KINDS", "ModelCard", "TaskCard", "WorkerCard"]

MODEL_KINDS = ("chat", "embedding")
MODEL_FEATURES = ("tools", "response_format", "logprobs", "images", "audio", "files", "dimensions")

_MODEL_ID_LIMIT = 128


class ModelCard(msgspec.Struct, frozen=True):
    """A model that a task serves to those who ask by a model's name.

    `id` is 1 to 128 visible ASCII characters, as `smollm2-135m` or `org/model:7b`. `kind` is `chat` or `embedding`.
    `created` is seconds since the epoch, as OpenAI's list has it. `takes` names what the model can do beyond words in,
    words out (`MODEL_FEATURES`): a request that asks for anything else is refused before it becomes a job.

    Raises InvalidRequest for a card that cannot be.
    """

    id: str
    kind: str
    owned_by: str = "ropeway"
    created: int = 0
    takes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.id) <= _MODEL_ID_LIMIT or not all("!" <= char <= "~" for char in self.id):
            raise InvalidRequest(
                f"{self.id[:_MODEL_ID_LIMIT]!r} is no model id: 1 to {_MODEL_ID_LIMIT} visible ASCII characters",
                param="id",
            )
        if self.kind not in MODEL_KINDS:
            raise InvalidRequest(f"a model's kind is {' or '.join(MODEL_KINDS)}, not {self.kind!r}", param="kind")
        unknown = [name for name in self.takes if name not in MODEL_FEATURES]
        if unknown:
            raise InvalidRequest(
                f"model '{self.id}' takes {unknown[0]!r}, which is none of {', '.join(MODEL_FEATURES)}", param="takes"
            )


class TaskCard(msgspec.Struct, frozen=True):
    """A task as its callers see it: enough to accept or refuse a job without importing user code.

    `input_schema` and `output_schema` are JSON Schema (2020-12) as JSON text; `streams` tells that it yields items.
    `options` and `priority` hold for a job that does not say otherwise. `models` it serves on the OpenAI routes.
    `cache`: that its results may be used again. `needs`: the labels (`domain.label`) that a worker must have for it.
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
    cache: Cache | None = None
    needs: tuple[str, ...] = ()


class WorkerCard(msgspec.Struct, frozen=True):
    """A worker's session as it announces itself, again whenever something here changes.

    `state` is ready, busy or draining. `schedules` are the ids of those that its application declares. `labels` tell
    what it may serve, `devices` what it gives to its children, `warm` the tasks that have a child with all they need
    open. The engine fills in `expires_at_ms` and `started_at_ms`.
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
    schedules: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    warm: tuple[str, ...] = ()
