"""The queues that a batch of submits goes to: their policies, depths and fair queueing's tags, read once, kept true."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from ropeway.domain.errors import QueueFull, TooManyQueued
from ropeway.domain.job import Job, NewJob
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import QueuePolicy
from ropeway.domain.rank import Priority, corrected, place, rank_of
from ropeway.engines.sqlite.statements import encode_text
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["Flow", "FlowKey", "Flows", "correct", "flow_key"]

FlowKey = tuple[str, Priority, str]
"""A queue, a band of it, and a tenant in that."""

_FLOWS = """
SELECT json_group_array(json_array(
    queue, band, tenant,
    coalesce((SELECT scheduled + queued FROM counts WHERE counts.queue = flow.queue AND counts.tenant = ''), 0),
    coalesce((SELECT scheduled + queued FROM counts
              WHERE counts.queue = flow.queue AND counts.tenant = flow.tenant), 0),
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


class _Depth:
    """Jobs that wait, queued and scheduled: in a queue, or of one tenant in it."""

    __slots__ = ("waiting",)

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting


class Line:
    """One queue, as far as the batch needs it."""

    __slots__ = ("depth", "is_new", "name", "owners", "policy")

    def __init__(self, row: _FlowRow) -> None:
        self.name = row.queue
        self.is_new = row.policy is None
        self.policy = QueuePolicy(row.queue) if row.policy is None else _decode_policy(row.policy)
        self.depth = _Depth(row.depth)
        self.owners: dict[str, _Depth] = {}


class Flow:
    """One tenant's jobs in one band of a queue, moved on by each job that is taken into it."""

    __slots__ = ("_last_finish", "_own", "_virtual_time", "_weight", "band", "line", "scheduled", "taken", "tenant")

    def __init__(self, line: Line, row: _FlowRow) -> None:
        self.line = line
        self.band = row.band
        self.tenant = row.tenant
        self.taken = 0
        self.scheduled = 0  # of those taken
        self._own = line.owners.setdefault(row.tenant, _Depth(row.own_depth))
        self._virtual_time = row.virtual_time
        self._last_finish = row.last_finish
        self._weight = line.policy.weights.get(row.tenant, 1.0)

    def refusal(self, max_own: int | None) -> QueueFull | TooManyQueued | None:
        """Why the queue cannot take one more job of this tenant; `max_own` is what the job itself says of that."""
        policy, own = self.line.policy, self._own.waiting
        if any(limit is not None and own >= limit for limit in (policy.max_depth_per_tenant, max_own)):
            return TooManyQueued(self.line.name, own)
        if self.line.depth.waiting >= policy.max_depth:
            return QueueFull(self.line.name, self.line.depth.waiting)
        return None

    def take(self, cost: float) -> float:
        """One more job waits here: its rank. The tenant's tag moves on."""
        start, self._last_finish = place(self._virtual_time, self._last_finish, cost, self._weight)
        self.taken += 1
        self._own.waiting += 1
        self.line.depth.waiting += 1
        return rank_of(self.band, start)

    def owe(self, amount: float) -> None:
        """A job that was here took so much more, or less, than its cost."""
        self._last_finish = corrected(self._virtual_time, self._last_finish, amount, self._weight)

    def row(self) -> tuple[str, Priority, str, float]:
        """For the table `flows`."""
        return self.line.name, self.band, self.tenant, self._last_finish


class Flows:
    """The flows of one batch of submits."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._flows: dict[FlowKey, Flow] = {}
        self._lines: dict[str, Line] = {}

    def __getitem__(self, key: FlowKey) -> Flow:
        return self._flows[key]

    def taken(self) -> list[Flow]:
        """Those that a job was taken into."""
        return [flow for flow in self._flows.values() if flow.taken]

    def learn(self, keys: Iterable[FlowKey]) -> None:
        """Read what the store knows of these flows; what this batch has changed of a queue stays."""
        self._tx.ledger.flush()
        for row in _decode_flows(self._tx.value(_FLOWS, encode_text(list(keys)))):
            line = self._lines.get(row.queue)
            if line is None:
                line = self._lines[row.queue] = Line(row)
            self._flows.setdefault((row.queue, row.band, row.tenant), Flow(line, row))

    def depth(self, queue: str) -> int:
        """How many jobs wait in a queue, also one that nothing was submitted to here."""
        if queue not in self._lines:
            self.learn([(queue, Priority.normal, "")])
        return self._lines[queue].depth.waiting

    def save(self) -> None:
        """Write the tags that moved, the queues that are new, and the counts."""
        taken = self.taken()
        new = {flow.line.name: encode_text(flow.line.policy) for flow in taken if flow.line.is_new}
        self._tx.run_packed(_NEW_QUEUES, list(new.items()))
        self._tx.run_packed(_LAST_FINISHES, [flow.row() for flow in taken])
        for flow in taken:
            self._tx.ledger.count(flow.line.name, flow.tenant, None, State.queued, flow.taken - flow.scheduled)
            self._tx.ledger.count(flow.line.name, flow.tenant, None, State.scheduled, flow.scheduled)


def correct(tx: Transaction, owed: Sequence[tuple[FlowKey, float]]) -> None:
    """Move the tags of tenants whose jobs took more, or less, than their cost."""
    if not owed:
        return
    flows = Flows(tx)
    flows.learn({key for key, _ in owed})
    for key, amount in owed:
        flows[key].owe(amount)
    tx.run_packed(_LAST_FINISHES, [flows[key].row() for key in {key for key, _ in owed}])


def flow_key(job: NewJob | Job) -> FlowKey:
    return job.queue, job.priority, job.tenant
