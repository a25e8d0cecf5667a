"""New jobs into the tables: ranked, counted, written set by set. Who submits, and who leaves a delivery, comes here."""

# ruff: noqa: S608 (statements are put together from this package's own constants)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ropeway.domain.job import Job, NewJob, job_of
from ropeway.domain.lifecycle import State
from ropeway.engines.sqlite.lines import Flow, Flows, flow_key
from ropeway.engines.sqlite.rows import options_text
from ropeway.engines.sqlite.schema import CODES
from ropeway.engines.sqlite.statements import encode_text
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["Arrivals", "deliver"]

_BIG_BYTES = 16 * 1024  # quoted in JSON, a text costs ten times what it costs bound by itself

_LAST_NUMBER = """
SELECT json_array((SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'jobs'), json_group_array(jobs.id))
FROM json_each(?1) AS wanted CROSS JOIN jobs ON jobs.id = wanted.value
"""

_ADD_JOBS = f"""
INSERT INTO jobs(
    n, id, tenant, queue, task, options, priority, state, shelf, rank, version, attempt, crashes, runs, epoch, seq,
    started_epoch, created_at_ms, run_at_ms, queue_deadline_ms, retry_of, claim)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6,
    iif(value->>8 IS NULL, {CODES[State.queued]}, {CODES[State.scheduled]}),
    iif(value->>8 IS NULL, {CODES[State.queued]}, {CODES[State.scheduled]}),
    value->>7, 1, 0, 0, 0, 0, 2, 0, ?2, value->>8, value->>9, value->>10, value->>11
FROM jsonb_each(?1)
"""

_ADD_INPUTS = "INSERT INTO inputs(n, input) SELECT value->>0, value->>1 FROM jsonb_each(?1)"
_ADD_KEYS = "UPDATE jobs SET cache = taken.value->>1 FROM jsonb_each(?1) AS taken WHERE n = taken.value->>0"
_ADD_BIG_INPUT = "INSERT INTO inputs(n, input) VALUES (?, ?)"

_decode_known = msgspec.json.Decoder(tuple[int, set[str]]).decode


class Arrivals:
    """Jobs that come in together. Then `save`. `last_number`: of the job that came last before them."""

    def __init__(self, tx: Transaction, flows: Flows, last_number: int) -> None:
        self._tx = tx
        self._flows = flows
        self._last_number = last_number
        self._rows: list[tuple[Any, ...]] = []
        self._inputs: list[tuple[int, str]] = []
        self._keys: list[tuple[int, str]] = []

    def add(self, new: NewJob, flow: Flow) -> Job:
        """Take one more job into its line."""
        job = job_of(new, flow.take(new.options.cost), self._tx.now_ms)
        self._last_number += 1
        n = self._last_number
        key = new.idempotency_key
        deadline_ms = job.queue_deadline_ms
        text = options_text(job.options)
        self._rows.append(
            (n, job.id, job.tenant, job.queue, job.task, text, job.priority, job.rank, job.run_at_ms, deadline_ms)
            + ((job.retry_of, key) if key is not None or job.retry_of is not None else ())
        )
        self._inputs.append((n, job.input))
        if new.cache is not None:
            self._keys.append((n, new.cache.key))
        if job.run_at_ms is not None:
            flow.scheduled += 1
        return job

    def save(self) -> bool:
        """Write them, and tell who waits for them; whether there were any."""
        if not self._rows:
            return False
        tx = self._tx
        tx.run_packed(_ADD_JOBS, self._rows, tx.now_ms)
        tx.run_packed(_ADD_INPUTS, [row for row in self._inputs if len(row[1]) <= _BIG_BYTES])
        for row in self._inputs:
            if len(row[1]) > _BIG_BYTES:
                tx.run(_ADD_BIG_INPUT, *row)
        tx.run_packed(_ADD_KEYS, self._keys)
        self._flows.save()
        self._tell()
        return True

    def _tell(self) -> None:
        topics = self._tx.topics
        topics.lifecycle()
        topics.jobs.update(row[1] for row in self._rows)
        for flow in self._flows.taken():
            if flow.taken > flow.scheduled:
                topics.queue(flow.line.name)
        if any(row[8] is not None or row[9] is not None for row in self._rows):
            topics.upkeep()


def deliver(tx: Transaction, deliveries: Sequence[NewJob]) -> None:
    """Store the jobs that tell of others' ends, whatever their queue holds; but none whose id is known."""
    last_number, known = _decode_known(tx.value(_LAST_NUMBER, encode_text([job.id for job in deliveries])))
    flows = Flows(tx)
    new = [job for job in _distinct(deliveries) if job.id not in known]
    flows.learn({flow_key(job) for job in new})
    arrivals = Arrivals(tx, flows, last_number)
    for job in new:
        arrivals.add(job, flows[flow_key(job)])
    arrivals.save()


def _distinct(jobs: Iterable[NewJob]) -> list[NewJob]:
    return list({job.id: job for job in jobs}.values())
