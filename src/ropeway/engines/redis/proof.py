"""The start-up proof: what a server really does with what it acknowledges, and whether it may be used at all.

class    appendonly and appendfsync         what a power cut takes
disk     yes, always                        nothing that was acknowledged
window   yes, everysec or no                the last second or two
memory   no                                 everything since the last snapshot, if there is one
"""

from __future__ import annotations

import logging
import re
from typing import Any, Literal

import msgspec

from ropeway.engines.redis.address import Address
from ropeway.engines.redis.link import Link, Refused
from ropeway.engines.redis.route import Unsafe

__all__ = ["Proof", "prove"]

log = logging.getLogger("ropeway.engine")

Durability = Literal["disk", "window", "memory"]

_OLDEST = {"redis": (7, 0), "valkey": (7, 2)}
_CLASSES: tuple[Durability, ...] = ("memory", "window", "disk")


class Proof(msgspec.Struct, frozen=True):
    """What a server proved: its name and version, the durability class that follows, and what to know besides. 0 maxmemory: no limit."""

    server: str
    version: str
    durability: Durability
    warnings: tuple[str, ...] = ()
    uptime_s: int = 0
    maxmemory_bytes: int = 0


async def prove(link: Link, address: Address) -> Proof:
    """Look at a server before it is used. Raises Unsafe, with the remedy, for one that would lose accepted jobs."""
    info = _parse(await link.do("INFO"))
    name = "valkey" if "valkey_version" in info else "redis"
    version = info.get(f"{name}_version", "0")
    _check_version(link, name, version)
    if info.get("role") != "master":
        raise Unsafe(f"{link.node} is a replica: what is written there is lost. Name the master, or use +sentinel")
    policy = info.get("maxmemory_policy", "")
    if policy != "noeviction":
        raise Unsafe(
            f"{link.node} may evict accepted jobs when its memory is full (maxmemory-policy {policy or 'unknown'}): "
            "set `maxmemory-policy noeviction`"
        )
    durability, warnings = await _durability(link, info)
    if _CLASSES.index(durability) < _CLASSES.index(address.durability):
        raise Unsafe(
            f"{link.node} keeps jobs by class {durability!r}, and {address.durability!r} is asked for: "
            + (
                "set `appendonly yes`, or accept its loss with ?durability=memory in the engine's URL"
                if durability == "memory"
                else "set `appendfsync always`, or accept the loss of a second with ?durability=window"
            )
        )
    uptime_s, maxmemory_bytes = int(info.get("uptime_in_seconds", 0)), int(info.get("maxmemory", 0))
    return Proof(name, version, durability, tuple(warnings), uptime_s, maxmemory_bytes)


async def _durability(link: Link, info: dict[str, str]) -> tuple[Durability, list[str]]:
    if info.get("aof_enabled") != "1":
        return "memory", ["no append-only file: a restart of the server loses jobs"]
    for sign in ("aof_last_write_status", "aof_last_bgrewrite_status"):
        if info.get(sign, "ok") != "ok":
            raise Unsafe(f"{link.node} cannot write its append-only file ({sign} is {info[sign]}): look at its disk")
    fsync = await _config(link, "appendfsync")
    if fsync == "always":
        return "disk", []
    if fsync is None:
        return "window", ["CONFIG GET appendfsync is not allowed to this user: class window is assumed"]
    return "window", [] if fsync == "everysec" else [f"appendfsync is {fsync}: a power cut may take half a minute"]


async def _config(link: Link, name: str) -> str | None:
    found: Any = await link.do("CONFIG", "GET", name)
    return None if isinstance(found, Refused) else str(found.get(name))


def _check_version(link: Link, name: str, version: str) -> None:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < _OLDEST[name]:
        oldest = ".".join(map(str, _OLDEST[name]))
        raise Unsafe(f"{link.node} is {name} {version}: {name} {oldest} or newer is needed")


def _parse(text: Any) -> dict[str, str]:
    if isinstance(text, Refused):
        raise Unsafe(f"the user may not look at the server (INFO): {text}; allow +info")
    lines = (line.partition(":") for line in str(text).splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in lines}
