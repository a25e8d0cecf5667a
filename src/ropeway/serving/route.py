"""What a line of the table of routes says: a route, its parameters and its answers."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

from ropeway.domain.caller import Scope

__all__ = ["JSON", "NDJSON", "SSE", "UNDECLARED", "Answer", "Param", "Route"]

UNDECLARED: Final = "undeclared"

JSON, NDJSON, SSE = "application/json", "application/x-ndjson", "text/event-stream"


class Param(NamedTuple):
    """A parameter: where it stands (`path`, `query` or `header`), what it may be, and what it says."""

    name: str
    where: str
    schema: dict[str, Any]
    about: str


class Answer(NamedTuple):
    """A success: what comes back in each media type, and the headers worth naming."""

    status: int
    about: str
    content: tuple[tuple[str, Any], ...] = ()
    headers: tuple[str, ...] = ()


class Route(NamedTuple):
    """One route. `operation` is the method that serves it; `errors` are the statuses of its problems.

    `scope` is what a key must have to use it; None: open to all, without a key. One that does not say is closed.
    `lenient`: query parameters that are not named here are ignored, as OpenAI's SDKs expect, and not refused.
    """

    method: str
    path: str
    operation: str
    tag: str
    about: str
    answers: tuple[Answer, ...]
    params: tuple[Param, ...] = ()
    body: tuple[tuple[str, Any], ...] = ()
    needs_body: bool = False
    errors: tuple[int, ...] = ()
    scope: Scope | Literal["undeclared"] | None = UNDECLARED
    lenient: bool = False
