"""What JSON allows and we do not: nesting without end, and one member named twice.

A decoder that takes the last of two members and a validator that takes the first can be made to see two inputs in one
body. Numbers are not touched: an integer of any size up to 4,300 digits is kept exactly as it was written.
"""

from __future__ import annotations

import json
import json.scanner
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ropeway.domain.errors import Fault, InputInvalid, InvalidRequest

__all__ = ["check_depth", "check_members", "explain"]

_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_ONE_KIND = bytes.maketrans(b"[]", b"{}")


def check_depth(body: bytes, limit: int) -> None:
    """Nothing, if `body` is nested at most `limit` deep; by passes of C code, each of which takes one level off.

    Raises InvalidRequest. What is not JSON passes: the decoder will say so.
    """
    if body.count(b"{") + body.count(b"[") <= limit:
        return
    brackets = _STRINGS.sub(b"", body).translate(_ONE_KIND, _NOT_BRACKETS)
    if brackets.startswith(b"{" * (limit + 1)):
        raise _too_deep(limit)
    for _ in range(limit):
        brackets = brackets.replace(b"{}", b"")
        if not brackets:
            return
    raise _too_deep(limit)


def check_members(body: bytes) -> None:
    """Nothing, if no object in this JSON names a member twice.

    Raises InputInvalid with the pointer into the input, or InvalidRequest when it is not in the input. Of text that is
    not UTF-8, and numbers too long to be read, it says so too.
    """
    text = _decoded(body)
    try:
        _scan_strictly(text, 0 if text[:1] == "{" else len(text) - len(text.lstrip()))
    except StopIteration:
        pass  # not JSON, which the decoder tells
    except _NamedTwice:
        raise _refusal(text) from None
    except (ValueError, RecursionError) as error:
        said = f"a number has more than {sys.get_int_max_str_digits()} digits"
        raise InputInvalid(f"the input cannot be read: {said}", (Fault("", said),)) from error


def explain(body: bytes, error: Exception) -> InvalidRequest:
    """Why a body is not JSON, better said than by the decoder, which calls half a surrogate pair 'truncated'."""
    try:
        _decode_plainly(_decoded(body))
    except InvalidRequest as better:
        return better
    except (ValueError, RecursionError):
        return InvalidRequest(f"the body is not JSON: {error}")
    return InvalidRequest("the body is not JSON: a string holds one half of a surrogate pair")


def _decoded(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as fault:
        at = fault.start
        raise InvalidRequest(f"the body is not UTF-8: byte {at} is {body[at]:#04x}") from fault


class _NamedTwice(Exception):
    pass


class _Twice:
    """Stands in a decoded value for an object that named a member twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        self.name = next(name for name in names if names.count(name) > 1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _NamedTwice
    return members


def _marked(pairs: list[tuple[str, Any]]) -> Any:
    members = dict(pairs)
    return members if len(members) == len(pairs) else _Twice(pairs)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decode_plainly = json.JSONDecoder(parse_constant=_refuse_constant).decode
# the C scanner itself, without the regular expressions that `decode` runs around it
_decoder: Any = json.JSONDecoder(object_pairs_hook=_unique)
_scan_strictly: Callable[[str, int], object] = json.scanner.make_scanner(_decoder)
_decode_marking = json.JSONDecoder(object_pairs_hook=_marked).decode


def _refusal(text: str) -> InputInvalid | InvalidRequest:
    path, name = next(_twices(_decode_marking(text), ()))
    detail = f"names the member '{name[:100]}' twice"
    if path[:1] == ("input",):
        pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path[1:])
        return InputInvalid(f"the input {detail}", (Fault(pointer, detail),))
    return InvalidRequest(f"the body {detail}", param=name[:100] if not path else str(path[0]))


def _twices(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, _Twice):
        yield path, value.name
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from _twices(member, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _twices(item, (*path, index))


def _too_deep(limit: int) -> InvalidRequest:
    return InvalidRequest(f"the body is nested more than {limit} deep")
