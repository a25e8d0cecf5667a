"""Who runs next, as one number: a priority band plus a start-time fair queueing tag.

Source: start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996):
`start = max(V, last_finish(flow)); last_finish = start + cost / weight`, with V the start tag of the
job leased last. Strict between bands, weighted fair between tenants within a band, first in first out
within a tenant. The engines keep V and each tenant's last finish per queue and band.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["BAND_WIDTH", "Priority", "place", "rank_of", "start_of"]

BAND_WIDTH = 1e12
"""Room for start tags in a band. A double keeps 1e-4 units of cost apart even at the far end of the last."""


class Priority(IntEnum):
    """Strict: a waiting `high` job always goes before a `normal` one."""

    low = 0
    normal = 1
    high = 2

    __hash__ = int.__hash__  # Enum's own is written in Python, and bands are dict keys on every submit


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
