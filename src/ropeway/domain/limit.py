"""Limits that all workers share: how many jobs of a key run at once, and how fast a key's jobs start.

A job carries its limits from its submit on; the engine keeps each key's state: how many run, what its bucket holds, and
until when it is paused. A job that does not fit is parked under the first limit that it does not fit: out of its line,
so that nothing behind it waits for it. It comes back when a job of the key ends, or at the time that the bucket holds
enough. Under a key the jobs start in the order of their ranks: a small one does not pass a large one that waits.

The rules are here. An engine takes nothing of any limit until all of a job's have room.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from ropeway.domain.bucket import GRAIN
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.usage import amounts_of

__all__ = [
    "CALLED_AT_ONCE",
    "CALL_AGAIN_MS",
    "FOR_A_SLOT",
    "LIMITS_OF_A_JOB",
    "PARKED_AT_ONCE",
    "TOKENS",
    "Limit",
    "LimitPolicy",
    "LimitSignal",
    "LimitState",
    "check_limits",
    "check_policies",
    "finished",
    "signalled",
    "started",
    "taken_by",
    "tokens_in",
    "wait_ms",
]

TOKENS = "tokens"
LIMITS_OF_A_JOB = 8
FOR_A_SLOT = -1
"""`wait_ms` for a job that waits until another of the key ends, and not for a time."""
PARKED_AT_ONCE = 256
"""Jobs that one lease may park, and then leaves the rest of the line to the next."""
CALLED_AT_ONCE = 1_000
"""Jobs that are called back into line in one step under a key; the next promotion goes on."""
CALL_AGAIN_MS = 1_000
"""Who was called back into line and has not started by then is waited for no longer: its queue may be paused."""

_KEY_LIMIT = 255
_FAR = 1e15


class Limit(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A limit that a job runs under.

    Attributes:
        key: what is limited: a provider's account, a user, a model; one of all tenants unless it says otherwise. 1 to
            255 printable characters without spaces.
        max_running: at most so many jobs of the key run at once.
        per_s: the key's bucket refills so much a second, up to `burst`. It begins full.
        burst: what the bucket holds at most.
        amount: what this job takes from the bucket as it starts. More than `burst` can be had of a full bucket, and
            leaves it in debt.
        measure: `tokens`: the amount is an estimate, put right when the job's usage tells what it really took.
    """

    key: str
    max_running: int | None = None
    per_s: float | None = None
    burst: float | None = None
    amount: float = 1.0
    measure: str | None = None


class LimitPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an operator has set for a key: it counts instead of what jobs bring. All None: no limit."""

    max_running: int | None = None
    per_s: float | None = None
    burst: float | None = None


class LimitSignal(msgspec.Struct, frozen=True):
    """What a provider told of a limit's key: so much is left (None: it did not say), or nothing is taken for a time.

    It only ever lowers what the engine believes: others who use the same account are not seen here.
    """

    limit: Limit
    left: float | None = None
    pause_ms: int = 0


class LimitState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key as the engine keeps it. `level` is what its bucket held at `at_ms`; None: it is full."""

    key: str
    running: int = 0
    level: float | None = None
    at_ms: int = 0
    paused_until_ms: int = 0
    policy: LimitPolicy | None = None
    parked: int = 0

    def at(self, limit: Limit, now_ms: int) -> LimitState:
        """As it stands now: refilled, a pause that is over forgotten. A clock that went back refills nothing."""
        rule = self.policy or limit
        level = self.level
        if level is not None and rule.per_s is not None:
            burst = _burst(rule)
            level = min(level + max(now_ms - self.at_ms, 0) / 1000 * rule.per_s, burst)
            level = None if level >= burst else level
        elif rule.per_s is None:
            level = None
        paused = self.paused_until_ms if self.paused_until_ms > now_ms else 0
        return msgspec.structs.replace(self, paused_until_ms=paused).holding(level, now_ms)

    def holding(self, level: float | None, now_ms: int) -> LimitState:
        """With so much in its bucket at this time."""
        at_ms = 0 if level is None else max(now_ms, self.at_ms)
        return msgspec.structs.replace(self, level=level, at_ms=at_ms)


def wait_ms(limit: Limit, state: LimitState, now_ms: int) -> int | None:
    """When a job may start as far as this limit goes: None for now, the time, or FOR_A_SLOT."""
    rule, state = state.policy or limit, state.at(limit, now_ms)
    if state.paused_until_ms:
        return state.paused_until_ms
    if rule.max_running is not None and state.running >= rule.max_running:
        return FOR_A_SLOT
    if rule.per_s is None or state.level is None:
        return None
    missing = min(limit.amount, _burst(rule)) - state.level
    return None if missing <= GRAIN else now_ms + max(1, math.ceil(min(missing / rule.per_s * 1000, _FAR) - GRAIN))


