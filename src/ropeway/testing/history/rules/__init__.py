"""The moves of a history: each draws one call from what the world knows, or None when there is nothing to do."""

from __future__ import annotations

from collections.abc import Callable

from ropeway.testing.history.record import Call
from ropeway.testing.history.rules import clients, operators, workers
from ropeway.testing.history.world import World

__all__ = [
    "BURST_RULES",
    "CORE",
    "CORE_WEIGHTS",
    "MORTAL",
    "OTHER_WEIGHTS",
    "RULES",
    "WAKING_BURST_RULES",
    "WAKING_RULES",
    "WAKING_WEIGHTS",
    "Rule",
]

Rule = Callable[[World], Call | None]

RULES: dict[str, Rule] = {
    "submit": clients.submit,
    "lease": workers.lease,
    "append": workers.append,
    "commit": workers.commit,
    "repeat": clients.repeat,
    "cancel": clients.cancel,
    "get": clients.get,
    "read": clients.read,
    "find": clients.find,
    "position": clients.position,
    "retry": clients.retry,
    "purge": clients.purge,
    "announce": workers.announce,
    "renew": workers.renew,
    "close": workers.close,
    "promote": operators.promote,
    "rescue": operators.rescue,
    "prune": operators.prune,
    "pause": operators.pause,
    "limit": operators.limit,
    "weigh": operators.weigh,
    "stats": operators.stats,
}
"""Every rule by name. The order is part of what a seed means."""

WAKING_RULES: dict[str, Rule] = {"wake": clients.wake, "sleep": workers.sleep}
"""Those of wakeful histories alone: in others a seed means what it did before there were wakings."""

CORE = frozenset({"submit", "lease", "append", "commit", "expire"})
"""The moves without which little happens."""

CORE_WEIGHTS = (1, 3, 3, 8, 8)
OTHER_WEIGHTS = (0, 0, 0, 1, 1, 2, 4)
"""What a history draws a move's weight from: many moves left out leave room for the others to meet."""

WAKING_WEIGHTS = {
    "wake": (4, 8, 12),
    "sleep": (2, 6, 12),
    "burst": (2, 4, 6),
    "lease": (4, 8),
    "announce": (2, 4),
    "expire": (0, 1),
    "position": (2, 4),
}
"""What a wakeful history draws the weights of these moves from: attempts must live for long enough to be woken, and a
job that was woken is asked for its place."""

BURST_RULES = ("submit", "lease", "append", "commit", "repeat", "cancel", "get", "renew", "rescue", "close")
"""Rules whose calls may be made at the same time."""

WAKING_BURST_RULES = (*BURST_RULES, *["wake", "sleep"] * 3, "promote")
"""The same, in a wakeful history."""

MORTAL = ("submit", "lease", "append", "commit", "cancel")
"""Rules in whose calls an engine may die; in a wakeful history in those of its own too."""
