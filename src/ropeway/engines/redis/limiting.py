"""Limits: what operators set and providers tell of them, and how they stand; those of each partition by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ropeway.domain.limit import LimitPolicy, LimitSignal, LimitState, check_policies
from ropeway.engines.redis.lane import chunks
from ropeway.engines.redis.link import Arg
from ropeway.engines.redis.partition import Partition
from ropeway.engines.redis.rows import number_text
from ropeway.engines.redis.spread import Spread

__all__ = ["LimitsRole"]


class LimitsRole(Spread):
    """What is known of limits' keys. A limit counts in each partition apart: a script cannot see another's jobs."""

    async def set_limits(self, changes: Mapping[str, LimitPolicy | None]) -> list[LimitState]:
        check_policies(changes)
        if not changes:
            return []
        told = _joined(await self._everywhere(lambda partition: _set(partition, changes)))
        return [told[key] for key in changes]

    async def signal(self, signals: Sequence[LimitSignal]) -> None:
        await self._everywhere(lambda partition: _signal(partition, signals))

    async def limits(self) -> list[LimitState]:
        told = _joined(await self._everywhere(_states))
        return [told[key] for key in sorted(told)]


async def _set(partition: Partition, changes: Mapping[str, LimitPolicy | None]) -> list[LimitState]:
    states: list[LimitState] = []
    for part in chunks(list(changes)):
        args = [word for key in part for word in (key, _policy_text(changes[key]))]
        values = (await partition.call("limits", "set", *args)).values
        states += [_state(key, *values[2 * n : 2 * n + 2]) for n, key in enumerate(part)]
    return states


async def _signal(partition: Partition, signals: Sequence[LimitSignal]) -> None:
    """A repeat after a lost reply changes nothing more: what is left is only ever lowered to what was told."""
    for part in chunks(signals):
        args: list[Arg] = []
        for signal in part:
            limit = signal.limit
            numbers = (limit.max_running, limit.per_s, limit.burst, limit.amount, signal.left)
            args += (limit.key, *map(number_text, numbers), signal.pause_ms)
        await partition.call("limits", "signal", *args)


async def _states(partition: Partition) -> list[LimitState]:
    found: dict[str, LimitState] = {}  # a scan may come by twice
    cursor = "0"
    while True:
        cursor, *told = (await partition.call("limits", "tell", cursor)).values
        found.update((told[n], _state(*told[n : n + 3])) for n in range(0, len(told), 3))
        if cursor == "0":
            return list(found.values())


def _policy_text(policy: LimitPolicy | None) -> str:
    return "-" if policy is None else ",".join(map(number_text, (policy.max_running, policy.per_s, policy.burst)))


def _state(key: str, row: str, parked: int) -> LimitState:
    running, level, at_ms, paused_until_ms, policy = row.split(" ")
    return LimitState(
        key,
        int(running),
        None if level == "-" else float(level),
        int(at_ms),
        int(paused_until_ms),
        _policy(policy),
        parked,
    )


def _policy(text: str) -> LimitPolicy | None:
    if text == "-":
        return None
    most, per_s, burst = (None if word == "-" else float(word) for word in text.split(","))
    return LimitPolicy(None if most is None else int(most), per_s, burst)


def _joined(told: Iterable[Sequence[LimitState]]) -> dict[str, LimitState]:
    """Each key as all partitions tell it: running and parked jobs in all, and the lowest of the buckets."""
    states: dict[str, LimitState] = {}
    for state in (state for some in told for state in some):
        known = states.get(state.key)
        states[state.key] = state if known is None else _sum(known, state)
    return states


def _sum(one: LimitState, other: LimitState) -> LimitState:
    lowest = min((one, other), key=lambda state: float("inf") if state.level is None else state.level)
    return msgspec.structs.replace(
        lowest,
        running=one.running + other.running,
        parked=one.parked + other.parked,
        paused_until_ms=max(one.paused_until_ms, other.paused_until_ms),
        policy=one.policy or other.policy,
    )
