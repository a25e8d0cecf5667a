"""Whose turn it is in a queue: the order of its line, and who of it may start, who is parked and who came too late.

Nearly always jobs of one priority wait, and the line's order is their rank's: one statement reads them whole. Where
jobs of several priorities wait, the floor decides (`domain.rank`), job by job, over what is read of each.
"""

# ruff: noqa: S608 (statements are put together from this package's own constants)

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ropeway.domain.lifecycle import State
from ropeway.domain.limit import PARKED_AT_ONCE, Limit
from ropeway.domain.rank import BAND_WIDTH, Priority, band_of, next_band, passed_over
from ropeway.engines.sqlite.rows import INPUT, READY, options_from
from ropeway.engines.sqlite.statements import encode_text
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["Row", "Taken", "Turns"]

_WINDOW = 64  # jobs that are looked at in one go, once some of those looked at before could not start

_WHOLE = """json_array(
    n, id, tenant, task, input, attempt, crashes, runs, epoch, rank, created_at_ms, queue_deadline_ms, options)"""

_COLUMNS = f"""n, id, tenant, task, {INPUT} AS input, attempt, crashes, runs, epoch, rank, created_at_ms,
             queue_deadline_ms, options"""

# How many more may start in a queue that is paused or has a limit of its own. ?3: so many more run than its row tells.
_ROOM = """(
    SELECT iif(paused, 0, max_running - ?3 - coalesce(
        (SELECT running FROM counts WHERE counts.queue = ?1 AND counts.tenant = ''), 0))
    FROM queues WHERE queues.queue = ?1 AND (paused OR max_running IS NOT NULL))"""

_LINE = f"""
SELECT json_array({_ROOM},
    (SELECT max(rank) FROM jobs WHERE queue = ?1 AND {READY}),
    json((SELECT json_group_array(json_array(band, passed)) FROM bands WHERE queue = ?1 AND passed > 0)),
    json_group_array({_WHOLE}))
FROM (SELECT {_COLUMNS} FROM jobs JOIN inputs USING (n) WHERE queue = ?1 AND {READY}
      ORDER BY rank, n LIMIT iif({_ROOM} <= 0, 0, ?2))
"""

_BAND = f"""
SELECT * FROM (
    SELECT n, id, rank, queue_deadline_ms, options FROM jobs
    WHERE queue = ?1 AND {READY} AND rank >= :first AND rank < :next
    ORDER BY rank, n LIMIT ?2)
"""
_EACH_BAND = " UNION ALL ".join(
    _BAND.replace(":first", repr(place * BAND_WIDTH)).replace(":next", repr((place + 1) * BAND_WIDTH))
    for place in range(len(Priority))
)
_BANDS = f"SELECT json_group_array(json_array(n, id, rank, queue_deadline_ms, options)) FROM ({_EACH_BAND})"

_ROWS = f"""
SELECT json_group_array({_WHOLE})
FROM (SELECT {_COLUMNS}
      FROM (SELECT value AS n FROM json_each(?1)) AS wanted CROSS JOIN jobs USING (n) CROSS JOIN inputs USING (n))
"""


class Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a lease needs of a job."""

    n: int
    id: str
    tenant: str
    task: str
    input: str
    attempt: int
    crashes: int
    runs: int
    epoch: int
    rank: float
    created_at_ms: int
    queue_deadline_ms: int | None
    options: str | None

    @property
    def is_plain(self) -> bool:
        """Whether nothing can keep it from starting."""
        return self.options is None and self.queue_deadline_ms is None


class _Place(msgspec.Struct, array_like=True, frozen=True, gc=False):
    n: int
    id: str
    rank: float
    queue_deadline_ms: int | None
    options: str | None


class _Line(msgspec.Struct, array_like=True, frozen=True, gc=False):
    room: int | None
    last: float | None
    passed: list[tuple[Priority, int]]
    rows: list[Row]

    @property
    def is_mixed(self) -> bool:
        """Whether jobs of several priorities wait."""
        return self.last is not None and self.last // BAND_WIDTH > self.rows[0].rank // BAND_WIDTH


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_places = msgspec.json.Decoder(list[_Place]).decode
_decode_rows = msgspec.json.Decoder(list[Row]).decode


class Taken(NamedTuple):
    """Who may start, in order; who came too late to; and whether there may be more of the line to look at."""

    rows: list[Row]
    late: list[str]
    more: bool


class Turns:
    """One lease's way down one queue's line. Those who do not fit their limits are parked on it."""

    __slots__ = ("_late", "_parked", "_queue", "_tx", "_window")

    def __init__(self, tx: Transaction, queue: str) -> None:
        self._tx = tx
        self._queue = queue
        self._parked = 0
        self._late: list[str] = []
        self._window = 0

    def take(self, wanted: int) -> Taken:
        """The next who may start, so many at most. Take again while there is more, once their rows are written."""
        self._window = max(wanted, self._window)
        unwritten = self._tx.ledger.unwritten(self._queue, State.running)
        line = _decode_line(self._tx.value(_LINE, self._queue, self._window, unwritten))
        if line.room is not None:
            wanted = min(wanted, line.room)
        if wanted <= 0 or not line.rows:
            return Taken([], [], False)
        parked = self._parked
        rows, all_seen = self._by_turns(line, wanted) if line.is_mixed else self._by_rank(line, wanted)
        self._window = _WINDOW
        if self._parked > parked:
            self._tx.limits.save_parked()
        late, self._late = self._late, []
        return Taken(rows, late, not self._enough() and len(rows) < wanted and not all_seen)

    def _by_rank(self, line: _Line, wanted: int) -> tuple[list[Row], bool]:
        """Jobs of one priority alone wait; their order is the line's. Also whether these are all."""
        rows = line.rows
        chosen = rows[:wanted] if all(row.is_plain for row in rows) else self._sift(rows, wanted)
        passed = self._tx.ledger.passed(self._queue, line.passed)
        if chosen and passed:
            self._tx.ledger.pass_over(self._queue, passed, {})
        return chosen, len(rows) < self._window

    def _sift(self, rows: Sequence[Row], wanted: int) -> list[Row]:
        """Those of them who may start, so many at most."""
        self._learn(rows)
        chosen: list[Row] = []
        for row in rows:
            if len(chosen) == wanted or self._parked == PARKED_AT_ONCE:
                break
            if self._may_start(row):
                chosen.append(row)
        return chosen

    def _by_turns(self, line: _Line, wanted: int) -> tuple[list[Row], bool]:
        """Jobs of several priorities wait, and take turns. Also whether these are all.

        Of a band that goes on, the last place read only tells that it does.
        """
        places = _decode_places(self._tx.value(_BANDS, self._queue, self._window + 1))
        self._learn(places)
        bands: dict[Priority, deque[_Place]] = {band: deque() for band in reversed(Priority)}
        for place in places:
            bands[band_of(place.rank)].append(place)
        goes_on = {band for band, waiting in bands.items() if len(waiting) > self._window}
        before = passed = self._tx.ledger.passed(self._queue, line.passed)
        chosen: list[_Place] = []
        while len(chosen) < wanted and self._parked < PARKED_AT_ONCE:
            waiting = [band for band in bands if bands[band]]
            band = next_band(waiting, passed) if waiting else None
            if band is None or (band in goes_on and len(bands[band]) == 1):
                break
            place = bands[band].popleft()
            if self._may_start(place):
                chosen.append(place)
                left = [other for other in bands if bands[other] or other is band]
                passed = passed_over(left, passed, band)
        if chosen:
            self._tx.ledger.pass_over(self._queue, before, passed)
        return self._whole(chosen, line.rows), not goes_on

    def _whole(self, places: Sequence[_Place], known: Sequence[Row]) -> list[Row]:
        """The rows of these places: most are the line's first, and known."""
        rows = {row.n: row for row in known}
        missing = [place.n for place in places if place.n not in rows]
        if missing:
            rows.update((row.n, row) for row in _decode_rows(self._tx.value(_ROWS, encode_text(missing))))
        return [rows[place.n] for place in places]

    def _learn(self, places: Sequence[Row | _Place]) -> None:
        """Read the limits that these run under, if any of them does."""
        keys = [limit.key for place in places for limit in _limits_of(place)]
        if keys:
            self._tx.limits.learn(keys)

    def _may_start(self, place: Row | _Place) -> bool:
        """Whether a job starts now; then it takes of its limits. If not, it is too late, or parked."""
        if place.queue_deadline_ms is not None and place.queue_deadline_ms <= self._tx.now_ms:
            self._late.append(place.id)
            return False
        limits = _limits_of(place)
        if not limits:
            return True
        key = self._tx.limits.blocking(limits, (place.rank, place.n))
        if key is None:
            self._tx.limits.start(limits)
            return True
        self._tx.limits.park(key, place.id, (place.rank, place.n))
        self._parked += 1
        return False

    def _enough(self) -> bool:
        """Whether this lease has parked so many that the rest is left to the next one, which is told."""
        if self._parked < PARKED_AT_ONCE:
            return False
        self._tx.topics.queue(self._queue)
        return True


def _limits_of(place: Row | _Place) -> tuple[Limit, ...]:
    return () if place.options is None else options_from(place.options).limits
