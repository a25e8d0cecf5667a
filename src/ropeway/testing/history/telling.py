"""Calls and answers as short text: structs without what is at its default."""

from __future__ import annotations

from enum import Enum

import msgspec

__all__ = ["short"]


def short(value: object) -> str:
    """`value` as text for a human to follow a history by."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, msgspec.Struct):
        return f"{type(value).__name__}({', '.join(_fields(value))})"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return "-".join(map(short, value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(short, value))}]"
    return repr(value)


def _fields(struct: msgspec.Struct) -> list[str]:
    told = []
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if value is not None and value != default:
            told.append(f"{field.name}={short(value)}")
    return told
