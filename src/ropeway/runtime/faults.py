"""What is wrong with an input, told as JSON pointers (RFC 6901), whichever library found it."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from ropeway.domain.errors import Fault, InputInvalid

__all__ = ["ModelFaults", "invalid", "pointer", "reading_faults"]

_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.+)`")
_AT = re.compile(r"^(?P<detail>.*) - at `(?:key in )?\$(?P<path>.*)`$", re.DOTALL)
_STEP = re.compile(r"\[(\d+|\.\.\.)\]|\.([^.\[]+)")


class ModelFaults(Exception):
    """What a model's own validation found wrong with a value; `faults` are placed from the value itself."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(fault.detail for fault in faults))
        self.faults = faults


def pointer(steps: Iterable[str | int]) -> str:
    """The JSON pointer of a path of field names and indices; the empty path is the whole document."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


def invalid(task: str, faults: Iterable[Fault]) -> InputInvalid:
    """The error for an input with these faults."""
    found = tuple(faults)
    told = "; ".join(f"{fault.pointer or 'input'}: {fault.detail}" for fault in found[:3])
    return InputInvalid(f"the input does not fit task '{task}': {told}", found)


def reading_faults(error: Exception) -> tuple[Fault, ...]:
    """The faults in what a model, msgspec, or the text's own encoding refused.

    A missing field is told at its object, an unknown one at itself. Below a mapping msgspec names no key (`[...]`):
    the pointer stops there.
    """
    if isinstance(error, ModelFaults):
        return error.faults
    if isinstance(error, RecursionError):
        return (Fault("", "nested too deeply"),)
    if not isinstance(error, msgspec.ValidationError):
        return (Fault("", f"not JSON: {_plain(error)}"),)
    return (_msgspec_fault(_plain(error)),)


def _msgspec_fault(detail: str) -> Fault:
    steps: list[str] = []
    placed = _AT.match(detail)
    if placed is not None:
        detail = placed["detail"]
        steps = _steps(placed["path"])
    unknown = _UNKNOWN_FIELD.match(detail)
    if unknown is not None:
        return Fault(pointer([*steps, unknown[1]]), "unknown field")
    return Fault(pointer(steps), detail.replace("`", "'"))


def _steps(path: str) -> list[str]:
    steps: list[str] = []
    for step in _STEP.finditer(path):
        if step[1] == "...":
            break
        steps.append(step[1] or step[2])
    return steps


def _plain(error: Exception) -> str:
    """The message without what cannot be sent on: lone surrogates."""
    return str(error).encode("utf-8", "replace").decode()
