"""A batch: what is kept of it between its steps, and what OpenAI's SDKs see.

The record is all that a batch is, beside its jobs, whose ids follow from it, and its files: whichever gateway goes on
with it reads it, does the next step and writes it again.

| kind | tenant | id | holds |
|---|---|---|---|
| `batch` | its own | its place, newest first | Batch |
| `batchopen` | '' | the batch's id | whose it is: those that somebody must go on with |
| `batchline` | its own | `<batch>:<line>` | the problem of a line that could become no job |
"""

from __future__ import annotations

from typing import Any

import msgspec

from ropeway.domain.caller import Caller
from ropeway.domain.errors import JobNotFound
from ropeway.domain.ids import SEED_BYTES
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey
from ropeway.engines.records import Records
from ropeway.serving.parts import Parts

__all__ = ["LATEST_MS", "OPEN_KIND", "Batch", "BatchGone", "BatchMoved", "Fault", "Shelf", "batch_body", "batch_id"]

KIND, OPEN_KIND, LINE_KIND = "batch", "batchopen", "batchline"
TTL_MS = 30 * 86_400_000  # OpenAI forgets them after 30 days too
LATEST_MS = (1 << 48) - 1
OPEN = frozenset({"validating", "in_progress", "finalizing", "cancelling"})


class BatchGone(Exception):
    """There is no such batch any more."""


class BatchMoved(Exception):
    """Another gateway goes on with this batch."""


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with an input file, and in which line, from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Batch(msgspec.Struct, frozen=True, omit_defaults=True):
    """A batch as it stands.

    `submitted` lines have become jobs, or problems; the first `ended` of them have ended, `completed` and `failed` so
    many of those. `ending` is what it will be once its files are written.
    """

    id: str
    caller: Caller
    endpoint: str
    input_file: str
    window: str
    created_at_ms: int
    expires_at_ms: int
    status: str = "validating"
    metadata: dict[str, str] = {}
    output_ttl_s: float | None = None
    total: int = 0
    submitted: int = 0
    ended: int = 0
    completed: int = 0
    failed: int = 0
    ending: str = "completed"
    faults: tuple[Fault, ...] = ()
    output_file: str | None = None
    error_file: str | None = None
    at_ms: dict[str, int] = {}  # when it came to each status

    def at(self, status: str, now_ms: int) -> Batch:
        """The batch in another status, from now on."""
        return msgspec.structs.replace(self, status=status, at_ms={**self.at_ms, status: now_ms})

    @property
    def is_open(self) -> bool:
        return self.status in OPEN


_decode = msgspec.json.Decoder(Batch).decode
_decode_text = msgspec.json.Decoder(str).decode


def batch_id(parts: Parts) -> str:
    """A new one: its time first, as in a job's."""
    return f"batch_{parts.clock.now_ms():012x}{parts.random(SEED_BYTES).hex()}"


def _place(id_: str) -> str:
    """Where a batch's record stands: the newest first. What is no id of a batch stands nowhere."""
    suffix = id_.removeprefix("batch_")
    if suffix == id_ or len(suffix) != 32 or not all(char in "0123456789abcdef" for char in suffix):
        raise JobNotFound(f"no batch {id_[:80]}")
    return f"{LATEST_MS - int(suffix[:12], 16):012x}{suffix[12:]}"


class Shelf:
    """Where batches are kept."""

    def __init__(self, engine: Records) -> None:
        self._engine = engine

    async def add(self, batch: Batch) -> None:
        """Keep a new one; somebody goes on with it from then on."""
        owner = msgspec.json.encode(batch.caller.tenant).decode()
        await self._engine.put([_put(batch, 0), Put(RecordKey(OPEN_KIND, "", batch.id), owner, ttl_ms=TTL_MS)])

    async def load(self, tenant: str, id_: str) -> tuple[Batch, int]:
        """The batch and its version. Raises JobNotFound, also for another tenant's."""
        (record,) = await self._engine.fetch([RecordKey(KIND, tenant, _place(id_))])
        if record is None:
            raise JobNotFound(f"no batch {id_[:80]}")
        return _decode(record.body), record.version

    async def save(self, batch: Batch, version: int) -> int | tuple[Batch, int]:
        """Its next version; or, when somebody else wrote it meanwhile, the batch as it is and its version.

        Raises BatchGone.
        """
        (answer,) = await self._engine.put([_put(batch, version)])
        if isinstance(answer, RecordConflict):
            if answer.current is None:
                raise BatchGone
            return _decode(answer.current.body), answer.current.version
        return answer.version

    async def page(self, tenant: str, after: str | None, limit: int) -> list[Batch]:
        """A tenant's batches, newest first. Raises JobNotFound for an `after` that is no id."""
        place = "" if after is None else _place(after)
        return [_decode(record.body) for record in await self._engine.scan(KIND, tenant, place, limit)]

    async def open(self) -> list[tuple[str, str]]:
        """Tenant and id of all that somebody must go on with."""
        found: list[Record] = []
        while True:
            page = await self._engine.scan(OPEN_KIND, "", found[-1].key.id if found else "", 100)
            found += page
            if len(page) < 100:
                return [(_decode_text(record.body), record.key.id) for record in found]

    async def close(self, batch_id: str) -> None:
        """Nobody need go on with it."""
        await self._engine.drop([RecordKey(OPEN_KIND, "", batch_id)])

    async def note(self, batch: Batch, problems: dict[int, str]) -> None:
        """Keep the problems (JSON) of lines that became no job."""
        if problems:
            await self._engine.put([Put(_line(batch, n), problem, ttl_ms=TTL_MS) for n, problem in problems.items()])

    async def noted(self, batch: Batch, lines: list[int]) -> dict[int, str]:
        """The problems of those of these lines that have one."""
        records = await self._engine.fetch([_line(batch, n) for n in lines]) if lines else []
        return {n: record.body for n, record in zip(lines, records, strict=True) if record is not None}


def _put(batch: Batch, version: int) -> Put:
    key = RecordKey(KIND, batch.caller.tenant, _place(batch.id))
    return Put(key, msgspec.json.encode(batch).decode(), version, TTL_MS)


def _line(batch: Batch, n: int) -> RecordKey:
    return RecordKey(LINE_KIND, batch.caller.tenant, f"{batch.id}:{n:06d}")


def batch_body(batch: Batch) -> dict[str, Any]:
    """The batch as OpenAI's SDKs know it."""
    times = {f"{status}_at": at_ms // 1000 for status, at_ms in batch.at_ms.items()}
    faults = [msgspec.structs.asdict(fault) for fault in batch.faults]
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": faults} if faults else None,
        "input_file_id": batch.input_file,
        "completion_window": batch.window,
        "status": batch.status,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": batch.created_at_ms // 1000,
        "expires_at": batch.expires_at_ms // 1000,
        **{f"{status}_at": None for status in _TIMED},
        **times,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": batch.metadata or None,
    }


_TIMED = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
