"""The answer to a plain submit, shaped once.

Most jobs that are submitted differ in their id, their time and their place in line. The rest of the answer is the same
for the same task and queue, so it is encoded once, with holes, and the holes are filled: 2 us instead of 13.
"""

from __future__ import annotations

import msgspec

from ropeway.client.wire import job_body, timestamp
from ropeway.domain.job import DEFAULT_OPTIONS, Job, JobOptions
from ropeway.domain.lifecycle import State
from ropeway.domain.rank import Priority
from ropeway.engines.base import Reading

__all__ = ["Receipts"]

_LIMIT = 1_000  # shapes kept; with more kinds of jobs than these, all are forgotten and made again
_ID, _AHEAD, _ETA = "@id@", -111_111_111, -222_222_222.0
_CREATED_MS = 1

_Kind = tuple[str, str, Priority, str]


class Receipts:
    """Encoded answers of one gateway."""

    def __init__(self, engine: Reading) -> None:
        self._engine = engine
        self._shapes: dict[_Kind, bytes] = {}

    def fresh(self, job: Job, base: str, ahead: int, eta_s: float | None) -> bytes | None:
        """The answer for a job that was just queued and has nothing special about it; None for any other."""
        if job.version != 1 or job.state is not State.queued or job.retry_of is not None:
            return None
        if job.options is not DEFAULT_OPTIONS and _shows(job.options):
            return None
        if "@" in job.task or "@" in job.queue:
            return None  # no name of ours: it could be taken for a hole
        kind = (job.task, job.queue, job.priority, base)
        shape = self._shapes.get(kind) or self._shape(job, kind)
        return (
            shape.replace(b"@id@", job.id.encode())
            .replace(b"@at@", timestamp(job.created_at_ms).encode())
            .replace(b"@ahead@", b"%d" % ahead)
            .replace(b"@eta@", b"null" if eta_s is None else b"%.3f" % eta_s)
        )

    def _shape(self, job: Job, kind: _Kind) -> bytes:
        sample = msgspec.structs.replace(job, id=_ID, created_at_ms=_CREATED_MS, output=None, progress=None)
        durability = self._engine.info.durability
        body = job_body(sample, position=_AHEAD, eta_s=_ETA, durability=durability, base=kind[3], with_input=False)
        shape = msgspec.json.encode(body)
        for value, hole in ((_AHEAD, b"@ahead@"), (_ETA, b"@eta@"), (timestamp(_CREATED_MS), b"@at@")):
            shape = shape.replace(str(value).encode(), hole)
        if len(self._shapes) >= _LIMIT:
            self._shapes.clear()
        self._shapes[kind] = shape
        return shape


def _shows(options: JobOptions) -> bool:
    """Whether any of them is in the answer."""
    return bool(options.metadata or options.tags or options.webhook or options.after or options.parent)
