"""Snoozing: an attempt that ends itself, for its job to be run again later."""

from __future__ import annotations

from datetime import datetime

__all__ = ["DELAY_LIMIT_S", "Snoozed", "delay_ms_of", "plain_detail"]

DELAY_LIMIT_S = 366 * 86_400.0  # as of a submit's delay: what is longer is more likely milliseconds by mistake
DETAIL_LIMIT = 1_000  # characters: it is a line for people


class Snoozed(BaseException):
    """The attempt has snoozed: let it pass. No Exception, so that `except Exception` around the call lets it by."""


def delay_ms_of(seconds: float | None, until: datetime | None, now_ms: int) -> int:
    """How many ms a snooze is to last, by one of its two ways to say it. Raises ValueError for what is out of range."""
    if (seconds is None) == (until is None):
        raise ValueError("snooze takes seconds, or a time in `until`")
    if until is not None:
        if until.tzinfo is None:
            raise ValueError("snooze: `until` needs a time zone, as datetime.now(timezone.utc) has one")
        seconds = max(until.timestamp() - now_ms / 1000, 0.0)
    assert seconds is not None
    if not 0 <= seconds <= DELAY_LIMIT_S:  # so written, it refuses NaN too
        raise ValueError(f"snooze: 0 to {DELAY_LIMIT_S:.0f} seconds, not {seconds!r}")
    return round(seconds * 1000)


def plain_detail(reason: str | None) -> str | None:
    """A reason as it may be stored: short, and without lone surrogates, which no JSON can carry."""
    return None if reason is None else reason[:DETAIL_LIMIT].encode("utf-8", "replace").decode()
