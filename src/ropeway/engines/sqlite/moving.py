"""The one way to change jobs that does not hurry: whole rows are read, changed, written back.

The hot changes (submit, lease, append, the plain commit) have statements of their own; everything else comes here.
"""

# ruff: noqa: S608 (statements are put together from this package's own constants)

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ropeway.domain.change import Change
from ropeway.domain.event import Event
from ropeway.domain.job import Job, NewJob
from ropeway.domain.lifecycle import WAITING, State
from ropeway.engines.sqlite.accounts import Used, note_usage
from ropeway.engines.sqlite.arriving import deliver
from ropeway.engines.sqlite.lines import FlowKey, correct, flow_key
from ropeway.engines.sqlite.rows import JOB, JOB_BARE, decode_jobs, with_input
from ropeway.engines.sqlite.schema import CODES
from ropeway.engines.sqlite.statements import encode_text
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["KEEP_EVENTS", "Moving", "load", "load_with_inputs"]

# Every column of a job that may change after its submit; `session` and the like as they stand in Job.
_COLUMNS = [
    "version",
    "attempt",
    "crashes",
    "runs",
    "epoch",
    "seq",
    "started_epoch",
    "run_at_ms",
    "queue_deadline_ms",
    "started_at_ms",
    "first_output_at_ms",
    "finished_at_ms",
    "expires_at_ms",
    "cancel_requested_at_ms",
    "cancel_reason",
    "worker",
    "session",
    "token",
    "last_outcome",
    "progress",
    "output",
    "error",
    "usage",
    "joined",
    "sharers",
    "parked",
    "woken_epoch",
]

_LOAD = f"""
SELECT json_group_array({JOB_BARE}) FROM json_each(?1) AS wanted CROSS JOIN jobs ON jobs.id = wanted.value
"""

_LOAD_WITH_INPUTS = f"""
SELECT json_group_array({JOB})
FROM json_each(?1) AS wanted CROSS JOIN jobs ON jobs.id = wanted.value CROSS JOIN inputs USING (n)
"""

_SAVE = f"""
UPDATE jobs SET state = new.row->>1, shelf = iif(new.row->>1 = {CODES[State.running]}, shelf, new.row->>1),
    {", ".join(f"{name} = new.row->>{place}" for place, name in enumerate(_COLUMNS, 2))}
FROM (SELECT value AS row FROM jsonb_each(?1)) AS new WHERE jobs.id = new.row->>0
"""

_NARROW = "SELECT json_group_array(queue) FROM queues WHERE max_running IS NOT NULL"

KEEP_EVENTS = """
INSERT INTO events(n, epoch, seq, attempt, at_ms, entries)
SELECT jobs.n, new.value->>1, new.value->>2, new.value->>3, new.value->>4, new.value->5
FROM jsonb_each(?1) AS new CROSS JOIN jobs ON jobs.id = new.value->>0
"""


_decode_texts = msgspec.json.Decoder(list[str]).decode


def load(tx: Transaction, job_ids: Iterable[str]) -> list[Job]:
    """The jobs that are there, without their inputs, in the order of the ids."""
    return decode_jobs(tx.value(_LOAD, encode_text(list(job_ids))))


def load_with_inputs(tx: Transaction, job_ids: Iterable[str]) -> list[Job]:
    """The same, whole."""
    jobs = decode_jobs(tx.value(_LOAD_WITH_INPUTS, encode_text(list(job_ids))))
    return [with_input(tx, job) for job in jobs]


class Moving:
    """Jobs being changed by the domain's rules. Then `save`, and when all of an operation is, `tx.settle`."""

    def __init__(self, tx: Transaction, jobs: Iterable[Job]) -> None:
        self._tx = tx
        self.jobs = {job.id: job for job in jobs}
        self._changed: set[str] = set()
        self._events: list[Event] = []
        self._deliveries: list[NewJob] = []
        self._used: list[Used] = []
        self._owed: list[tuple[FlowKey, float]] = []
        self._left: set[str] = set()  # the queues of which fewer jobs run

    def owned(self, tenant: str, job_id: str) -> Job | None:
        """The job, if it is this tenant's."""
        job = self.jobs.get(job_id)
        return job if job is not None and job.tenant == tenant else None

    def apply(self, old: Job, change: Change) -> Job:
        """Take what became of a job: the only writer of a state here. It counts and hints; `save` writes."""
        job = change.job
        self._events += change.events
        if change.delivery is not None:
            self._deliveries.append(change.delivery)
        if change.used is not None:
            self._used.append(Used(job.tenant, job.task, job.state.terminal, change.used))
        self.jobs[job.id] = job
        self._changed.add(job.id)
        self._tx.topics.jobs.add(job.id)
        if change.owed:
            self._owed.append((flow_key(job), change.owed))
        if job.state is not old.state:
            self._make_room(old, change)
            self._tx.ledger.count(job.queue, job.tenant, old.state, job.state)
            if job.state.terminal:
                self._tx.topics.ends.add(job.id)
            self._hint(job)
        return job

    def save(self) -> None:
        """Write the changed jobs, the new events, the deliveries of ends, what was used, and what is owed."""
        self._tx.run_packed(_SAVE, [_row(self.jobs[job_id]) for job_id in sorted(self._changed)])
        self._tx.run_packed(KEEP_EVENTS, [_event_row(event) for event in self._events])
        self._changed.clear()
        self._events.clear()
        if self._deliveries:
            deliver(self._tx, self._deliveries)
            self._deliveries.clear()
        note_usage(self._tx, self._used)
        self._used.clear()
        correct(self._tx, self._owed)
        self._owed.clear()
        if self._left:
            for queue in self._left.intersection(_decode_texts(self._tx.value(_NARROW))):
                self._tx.topics.queue(queue)
            self._left.clear()

    def _make_room(self, old: Job, change: Change) -> None:
        """Whoever waits for this job's end, or stands behind it under a limit, may have their turn."""
        job = change.job
        if old.state is State.running:
            self._left.add(job.queue)
            if job.options.limits:
                self._tx.limits.end(job.options.limits, job.last_outcome or "lost", change.used)
        elif old.parked is not None:
            self._tx.limits.leave(old.parked)

    def _hint(self, job: Job) -> None:
        topics = self._tx.topics
        topics.lifecycle()
        if job.state is State.queued:
            topics.queue(job.queue)
        if job.state in WAITING and (job.run_at_ms, job.queue_deadline_ms) != (None, None):
            topics.upkeep()


def _row(job: Job) -> list[Any]:
    return [job.id, CODES[job.state], *(getattr(job, name) for name in _COLUMNS)]


def _event_row(event: Event) -> list[Any]:
    return [event.job_id, *event.cursor, event.attempt, event.at_ms, [(event.type, event.data)]]
