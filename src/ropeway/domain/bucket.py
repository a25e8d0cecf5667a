"""Buckets: what rates are taken from. They refill on the engine's clock, and are shared by all processes.

The rule is here; an engine keeps each bucket's level, and the time at which it was that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence

import msgspec

from ropeway.domain.errors import InvalidRequest

__all__ = ["GRAIN", "Allowance", "Draw", "Level", "Spend", "allowances", "draws_of", "spend"]

GRAIN = 1e-6
"""What a bucket may miss of what is asked for: else one waits for the last bit of a rounded number."""

_NAME_LIMIT = 255


class Spend(msgspec.Struct, frozen=True):
    """An amount to be taken from a bucket that refills.

    `bucket` is its name, `<owner>/<what>`, printable characters without spaces: buckets of one owner can be spent
    together. It refills at `per_s` a second up to `capacity`, and begins full; once full again it is forgotten. An
    amount above the capacity can be had when the bucket is full, and leaves it in debt. With `force` the amount is
    taken though the bucket is thereby in debt (a correction afterwards); a negative amount gives back.
    """

    bucket: str
    amount: float
    per_s: float
    capacity: float
    force: bool = False

    @property
    def owner(self) -> str:
        """Whose bucket it is: all of an owner's are kept in one place."""
        return self.bucket.partition("/")[0]


class Allowance(msgspec.Struct, frozen=True):
    """Whether it was taken, what is left, and in how many seconds as much as was asked for will be there (0: now).

    What is left is below 0 for a bucket in debt.
    """

    granted: bool
    left: float
    retry_after_s: float = 0.0


class Level(msgspec.Struct, frozen=True):
    """What a bucket held, and when; and when it is full, and is forgotten."""

    level: float
    at_ms: int
    full_at_ms: int


class Draw(msgspec.Struct, frozen=True):
    """What one call takes from one bucket: `forced` in any case, `wanted` if all that the call wants can be had."""

    bucket: str
    per_s: float
    capacity: float
    wanted: float = 0.0
    forced: float = 0.0

    def level(self, level: float, since_ms: float) -> float:
        """What the bucket holds, which held `level` so many ms ago; a clock that went back refills nothing."""
        return min(level + max(since_ms, 0) / 1000 * self.per_s, self.capacity)

    def fits(self, level: float) -> bool:
        """Whether what is wanted can be had of a bucket that holds so much, the forced amount taken."""
        return self.wanted <= 0 or level + GRAIN >= min(self.wanted, self.capacity)

    def kept(self, level: float, at_ms: int) -> Level | None:
        """What is to be remembered of a bucket that holds so much at this time; None for a full one."""
        missing = self.capacity - level
        if missing <= 0:
            return None
        return Level(level, at_ms, at_ms + math.ceil(min(missing / self.per_s * 1000, _FAR_MS)))


_FAR_MS = 10 * 365 * 86_400_000.0


def draws_of(wishes: Sequence[Spend]) -> list[Draw]:
    """One call's wishes, bucket by bucket; of one named twice the rate and capacity are those named last.

    Raises InvalidRequest for a bucket without a good name, a rate or capacity that is not above 0, an amount that is no
    number, and for buckets of several owners.
    """
    draws: dict[str, Draw] = {}
    for wish in wishes:
        _check(wish)
        known = draws.get(wish.bucket)
        wanted, forced = (0.0, 0.0) if known is None else (known.wanted, known.forced)
        if wish.force:
            forced += wish.amount
        else:
            wanted += wish.amount
        draws[wish.bucket] = Draw(wish.bucket, wish.per_s, wish.capacity, wanted, forced)
    if len({wish.owner for wish in wishes}) > 1:
        raise InvalidRequest(f"these buckets have several owners: {', '.join(draws)[:200]}")
    return list(draws.values())


def spend(wishes: Sequence[Spend], levels: MutableMapping[str, Level], now_ms: int) -> list[Allowance]:
    """`Records.spend` on what is known of the buckets, which is brought up to date. Raises as `draws_of`."""
    draws = draws_of(wishes)
    known = {draw.bucket: _known(draw, levels, now_ms) for draw in draws}
    full = {draw.bucket: draw.level(known[draw.bucket].level, now_ms - known[draw.bucket].at_ms) for draw in draws}
    granted, left = _drawn(draws, full)
    for draw in draws:
        at_ms = max(now_ms, known[draw.bucket].at_ms)  # a clock that went back refills nothing twice
        kept = draw.kept(left[draw.bucket], at_ms)
        if kept is None:
            levels.pop(draw.bucket, None)
        else:
            levels[draw.bucket] = kept
    return allowances(wishes, draws, granted, left)


def _known(draw: Draw, levels: Mapping[str, Level], now_ms: int) -> Level:
    known = levels.get(draw.bucket)
    return known if known is not None and known.full_at_ms > now_ms else Level(draw.capacity, now_ms, now_ms)


def _drawn(draws: Sequence[Draw], levels: Mapping[str, float]) -> tuple[bool, dict[str, float]]:
    """Whether what is wanted can be had, and each bucket's level after the call; from their levels as they are."""
    left = {draw.bucket: min(levels[draw.bucket] - draw.forced, draw.capacity) for draw in draws}
    granted = all(draw.fits(left[draw.bucket]) for draw in draws)
    if granted:
        left = {draw.bucket: min(left[draw.bucket] - draw.wanted, draw.capacity) for draw in draws}
    return granted, left


def allowances(
    wishes: Sequence[Spend], draws: Sequence[Draw], granted: bool, left: Mapping[str, float]
) -> list[Allowance]:
    """What each wish is answered."""
    by_bucket = {draw.bucket: draw for draw in draws}
    return [
        Allowance(True, left[wish.bucket])
        if granted or wish.force
        else Allowance(False, left[wish.bucket], _wait_s(by_bucket[wish.bucket], left[wish.bucket]))
        for wish in wishes
    ]


def _wait_s(draw: Draw, level: float) -> float:
    """In whole milliseconds, as clocks go."""
    if draw.fits(level):
        return 0.0
    return math.ceil((min(draw.wanted, draw.capacity) - level) / draw.per_s * 1000) / 1000


def _check(wish: Spend) -> None:
    name = wish.bucket
    if not (0 < len(name) <= _NAME_LIMIT and " " not in name and name.isprintable()):
        raise InvalidRequest(f"{name[:40]!r} names no bucket: 1 to {_NAME_LIMIT} printable characters without spaces")
    if not (math.isfinite(wish.per_s) and math.isfinite(wish.capacity) and wish.per_s > 0 and wish.capacity > 0):
        raise InvalidRequest(f"bucket {name} refills at {wish.per_s} a second up to {wish.capacity}: both are above 0")
    if not math.isfinite(wish.amount):
        raise InvalidRequest(f"{wish.amount} can not be taken from bucket {name}")
