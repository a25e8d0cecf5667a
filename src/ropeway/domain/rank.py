"""Who runs next, as one number: a priority band plus a start-time fair queueing tag.

Source: start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996):
`start = max(V, last_finish(flow)); last_finish = start + cost / weight`, with V the start tag of the
job leased last. Weighted fair between tenants within a band, first in first out within a tenant. The
higher band goes first, but a lower one in which jobs wait gets every tenth lease of the queue. The engines
keep V and each tenant's last finish per queue and band, and how often each band was passed over.

A cost may be an estimate, as tokens are. What a job really took moves its tenant's last finish once that is
known (`corrected`), which makes it the virtual token counter of "Fairness in Serving Large Language Models"
(OSDI 2024): the tenant's next submits pay the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

__all__ = [
    "BAND_WIDTH",
    "FLOOR",
    "Priority",
    "band_of",
    "corrected",
    "goes_before",
    "next_band",
    "passed_over",
    "place",
    "rank_of",
    "start_of",
]

BAND_WIDTH = 1e12
"""Room for start tags in a band. A double keeps 1e-4 units of cost apart even at the far end of the last."""


FLOOR = 10
"""Of so many leases of a queue, one goes to a lower band in which jobs wait."""


class Priority(IntEnum):
    """A waiting `high` job goes before a `normal` one, nine times of ten."""

    low = 0
    normal = 1
    high = 2

    __hash__ = int.__hash__  # Enum's own is written in Python, and bands are dict keys on every submit


_BY_PLACE = tuple(reversed(Priority))  # to make one of a number takes ten times as long


def place(virtual_time: float, last_finish: float, cost: float, weight: float) -> tuple[float, float]:
    """The start tag of a new job and its tenant's new last finish."""
    start = max(virtual_time, last_finish)
    return start, start + cost / weight


def rank_of(priority: Priority, start: float) -> float:
    """The lower rank is leased first."""
    return (Priority.high - priority) * BAND_WIDTH + start


def start_of(rank: float) -> float:
    """The start tag inside a rank."""
    return rank % BAND_WIDTH


def band_of(rank: float) -> Priority:
    """The band that a rank lies in."""
    return _BY_PLACE[int(rank // BAND_WIDTH)]


def next_band(waiting: Sequence[Priority], passed: Mapping[Priority, int]) -> Priority:
    """Which of the bands in which jobs wait (the highest first, at least one) has its turn."""
    owed = (band for band in waiting[1:] if passed.get(band, 0) >= FLOOR - 1)
    return next(owed, waiting[0])


def passed_over(waiting: Sequence[Priority], passed: Mapping[Priority, int], leased: Priority) -> dict[Priority, int]:
    """How often each band was passed over, after a lease: of those in which jobs wait behind a higher one."""
    return {band: passed.get(band, 0) + 1 for band in waiting[1:] if band is not leased}


def goes_before(same: int, higher: int, passed: int) -> int:
    """How many jobs are leased before one which has so many before it in its band, and so many in higher ones.

    `passed` is how often its band was passed over already.
    """
    return same + min(higher, max((same + 1) * (FLOOR - 1) - passed, 0))


def corrected(virtual_time: float, last_finish: float, owed: float, weight: float) -> float:
    """A tenant's last finish, once it is known that a job took so much more, or less, than its cost."""
    return max(virtual_time, last_finish) + owed / weight
