"""What upkeep and operators do."""

from __future__ import annotations

from ropeway.domain.queue import DEFAULT_MAX_DEPTH, QueueChange
from ropeway.testing.history.record import TENANTS, Call
from ropeway.testing.history.world import QUEUES, World

__all__ = ["limit", "pause", "promote", "prune", "rescue", "stats", "weigh"]

ENOUGH = 1000  # a limit that no history reaches


def promote(world: World) -> Call | None:
    return Call("promote", (world.rng.choice((ENOUGH, ENOUGH, 1)),))


def rescue(world: World) -> Call | None:
    return Call("rescue", (world.rng.choice((ENOUGH, ENOUGH, 1)),))


def prune(world: World) -> Call | None:
    return Call("prune", (world.rng.choice((ENOUGH, ENOUGH, 1)),))


def pause(world: World) -> Call | None:
    """A queue paused, or more often resumed."""
    return Call("set_queue", ([QueueChange(world.rng.choice(QUEUES), paused=world.rng.choice((True, False, False)))],))


def limit(world: World) -> Call | None:
    """Depths small enough to be met."""
    depth = world.rng.choice((1, 2, 4, DEFAULT_MAX_DEPTH))
    own = world.rng.choice((None, None, 1, 2))
    return Call("set_queue", ([QueueChange(world.rng.choice(QUEUES), max_depth=depth, max_depth_per_tenant=own)],))


def weigh(world: World) -> Call | None:
    """Weights whose shares a double holds exactly, so that ranks can be compared for equality."""
    weights = {tenant: world.rng.choice((0.5, 1.0, 2.0)) for tenant in TENANTS}
    return Call("set_queue", ([QueueChange(world.rng.choice(QUEUES), weights=weights)],))


def stats(world: World) -> Call | None:
    return Call("stats", (world.rng.choice((None, *TENANTS)),))
