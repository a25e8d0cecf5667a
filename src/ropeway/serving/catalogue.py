"""The tasks that may be submitted: read from the engine, and read again before they are old.

A gateway knows no user code: workers announce their tasks and schemas in the engine. In the same process it may be
handed the tasks' own type checks besides.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from ropeway.client.submission import SchemaCheck
from ropeway.domain.clock import Clock
from ropeway.domain.errors import InvalidRequest, TaskNotFound
from ropeway.domain.worker import TaskCard
from ropeway.engines.base import Reading

__all__ = ["Catalogue", "Check", "Entry"]

Check = Callable[[bytes], None]
"""Raises InputInvalid for an input that does not fit."""

MISS_INTERVAL_S = 1.0  # unknown names may not make the engine read its catalogue more often than this

_log = logging.getLogger("ropeway.serving")


class Entry(NamedTuple):
    """A task: its card, and what its inputs must pass."""

    card: TaskCard
    schema: SchemaCheck
    own_check: Check | None

    def check(self, input_json: bytes) -> None:
        """Raises InputInvalid."""
        self.schema.check(input_json)
        if self.own_check is not None:
            self.own_check(input_json)


class Catalogue:
    """Tasks by name, at most `ttl_s` old."""

    def __init__(self, engine: Reading, clock: Clock, ttl_s: float, checks: Mapping[str, Check]) -> None:
        self._engine = engine
        self._clock = clock
        self._ttl_s = ttl_s
        self._checks = checks
        self._known: dict[str, Entry] = {}
        self._read_at_s = float("-inf")
        self._reading = asyncio.Lock()

    async def entry(self, name: str) -> Entry:
        """The task of this name. Raises TaskNotFound, with the names that come close."""
        await self._freshen(self._ttl_s)
        entry = self._known.get(name)
        if entry is None:
            await self._freshen(MISS_INTERVAL_S)
            entry = self._known.get(name)
        if entry is None:
            raise TaskNotFound(self._not_found(name))
        return entry

    async def cards(self) -> list[TaskCard]:
        """Every task as it is announced now, by name."""
        await self._freshen(self._ttl_s)
        return [entry.card for entry in self._known.values()]

    async def _freshen(self, ttl_s: float) -> None:
        if not self._is_older(ttl_s):
            return
        async with self._reading:  # whoever waited here finds it read
            if self._is_older(ttl_s):
                now_s = self._clock.monotonic_s()
                cards = await self._engine.tasks()
                self._known = {card.name: self._entry(card) for card in cards}
                self._read_at_s = now_s

    def _is_older(self, ttl_s: float) -> bool:
        return self._clock.monotonic_s() - self._read_at_s >= ttl_s

    def _entry(self, card: TaskCard) -> Entry:
        known = self._known.get(card.name)
        if known is not None and known.card == card:
            return known
        return Entry(card, _schema_check(card), self._checks.get(card.name))

    def _not_found(self, name: str) -> str:
        said = f"no task '{name[:128]}' is announced"
        close = difflib.get_close_matches(name[:128], self._known, n=3, cutoff=0.5)
        if close:
            return f"{said}; did you mean {' or '.join(repr(other) for other in close)}?"
        named = ", ".join(list(self._known)[:10])
        return f"{said}; there are: {named}" if named else f"{said}, nor any other: is a worker running?"


def _schema_check(card: TaskCard) -> SchemaCheck:
    """The compiled schema. One that does not compile checks nothing here: the worker's types decide."""
    try:
        return SchemaCheck(card)
    except InvalidRequest as error:
        _log.warning("inputs of task %r are checked by its worker only: %s", card.name, error.detail)
        return SchemaCheck(msgspec.structs.replace(card, input_schema="{}"))
