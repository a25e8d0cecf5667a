"""Limits: what jobs bring, what an operator sets, what providers tell. None of it is drawn from the world's own chance,
so that a seed's other moves stay what they were."""

from __future__ import annotations

import random
import zlib

import msgspec

from ropeway.domain.job import JobOptions, NewJob
from ropeway.domain.limit import Limit, LimitPolicy, LimitSignal
from ropeway.domain.queue import QueueChange
from ropeway.domain.rank import Priority
from ropeway.testing.history.record import TENANTS, Call
from ropeway.testing.history.world import QUEUES, World

__all__ = ["beside", "brought"]

ONE = Limit("one", max_running=1)
TWO = Limit("two", max_running=2)
RATE = Limit("rate", per_s=0.5, burst=1.0)
BOTH = Limit("both", max_running=1, per_s=1.0, burst=2.0)

BROUGHT: tuple[tuple[Limit, ...], ...] = ((ONE,), (RATE,), (BOTH,), (TWO, ONE), (RATE, ONE))
POLICIES = (None, None, LimitPolicy(), LimitPolicy(max_running=3), LimitPolicy(per_s=0.5, burst=2.0))


def brought(world: World, job_id: str, options: JobOptions) -> JobOptions:
    """Where limits are in play, five jobs of six run under some."""
    drawn = zlib.crc32(f"limits {job_id}".encode()) >> 8
    if not world.limited or drawn % 6 == 0:
        return options
    return msgspec.structs.replace(options, limits=BROUGHT[drawn // 6 % len(BROUGHT)])


def beside(world: World, chance: random.Random) -> Call | None:
    """Now and then, between two moves: a policy for a key, a provider's word, a queue made narrow or wide, a flood."""
    limit = chance.choice((ONE, TWO, RATE, BOTH))
    luck = chance.random()
    if luck < 0.04:
        return Call("set_limits", ({limit.key: chance.choice(POLICIES)},))
    if luck < 0.08:
        left, pause_ms = chance.choice(((0.0, 0), (1.0, 0), (None, 700), (None, 5000)))
        return Call("signal", ([LimitSignal(limit, left, pause_ms)],))
    if luck < 0.11:
        return Call("set_queue", ([QueueChange(chance.choice(QUEUES), max_running=chance.choice((None, None, 1, 3)))],))
    return Call("submit", (_flood(world, chance),)) if luck < 0.13 else None


def _flood(world: World, chance: random.Random) -> list[NewJob]:
    """So many urgent jobs that the others of their queue wait for their turn, which must come."""
    queue, tenant = chance.choice(QUEUES), chance.choice(TENANTS)
    priorities = (*[Priority.high] * 12, Priority.normal, Priority.low)
    return [NewJob(world.new_id(tenant), tenant, queue, "task", "0", priority) for priority in priorities]
