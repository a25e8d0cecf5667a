"""Limits in a write transaction: each key's state, read once, moved on by the domain's rules, written at the end.

A job that does not fit is parked: its row names the key, and so it stands in `parked` and not in `ready`. What became
free in one operation is offered once, by `settle`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from ropeway.domain.limit import (
    CALL_AGAIN_MS,
    CALLED_AT_ONCE,
    FOR_A_SLOT,
    Limit,
    LimitPolicy,
    LimitSignal,
    LimitState,
    finished,
    signalled,
    started,
    taken_by,
    wait_ms,
)
from ropeway.engines.sqlite.rows import options_from
from ropeway.engines.sqlite.statements import Statements, encode_text
from ropeway.engines.sqlite.topics import Topics

__all__ = ["Limits", "Place"]

Place = tuple[float, int]
"""Where a job stands under a key: its rank and number."""

_WINDOW = 32  # parked jobs that are looked at in one go, and then more
_DAY_MS = 86_400_000
_ANYBODY = (0.0, 0)

_LEARN = """
SELECT json_group_array(json_array(
    wanted.value, running, level, at_ms, paused_until_ms, json(policy), due_ms,
    json((SELECT json_array(rank, n) FROM jobs WHERE parked = wanted.value ORDER BY rank, n LIMIT 1))))
FROM json_each(?1) AS wanted LEFT JOIN limits ON limits.key = wanted.value
"""

_PARKED = """
SELECT json_group_array(json_array(n, id, queue, rank, options))
FROM (SELECT n, id, queue, rank, options FROM jobs WHERE parked = ?1 AND (rank, n) > (?2, ?3) ORDER BY rank, n LIMIT ?4)
"""

_COUNT_PARKED = "SELECT count(*) FROM jobs WHERE parked = ?"

_PARK = """
UPDATE jobs SET parked = given.key, version = version + 1
FROM (SELECT value->>0 AS number, value->>1 AS key FROM jsonb_each(?1)) AS given WHERE n = given.number
"""

_CALL = "UPDATE jobs SET parked = NULL, version = version + 1 WHERE n IN (SELECT value FROM json_each(?1))"

_DUE = """
SELECT json_group_array(key) FROM (SELECT key FROM limits WHERE due_ms <= ?1 ORDER BY due_ms LIMIT ?2)
"""

_SAVE = """
INSERT INTO limits(key, running, level, at_ms, paused_until_ms, policy, due_ms)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6 FROM jsonb_each(?1) WHERE true
ON CONFLICT DO UPDATE SET running = excluded.running, level = excluded.level, at_ms = excluded.at_ms,
    paused_until_ms = excluded.paused_until_ms, policy = excluded.policy, due_ms = excluded.due_ms
"""

_DROP = "DELETE FROM limits WHERE key IN (SELECT value FROM json_each(?1))"

# A bucket without its numbers is kept a day: who knows how slowly it refills. One that is full stands at time 0.
_FORGET = """
DELETE FROM limits WHERE key IN (
    SELECT key FROM limits WHERE running = 0 AND policy IS NULL AND at_ms < ?1 AND paused_until_ms <= ?2
    AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.parked = limits.key) ORDER BY at_ms LIMIT ?3)
