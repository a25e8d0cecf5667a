"""The tasks that workers announced, for submits by name: looked up once, and looked at again as it ages."""

from __future__ import annotations

from collections.abc import Collection

from ropeway.client.checking import SchemaCheck
from ropeway.domain.clock import Clock
from ropeway.domain.errors import TaskNotFound
from ropeway.domain.worker import TaskCard
from ropeway.engines.base import Reading

__all__ = ["Catalogue"]

FRESH_S = 10.0  # after a deploy, a client may use the old schema for so long; the worker checks again anyway


class Catalogue:
    """Cards and compiled schemas by task name."""

    def __init__(self, engine: Reading, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._known: dict[str, tuple[TaskCard, SchemaCheck | None]] = {}
        self._stale_at_s = float("-inf")

    async def prepare(self, names: Collection[str]) -> None:
        """Read the engine's catalogue, when what is known of these tasks is old or nothing."""
        now_s = self._clock.monotonic_s()
        if now_s < self._stale_at_s and all(name in self._known for name in names):
            return
        cards = {card.name: card for card in await self._engine.tasks()}
        unchanged = {name: kept for name, kept in self._known.items() if cards.get(name) == kept[0]}
        self._known = {name: (card, None) for name, card in cards.items()} | unchanged
        self._stale_at_s = now_s + FRESH_S

    def card(self, name: str) -> TaskCard:
        """The card of a prepared name. Raises TaskNotFound with the names that there are."""
        known = self._known.get(name)
        if known is None:
            names = ", ".join(sorted(self._known)) or "none yet: is a worker running?"
            raise TaskNotFound(f"no worker has announced task '{name}'; announced: {names}")
        return known[0]

    def check(self, name: str, input_json: bytes) -> None:
        """Raises InputInvalid when the input does not fit the announced schema of this (prepared) task."""
        card, check = self._known[name]
        if check is None:
            check = SchemaCheck(card)
            self._known[name] = (card, check)
        check.check(input_json)
