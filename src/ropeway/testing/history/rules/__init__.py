"""The moves of a history: each draws one call from what the world knows, or None when there is nothing to do."""

from __future__ import annotations

from collections.abc import Callable

from ropeway.testing.history.record import Call
from ropeway.testing.history.rules import clients, operators, workers
from ropeway.testing.history.world import World

__all__ = ["BURST_RULES", "CORE", "CORE_WEIGHTS", "OTHER_WEIGHTS", "RULES", "Rule"]

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

CORE = frozenset({"submit", "lease", "append", "commit", "expire"})
"""The moves without which little happens."""

CORE_WEIGHTS = (1, 3, 3, 8, 8)
OTHER_WEIGHTS = (0, 0, 0, 1, 1, 2, 4)
"""What a history draws a move's weight from: many moves left out leave room for the others to meet."""

BURST_RULES = ("submit", "lease", "append", "commit", "repeat", "cancel", "get", "renew", "rescue", "close")
"""Rules whose calls may be made at the same time."""
