"""Workers' sessions, what is lost with them, and the catalogue of tasks."""

# ruff: noqa: S608 (statements are put together from this package's own constants)

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ropeway.domain.change import worker_lost
from ropeway.domain.lease import Renewal
from ropeway.domain.lifecycle import State
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.sqlite.keeping import kept
from ropeway.engines.sqlite.moving import Moving
from ropeway.engines.sqlite.rows import JOB_BARE, decode_jobs
from ropeway.engines.sqlite.schema import CODES
from ropeway.engines.sqlite.statements import encode_text
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["Renew", "announce", "close", "publish", "renew", "rescue"]

_CARD = "SELECT card FROM sessions WHERE session = ?"

_ANNOUNCE = """
INSERT INTO sessions(session, card, expires_at_ms) VALUES (?1, ?2, ?3)
ON CONFLICT(session) DO UPDATE SET card = excluded.card, expires_at_ms = excluded.expires_at_ms
"""

_RENEW = "UPDATE sessions SET expires_at_ms = ?2 WHERE session = ?1"

_ASKED = f"""
SELECT json_group_array(id ORDER BY id) FROM jobs
WHERE session = ?1 AND state = {CODES[State.running]} AND cancel_requested_at_ms > 0
"""

_FORGET = "DELETE FROM sessions WHERE session = ?"

_EXPIRED = "SELECT json_group_array(session ORDER BY number) FROM sessions WHERE expires_at_ms <= ?"

_HELD = f"""
SELECT json_group_array({JOB_BARE})
FROM (SELECT * FROM jobs WHERE session = ?1 AND state = {CODES[State.running]} ORDER BY id LIMIT ?2) AS jobs
"""

_PUBLISH = """
INSERT INTO tasks(name, card) SELECT value->>0, value->>1 FROM jsonb_each(?1) WHERE true
ON CONFLICT DO UPDATE SET card = excluded.card
"""

_NO_LIMIT = -1

_decode_texts = msgspec.json.Decoder(tuple[str, ...]).decode
_decode_card = msgspec.json.Decoder(WorkerCard).decode


class Renew(NamedTuple):
    """A wish to extend a session."""

    session: str
    ttl_ms: int


def publish(tx: Transaction, tasks: Sequence[TaskCard]) -> list[None]:
    """`Execution.publish`."""
    tx.run_packed(_PUBLISH, [(name, encode_text(task)) for name, task in {task.name: task for task in tasks}.items()])
    return [None] * len(tasks)


def announce(tx: Transaction, workers: Sequence[WorkerCard]) -> list[None]:
    """`Execution.announce`."""
    for worker in workers:
        known: str | None = tx.value(_CARD, worker.session)
        started_at_ms = tx.now_ms if known is None else _decode_card(known).started_at_ms
        card = msgspec.structs.replace(worker, started_at_ms=started_at_ms)
        tx.run(_ANNOUNCE, worker.session, encode_text(card), tx.now_ms + worker.ttl_ms)
    return [None] * len(workers)


def renew(tx: Transaction, wishes: Sequence[Renew]) -> list[Renewal]:
    """`Execution.renew`."""
    return [_renew(tx, wish) for wish in wishes]


def _renew(tx: Transaction, wish: Renew) -> Renewal:
    if not tx.run(_RENEW, wish.session, tx.now_ms + wish.ttl_ms):
        return Renewal(False)
    return Renewal(True, _decode_texts(tx.value(_ASKED, wish.session)))


def close(tx: Transaction, sessions: Sequence[str]) -> list[None]:
    """`Execution.close`."""
    for session in sessions:
        if tx.run(_FORGET, session):
            _rescue(tx, session, _NO_LIMIT)
            tx.settle()
    return [None] * len(sessions)


def rescue(tx: Transaction, limits: Sequence[int]) -> list[int]:
    """`Upkeep.rescue`."""
    return [_rescue_expired(tx, limit) for limit in limits]


def _rescue_expired(tx: Transaction, limit: int) -> int:
    rescued = 0
    for session in _decode_texts(tx.value(_EXPIRED, tx.now_ms)):
        rescued += _rescue(tx, session, limit - rescued)
        if not decode_jobs(tx.value(_HELD, session, 1)):
            tx.run(_FORGET, session)
    tx.settle()
    return rescued


def _rescue(tx: Transaction, session: str, limit: int) -> int:
    """End the attempts that a session holds, at most so many; how many there were."""
    moving = Moving(tx, decode_jobs(tx.value(_HELD, session, limit)))
    for job in list(moving.jobs.values()):
        moving.apply(job, kept(tx, job, worker_lost(job, tx.now_ms)))
    moving.save()
    return len(moving.jobs)
