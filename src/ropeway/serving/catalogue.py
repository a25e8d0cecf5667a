"""The tasks that may be submitted: read from the engine, and read again before they are old.

A gateway knows no user code: workers announce their tasks and schemas in the engine. In the same process it may be
handed the tasks' own type checks besides.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import msgspec

from ropeway.client.checking import SchemaCheck
from ropeway.domain.clock import Clock
from ropeway.domain.errors import InvalidRequest, TaskNotFound
from ropeway.domain.worker import ModelCard, TaskCard
from ropeway.engines.base import Reading
from ropeway.serving.problems import ModelNotFound

__all__ = ["Catalogue", "Check", "Entry", "Served"]

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


class Served(NamedTuple):
    """A model, and the task that serves it."""

    model: ModelCard
    entry: Entry


class Catalogue:
    """Tasks by name, and models by id, at most `ttl_s` old."""

    def __init__(self, engine: Reading, clock: Clock, ttl_s: float, checks: Mapping[str, Check]) -> None:
        self._engine = engine
        self._clock = clock
        self._ttl_s = ttl_s
        self._checks = checks
        self._known: dict[str, Entry] = {}
        self._models: dict[str, Served] = {}
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
            raise TaskNotFound(_not_found(f"no task '{name[:128]}' is announced", name, self._known))
        return entry

    async def cards(self) -> list[TaskCard]:
        """Every task as it is announced now, by name."""
        await self._freshen(self._ttl_s)
        return [entry.card for entry in self._known.values()]

    async def model(self, id_: str) -> Served:
        """The model of this id; of two tasks that serve it, the first by name. Raises ModelNotFound."""
        await self._freshen(self._ttl_s)
        served = self._models.get(id_)
        if served is None:
            await self._freshen(MISS_INTERVAL_S)
            served = self._models.get(id_)
        if served is None:
            raise ModelNotFound(_not_found(f"no task serves a model '{id_[:128]}'", id_, self._models))
        return served

    async def models(self) -> list[ModelCard]:
        """Every model that a task serves now, by id."""
        await self._freshen(self._ttl_s)
        return [self._models[id_].model for id_ in sorted(self._models)]

    async def _freshen(self, ttl_s: float) -> None:
        if not self._is_older(ttl_s):
            return
        async with self._reading:  # whoever waited here finds it read
            if self._is_older(ttl_s):
                now_s = self._clock.monotonic_s()
                cards = await self._engine.tasks()
                self._known = {card.name: self._entry(card) for card in cards}
                self._models = _models_of(self._known)
                self._read_at_s = now_s

    def _is_older(self, ttl_s: float) -> bool:
        return self._clock.monotonic_s() - self._read_at_s >= ttl_s

    def _entry(self, card: TaskCard) -> Entry:
        known = self._known.get(card.name)
        if known is not None and known.card == card:
            return known
        return Entry(card, _schema_check(card), self._checks.get(card.name))


def _models_of(tasks: Mapping[str, Entry]) -> dict[str, Served]:
    served: dict[str, Served] = {}
    for name in sorted(tasks):
        for model in tasks[name].card.models:
            served.setdefault(model.id, Served(model, tasks[name]))
    return served


def _not_found(said: str, name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name[:128], known, n=3, cutoff=0.5)
    if close:
        return f"{said}; did you mean {' or '.join(repr(other) for other in close)}?"
    named = ", ".join(list(known)[:10])
    return f"{said}; there are: {named}" if named else f"{said}, nor any other: is a worker running?"


def _schema_check(card: TaskCard) -> SchemaCheck:
    """The compiled schema. One that does not compile checks nothing here: the worker's types decide."""
    try:
        return SchemaCheck(card)
    except InvalidRequest as error:
        _log.warning("inputs of task %r are checked by its worker only: %s", card.name, error.detail)
        return SchemaCheck(msgspec.structs.replace(card, input_schema="{}"))
