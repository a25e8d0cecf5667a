"""Inputs against the JSON Schema that a task announces: what is wrong with them, told by place.

What stands for something else is not judged: a file in place of a member, and the output of another job anywhere. What
is in them, the worker sees when it has put them in.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema_rs
import msgspec

from ropeway.domain.errors import Fault, InputInvalid, InvalidRequest
from ropeway.domain.file import referred
from ropeway.domain.flow import Place, places_in
from ropeway.domain.worker import TaskCard

__all__ = ["SchemaCheck"]

FAULT_LIMIT = 20  # a caller mends the first few; thousands of them would be an attack on our own answer

_CERTAIN = frozenset({"type", "required", "additionalProperties", "minItems", "maxItems"})
"""Rules that a value breaks whatever stands in for a part of it."""


class SchemaCheck:
    """A task's announced JSON Schema (2020-12), compiled. Thread-safe; about 2 us for a small input."""

    def __init__(self, card: TaskCard) -> None:
        """Raises InvalidRequest for a schema that does not compile; references outside it are never fetched."""
        schema = msgspec.json.decode(card.input_schema)
        self._takes_anything = schema in ({}, True)
        self._task = card.name
        try:
            # the mask keeps the caller's data, which may be secret or huge, out of messages
            self._validator = jsonschema_rs.Draft202012Validator(schema, offline=True, mask="the value")
        except (jsonschema_rs.ValidationError, ValueError) as error:
            raise InvalidRequest(f"task '{card.name}' announces a schema that is none: {_line(str(error))}") from error

    def check(self, input_json: bytes) -> None:
        """Nothing, if the input fits. Raises InputInvalid with up to 20 faults, each at its JSON pointer."""
        faults = self.faults(input_json)
        if faults:
            raise InputInvalid(f"the input does not fit task '{self._task}': {_summary(faults)}", faults)

    def faults(self, input_json: bytes) -> tuple[Fault, ...]:
        """What does not fit, up to 20 faults. Raises InputInvalid for what is no JSON, or nested too deeply."""
        value = _decode_input(input_json)
        if self._takes_anything:
            return ()
        try:
            if self._validator.is_valid(value):
                return ()
            openings = _Openings([*_files_in(value), *places_in(input_json)])
            return tuple(itertools.islice(_faults(self._validator.iter_errors(value), openings), FAULT_LIMIT))
        except (ValueError, RecursionError) as error:  # the validator's own depth limit
            raise _too_deep() from error


class _Openings:
    """The places in an input where something stands in for a value that is not known here."""

    def __init__(self, places: Iterable[Place]) -> None:
        self._places = frozenset(places)
        self._above: set[Place] = set()
        for place in self._places:
            while place:
                place = place[:-1]
                if place in self._above:
                    break
                self._above.add(place)

    def hold(self, path: Place) -> bool:
        """Whether this is such a place, or within what stands there."""
        return bool(self._places) and any(path[:n] in self._places for n in range(len(path) + 1))

    def are_below(self, path: Place) -> bool:
        """Whether such a place is a part of this one, so that nobody knows yet what is here as a whole."""
        return path in self._above


def _decode_input(input_json: bytes) -> Any:
    try:
        return msgspec.json.decode(input_json)
    except RecursionError as error:
        raise _too_deep() from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputInvalid(f"the input is not JSON: {error}", (Fault("", f"is not JSON: {error}"),)) from error


def _too_deep() -> InputInvalid:
    return InputInvalid("the input is nested too deeply", (Fault("", "is nested too deeply"),))


def _files_in(value: Any) -> list[Place]:
    """The members of an input for which files stand."""
    return [(name,) for name, member in value.items() if referred(member)] if isinstance(value, dict) else []


def _faults(errors: Iterable[jsonschema_rs.ValidationError], openings: _Openings) -> Iterator[Fault]:
    for error in errors:
        kind, value, path = error.kind.name, error.kind.value, tuple(error.instance_path)
        if openings.hold(path):
            continue
        if kind in ("anyOf", "oneOf"):
            yield from _closest(error, openings)
        elif openings.are_below(path) and kind not in _CERTAIN:
            continue
        elif kind == "required":
            yield Fault(_pointer([*path, value]), "is required")
        elif kind == "additionalProperties":
            for name in value:
                yield Fault(_pointer([*path, name]), "is not a field of this task")
        else:
            yield Fault(_pointer(path), _line(error.message).removeprefix("the value "))


def _closest(error: jsonschema_rs.ValidationError, openings: _Openings) -> Iterator[Fault]:
    """The faults of the one alternative that is of the value's own type; else that none fits."""
    path = tuple(error.instance_path)
    branches: list[list[jsonschema_rs.ValidationError]] = getattr(error.kind, "context", None) or []
    of_its_type = [branch for branch in branches if not any(_misses_type(e, len(path)) for e in branch)]
    if len(of_its_type) == 1:
        yield from _faults(of_its_type[0], openings)
    elif not openings.are_below(path) or not of_its_type:
        yield Fault(_pointer(path), "fits none of the types allowed here")


def _misses_type(error: jsonschema_rs.ValidationError, depth: int) -> bool:
    return len(error.instance_path) == depth and error.kind.name in ("type", "const", "enum")


def _pointer(path: Iterable[str | int]) -> str:
    """RFC 6901."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def _summary(faults: tuple[Fault, ...]) -> str:
    first = f"{faults[0].pointer or 'it'} {faults[0].detail}"
    return first if len(faults) < 2 else f"{first} (and {len(faults) - 1} more)"


def _line(text: str) -> str:
    """The first line of a message, at a readable length."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= 200 else line[:199] + "…"
