"""The queues that a batch of submits goes to: their policies, depths and fair queueing's tags, read once and kept exact."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ropeway.domain.errors import QueueFull, TooManyQueued
from ropeway.domain.job import NewJob
from ropeway.domain.queue import QueuePolicy
from ropeway.domain.rank import Priority, place, rank_of
from ropeway.engines.sqlite.statements import encode_text
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["Flow", "Line", "Lines", "flow_of"]

Flow = tuple[str, Priority, str]
"""A queue, a band of it, and a tenant in that."""

_FLOWS = """
SELECT json_group_array(json_array(
    queue, band, tenant,
    coalesce((SELECT scheduled + queued FROM counts WHERE counts.queue = flow.queue AND counts.tenant = ''), 0),
    coalesce((SELECT scheduled + queued FROM counts WHERE counts.queue = flow.queue AND counts.tenant = flow.tenant), 0),
    coalesce((SELECT virtual_time FROM bands WHERE bands.queue = flow.queue AND bands.band = flow.band), 0.0),
    coalesce((SELECT last_finish FROM flows
              WHERE flows.queue = flow.queue AND flows.band = flow.band AND flows.tenant = flow.tenant), 0.0),
    (SELECT policy FROM queues WHERE queues.queue = flow.queue)))
FROM (SELECT value->>0 AS queue, value->>1 AS band, value->>2 AS tenant FROM jsonb_each(?1)) AS flow
"""

_NEW_QUEUES = """
INSERT INTO queues(queue, policy, paused) SELECT value->>0, value->>1, 0 FROM jsonb_each(?1) WHERE true
ON CONFLICT DO NOTHING
"""

_LAST_FINISHES = """
INSERT INTO flows(queue, band, tenant, last_finish)
SELECT value->>0, value->>1, value->>2, value->>3 FROM jsonb_each(?1) WHERE true
ON CONFLICT DO UPDATE SET last_finish = excluded.last_finish
"""


class _FlowRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    queue: str
    band: Priority
    tenant: str
    depth: int
    own_depth: int
    virtual_time: float
    last_finish: float
    policy: str | None


_decode_flows = msgspec.json.Decoder(list[_FlowRow]).decode
_decode_policy = msgspec.json.Decoder(QueuePolicy).decode


class Line:
    """One queue, as far as the batch needs it."""

    __slots__ = ("_last_finish", "_moved", "_own_depth", "_virtual_time", "depth", "is_new", "name", "policy")

    def __init__(self, row: _FlowRow) -> None:
        self.name = row.queue
        self.is_new = row.policy is None
        self.policy = QueuePolicy(row.queue) if row.policy is None else _decode_policy(row.policy)
        self.depth = row.depth  # jobs that wait, queued and scheduled
        self._own_depth: dict[str, int] = {}
        self._virtual_time: dict[Priority, float] = {}
        self._last_finish: dict[tuple[Priority, str], float] = {}
        self._moved: set[tuple[Priority, str]] = set()

    def know(self, row: _FlowRow) -> None:
        """Learn of one flow; what the batch has already changed of it stays."""
        self._own_depth.setdefault(row.tenant, row.own_depth)
        self._virtual_time.setdefault(row.band, row.virtual_time)
        self._last_finish.setdefault((row.band, row.tenant), row.last_finish)

    def refusal(self, job: NewJob) -> QueueFull | TooManyQueued | None:
        """Why this queue cannot take the job now."""
        limit = self.policy.max_depth_per_tenant
        if limit is not None and self._own_depth[job.tenant] >= limit:
            return TooManyQueued(job.queue, self._own_depth[job.tenant])
        if self.depth >= self.policy.max_depth:
            return QueueFull(job.queue, self.depth)
        return None

    def take(self, job: NewJob) -> float:
        """The new job's rank, moving its tenant's tag on; it waits here from now on."""
        flow = (job.priority, job.tenant)
        weight = self.policy.weights.get(job.tenant, 1.0)
        virtual_time = self._virtual_time[job.priority]
        start, self._last_finish[flow] = place(virtual_time, self._last_finish[flow], job.options.cost, weight)
        self._moved.add(flow)
        self.depth += 1
        self._own_depth[job.tenant] += 1
        return rank_of(job.priority, start)

    def last_finishes(self) -> list[tuple[str, Priority, str, float]]:
        """Rows for `flows`."""
        return [(self.name, band, tenant, self._last_finish[band, tenant]) for band, tenant in self._moved]


class Lines:
    """The queues of one batch, by name."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._lines: dict[str, Line] = {}

    def __getitem__(self, queue: str) -> Line:
        return self._lines[queue]

    def learn(self, flows: Iterable[Flow]) -> None:
        """Read what the store knows of these flows."""
        self._tx.ledger.flush()
        for row in _decode_flows(self._tx.value(_FLOWS, encode_text(list(flows)))):
            line = self._lines.get(row.queue)
            if line is None:
                line = self._lines[row.queue] = Line(row)
            line.know(row)

    def depth(self, queue: str) -> int:
        """How many jobs wait in a queue, also one that nothing was submitted to here."""
        if queue not in self._lines:
            self.learn([(queue, Priority.normal, "")])
        return self._lines[queue].depth

    def save(self) -> None:
        """Write the tags that moved, and queues that are new. The counts are the ledger's."""
        new = [(line.name, encode_text(line.policy)) for line in self._lines.values() if line.is_new and line.depth]
        moved = [row for line in self._lines.values() for row in line.last_finishes()]
        self._tx.run_packed(_NEW_QUEUES, new)
        self._tx.run_packed(_LAST_FINISHES, moved)


def flow_of(job: NewJob) -> Flow:
    return job.queue, job.priority, job.tenant