def started(limit: Limit, state: LimitState, now_ms: int) -> LimitState:
    """After a job started."""
    return _given(limit, msgspec.structs.replace(state, running=state.running + 1), -limit.amount, now_ms)


def finished(limit: Limit, state: LimitState, now_ms: int, took: float | None) -> LimitState:
    """After an attempt ended that took so much of the bucket (None: as much as was thought)."""
    state = msgspec.structs.replace(state, running=max(state.running - 1, 0))
    return _given(limit, state, 0.0 if took is None else limit.amount - took, now_ms)


def signalled(signal: LimitSignal, state: LimitState, now_ms: int) -> LimitState:
    """After what a provider told."""
    state = state.at(signal.limit, now_ms)
    rule = state.policy or signal.limit
    paused = max(state.paused_until_ms, now_ms + signal.pause_ms if signal.pause_ms > 0 else 0)
    level = state.level
    if signal.left is not None and rule.per_s is not None:
        known = _burst(rule) if level is None else level
        level = min(known, signal.left)
        level = None if level >= _burst(rule) else level
    return msgspec.structs.replace(state, paused_until_ms=paused).holding(level, now_ms)


def taken_by(limit: Limit, outcome: str, usage: str | None) -> float | None:
    """What an attempt took of its bucket: what was measured; nothing, when it is to run again as if it had not.

    None: nobody knows better than was thought.
    """
    if outcome in ("release", "snooze"):
        return 0.0
    return tokens_in(usage) if limit.measure == TOKENS else None


def tokens_in(usage: str | None) -> float | None:
    """The tokens, of input and output, that an attempt told it used; None when it told of none."""
    amounts = amounts_of(usage)
    told = [amounts[name] for name in ("input_tokens", "output_tokens") if name in amounts]
    return sum(told) if told else amounts.get("total_tokens")


def check_limits(limits: Sequence[Limit]) -> None:
    """Raises InvalidRequest for limits that cannot be."""
    if len(limits) > LIMITS_OF_A_JOB:
        raise InvalidRequest(f"a job has at most {LIMITS_OF_A_JOB} limits, not {len(limits)}", param="limits")
    if len({limit.key for limit in limits}) < len(limits):
        raise InvalidRequest("a job has two limits of one key", param="limits")
    for limit in limits:
        _check_key(limit.key)
        _check_numbers(limit.key, limit)
        if not 0 < limit.amount < _FAR:
            raise InvalidRequest(f"limit {limit.key}: an amount is above 0, not {limit.amount}", param="limits")
        if limit.measure not in (None, TOKENS):
            raise InvalidRequest(f"limit {limit.key}: a measure is {TOKENS!r}, not {limit.measure!r}", param="limits")


def check_policies(policies: Mapping[str, LimitPolicy | None]) -> None:
    """Raises InvalidRequest for numbers that cannot be."""
    for key, policy in policies.items():
        _check_key(key)
        if policy is not None:
            _check_numbers(key, policy)


def _check_key(key: str) -> None:
    """Raises InvalidRequest for what cannot be a limit's key."""
    if not (0 < len(key) <= _KEY_LIMIT and " " not in key and key.isprintable()):
        raise InvalidRequest(
            f"{key[:40]!r} is no limit's key: 1 to {_KEY_LIMIT} printable characters without spaces", param="limits"
        )


def _check_numbers(key: str, rule: Limit | LimitPolicy) -> None:
    if rule.max_running is not None and rule.max_running < 1:
        raise InvalidRequest(f"limit {key}: max_running is at least 1, not {rule.max_running}", param="limits")
    if (rule.per_s is None) != (rule.burst is None):
        raise InvalidRequest(f"limit {key}: a rate has both per_s and burst", param="limits")
    for number in (rule.per_s, rule.burst):
        if number is not None and not 0 < number < _FAR:
            raise InvalidRequest(f"limit {key}: per_s and burst are above 0, not {number}", param="limits")


def _given(limit: Limit, state: LimitState, amount: float, now_ms: int) -> LimitState:
    """The bucket with so much more in it, never above its brim."""
    state = state.at(limit, now_ms)
    rule = state.policy or limit
    if rule.per_s is None or (state.level is None and amount >= 0):
        return state
    burst = _burst(rule)
    level = (burst if state.level is None else state.level) + amount
    return state.holding(None if level >= burst else level, now_ms)


def _burst(rule: Limit | LimitPolicy) -> float:
    return rule.burst or 0.0
