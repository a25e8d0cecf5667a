"""From a URL to an engine: the only place that knows which engines there are."""

from __future__ import annotations

import re

from ropeway.domain.clock import Clock
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.ids import RandomBytes, system_random
from ropeway.engines.base import Engine

__all__ = ["connect"]

_FORMS = "memory:, sqlite:PATH (relative), sqlite:///PATH (absolute), redis://HOST or valkey://HOST"
_REDIS = {"redis", "rediss", "valkey", "valkeys", "unix"}
_NOT_YET = {"postgres", "postgresql"}


def connect(url: str, *, clock: Clock | None = None, random: RandomBytes | None = None) -> Engine:
    """The engine of a URL, not open yet.

    Args:
        url: `memory:`, `sqlite:ropeway.db` (relative to the working directory) or `sqlite:///var/lib/ropeway.db`.
        clock: the engine's clock of record; the machine's own by default.
        random: where lease tokens come from; the system's randomness by default.

    Raises InvalidRequest for a URL that names no engine, saying which do.
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and colon and not rest:
        from ropeway.engines.memory import MemoryEngine  # an engine is loaded when it is asked for

        return MemoryEngine(clock, random or system_random)
    if scheme == "sqlite" and colon:
        from ropeway.engines.sqlite import SqliteEngine

        return SqliteEngine(_path(url, rest), clock, random or system_random)
    if scheme.partition("+")[0] in _REDIS and colon:
        return _redis(url, clock, random or system_random)
    if scheme in _NOT_YET:
        raise _refusal(f"the {scheme} engine is not built in yet: use {_FORMS}")
    raise _refusal(f"{_shown(url)!r} names no engine: use {_FORMS}")


def _redis(url: str, clock: Clock | None, random: RandomBytes) -> Engine:
    try:
        from ropeway.engines.redis import RedisEngine
    except ModuleNotFoundError as error:
        if error.name != "hiredis":
            raise
        raise _refusal("the Redis engine needs one more package: pip install 'ropeway[redis]'") from error
    return RedisEngine(url, clock, random)


def _shown(url: str) -> str:
    """A URL that names no engine, as it may be told: what may be a password is hidden."""
    return re.sub(r"(:/*).*@", r"\1***@", url)[:100]


def _path(url: str, rest: str) -> str:
    """The file that a `sqlite:` URL names, from what follows the colon."""
    if rest.startswith("///"):
        return "/" + rest.lstrip("/")
    if rest.startswith("//"):
        raise _refusal(f"{_shown(url)!r} names a host: for an absolute path write sqlite:///PATH")
    if rest in ("", ":memory:"):
        raise _refusal(f"{_shown(url)!r} names no file: use sqlite:ropeway.db, or memory: for jobs that need not last")
    if "?" in rest or "#" in rest:
        raise _refusal(f"{_shown(url)!r}: an engine's URL takes no options")
    return rest


def _refusal(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, param="engine")