"""


class _Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    key: str
    running: int | None
    level: float | None
    at_ms: int | None
    paused_until_ms: int | None
    policy: LimitPolicy | None
    due_ms: int | None
    head: Place | None

    @property
    def state(self) -> LimitState:
        return LimitState(
            self.key, self.running or 0, self.level, self.at_ms or 0, self.paused_until_ms or 0, self.policy
        )


class _Parked(msgspec.Struct, array_like=True, frozen=True, gc=False):
    n: int
    id: str
    queue: str
    rank: float
    options: str


class _Ended(NamedTuple):
    limits: tuple[Limit, ...]
    outcome: str
    usage: str | None


_decode = msgspec.json.Decoder(list[_Row]).decode
_decode_parked = msgspec.json.Decoder(list[_Parked]).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode


class Limits:
    """The limits that a transaction touches. Made when the first one is."""

    __slots__ = (
        "_changed",
        "_due",
        "_ended",
        "_freed",
        "_heads",
        "_now_ms",
        "_parking",
        "_states",
        "_store",
        "_topics",
    )

    def __init__(self, store: Statements, topics: Topics, now_ms: int) -> None:
        self._store = store
        self._topics = topics
        self._now_ms = now_ms
        self._states: dict[str, LimitState] = {}
        self._due: dict[str, int | None] = {}  # when to look at a key's parked jobs again
        self._heads: dict[str, Place | None] = {}  # the first of a key's parked jobs, where it is known
        self._changed: set[str] = set()
        self._parking: list[tuple[int, str]] = []
        self._ended: list[_Ended] = []
        self._freed: dict[str, None] = {}

    def learn(self, keys: Iterable[str]) -> None:
        """Read what the store knows of these keys. What this transaction has changed of them stays."""
        unknown = [key for key in dict.fromkeys(keys) if key not in self._heads]
        if not unknown:
            return
        for row in _decode(self._store.value(_LEARN, encode_text(unknown))):
            self._heads[row.key] = row.head
            if row.key not in self._states:
                self._states[row.key], self._due[row.key] = row.state, row.due_ms

    # -- who starts

    def blocking(self, limits: tuple[Limit, ...], place: Place) -> str | None:
        """The key of the first of these that has no room for a job at this place; None when it may start."""
        for limit in limits:
            wait = wait_ms(limit, self._states[limit.key], self._now_ms)
            if wait is not None:
                self._look(limit.key, wait)
                return limit.key
            head = self._heads[limit.key]
            if head is not None and head < place:
                return limit.key
        return None

    def park(self, key: str, job_id: str, place: Place) -> None:
        """A job in line waits under this key from now on."""
        self._parking.append((place[1], key))
        head = self._heads[key]
        self._heads[key] = place if head is None else min(head, place)
        self._topics.jobs.add(job_id)

    def save_parked(self) -> None:
        """Write who is parked, before anything reads the line again."""
        self._store.run_packed(_PARK, self._parking)
        self._parking = []

    def start(self, limits: tuple[Limit, ...]) -> None:
        """A job starts, and takes of every limit."""
        for limit in limits:
            self._keep(started(limit, self._states[limit.key], self._now_ms))

    # -- who ends, and who is called

    def end(self, limits: tuple[Limit, ...], outcome: str, usage: str | None) -> None:
        """An attempt ended. What that frees is offered by `settle`."""
        self._ended.append(_Ended(limits, outcome, usage))

    def leave(self, key: str) -> None:
        """A parked job does not wait any more."""
        self._freed[key] = None

    def settle(self) -> None:
        """Take in what ended, once the rows of it are written, and call back who fits now."""
        ended, self._ended = self._ended, []
        self.learn([*(limit.key for one in ended for limit in one.limits), *self._freed])
        for one in ended:
            for limit in one.limits:
                took = taken_by(limit, one.outcome, one.usage)
                self._keep(finished(limit, self._states[limit.key], self._now_ms, took))
                self._freed[limit.key] = None
        freed, self._freed = self._freed, {}
        for key in freed:
            self._call(key)

    def call_due(self, most: int) -> int:
        """Call back who fits now, under the keys whose time has come, so many keys at most. How many jobs."""
        self.flush()
        due = _decode_texts(self._store.value(_DUE, self._now_ms, most))
        self.learn(due)
        return sum(self._call(key) for key in due)

    def set(self, key: str, policy: LimitPolicy | None) -> None:
        """What an operator says of a key counts from now on."""
        self.learn([key])
        self._keep(msgspec.structs.replace(self._states[key], policy=policy))
        self._call(key)

    def signal(self, signal: LimitSignal) -> None:
        """What a provider told of a key."""
        self.learn([signal.limit.key])
        self._keep(signalled(signal, self._states[signal.limit.key], self._now_ms))

    def told(self, key: str) -> LimitState:
        """The key as it stands, for those who ask."""
        self.flush()
        return msgspec.structs.replace(self._states[key], parked=self._store.value(_COUNT_PARKED, key))

    def flush(self) -> None:
        """Write who is parked, and the states that changed; of an idle key nothing is kept."""
        self.save_parked()
        if self._changed:
            keys = sorted(self._changed)
            idle = [key for key in keys if self._is_idle(key)]
            self._store.run_packed(_SAVE, [self._row(key) for key in keys if not self._is_idle(key)])
            if idle:
                self._store.run(_DROP, encode_text(idle))
            self._changed.clear()

    def forget_idle(self, most: int) -> None:
        """Drop the keys of which nothing need be remembered any more."""
        self.flush()
        self._store.run(_FORGET, self._now_ms - _DAY_MS, self._now_ms, most)

    def _call(self, key: str) -> int:
        """Put those of the parked back into their lines who would fit, the best-ranked first. How many."""
        self._put_off(key, None)
        if self._heads.pop(key, _ANYBODY) is None:
            return 0
        called, state, after = 0, self._states[key], (-1.0, 0)
        while window := self._parked(key, after, _WINDOW if called == 0 else CALLED_AT_ONCE):
            fitting = 0
            for job in window:
                limit = next(limit for limit in options_from(job.options).limits if limit.key == key)
                wait = wait_ms(limit, state, self._now_ms)
                if wait is not None or called == CALLED_AT_ONCE:
                    self._look(key, self._now_ms if wait is None else wait)
                    break
                state = started(limit, state, self._now_ms)
                called += 1
                fitting += 1
            self._back(window[:fitting])
            if fitting < len(window):
                if called:
                    self._look(key, self._now_ms + CALL_AGAIN_MS)
                break
            after = (window[-1].rank, window[-1].n)
        return called

    def _parked(self, key: str, after: Place, most: int) -> list[_Parked]:
        return _decode_parked(self._store.value(_PARKED, key, *after, most))

    def _back(self, jobs: Sequence[_Parked]) -> None:
        if jobs:
            self._store.run(_CALL, encode_text([job.n for job in jobs]))
            self._topics.jobs.update(job.id for job in jobs)
            for queue in {job.queue for job in jobs}:
                self._topics.queue(queue)

    def _look(self, key: str, at_ms: int) -> None:
        """Look at a key's parked jobs again at this time, or before."""
        due_ms = self._due[key]
        if at_ms != FOR_A_SLOT and (due_ms is None or at_ms < due_ms):
            self._put_off(key, at_ms)
            self._topics.upkeep()

    def _put_off(self, key: str, at_ms: int | None) -> None:
        if self._due[key] != at_ms:
            self._due[key] = at_ms
            self._changed.add(key)

    def _keep(self, state: LimitState) -> None:
        if self._states[state.key] != state:
            self._states[state.key] = state
            self._changed.add(state.key)

    def _is_idle(self, key: str) -> bool:
        return self._due[key] is None and self._states[key] == LimitState(key)

    def _row(self, key: str) -> tuple[Any, ...]:
        state = self._states[key]
        return (
            key,
            state.running,
            state.level,
            state.at_ms,
            state.paused_until_ms,
            None if state.policy is None else encode_text(state.policy),
            self._due[key],
        )
