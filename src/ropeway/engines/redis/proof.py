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
from ropeway.engines.redis.link import Link, LinkDown, Refused
from ropeway.engines.redis.route import Unsafe

__all__ = ["Proof", "prove"]

log = logging.getLogger("ropeway.engine")

Durability = Literal["disk", "window", "memory"]

_OLDEST = {"redis": (7, 0), "valkey": (7, 2)}
_CLASSES: tuple[Durability, ...] = ("memory", "window", "disk")


class Proof(msgspec.Struct, frozen=True):
    """What a server proved: its name and version, the durability class that follows, and what to know besides.

    `maxmemory_bytes` is 0 where there is no limit.
    """

    server: str
    version: str
    durability: Durability
    warnings: tuple[str, ...] = ()
    uptime_s: int = 0
    maxmemory_bytes: int = 0

    @property
    def rank(self) -> int:
        """Orders proofs by their class, the weakest first."""
        return _CLASSES.index(self.durability)


async def prove(link: Link, address: Address) -> Proof:
    """Look at a server before it is used.

    Raises Unsafe, with the remedy, for one that would lose accepted jobs, and LinkDown for one that is not ready yet.
    """
    info = _parse(await link.do("INFO"))
    if info.get("loading") == "1":  # while it reads its append-only file it tells that it has none
        raise LinkDown(f"{link.node} is loading its data", sent=False)
    name = "valkey" if "valkey_version" in info else "redis"
    version = info.get(f"{name}_version", "0")
    _check_version(link, name, version)
    _check_place(link, info, address)
    policy = info.get("maxmemory_policy", "")
    if policy != "noeviction":
        raise Unsafe(
            f"{link.node} may evict accepted jobs when its memory is full (maxmemory-policy {policy or 'unknown'}): "
            "set `maxmemory-policy noeviction`"
        )
    fsync = await _config(link, "appendfsync")
    durability, warnings = _durability(link, info, fsync)
    uptime_s, maxmemory_bytes = int(info.get("uptime_in_seconds", 0)), int(info.get("maxmemory", 0))
    proof = Proof(name, version, durability, tuple(warnings), uptime_s, maxmemory_bytes)
    if proof.rank < _CLASSES.index(address.durability):
        raise Unsafe(
            f"{link.node} keeps jobs by class {durability!r}, and {address.durability!r} is asked for: "
            + _remedy(durability, fsync)
        )
    return proof


def _check_place(link: Link, info: dict[str, str], address: Address) -> None:
    if info.get("role") != "master":
        raise Unsafe(f"{link.node} is a replica: what is written there is lost. Name the master, or use +sentinel")
    if info.get("cluster_enabled") == "1" and address.topology != "cluster":
        raise Unsafe(f"{link.node} is a node of a cluster: write redis+cluster:// in the engine's URL")


def _durability(link: Link, info: dict[str, str], fsync: str | None) -> tuple[Durability, list[str]]:
    """The class, and what an operator should know of it."""
    if info.get("aof_enabled") != "1":
        return "memory", ["no append-only file: a restart of the server loses jobs"]
    status = info.get("aof_last_write_status", "ok")
    if status != "ok":
        raise Unsafe(
            f"{link.node} cannot write its append-only file (aof_last_write_status is {status}): look at its disk"
        )
    warnings = []
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        warnings.append("the last rewrite of the append-only file failed, so it only grows: look at the server's disk")
    if fsync == "always":
        return "disk", warnings
    if fsync is None:
        warnings.append("CONFIG GET appendfsync is not allowed to this user: class window is assumed")
    elif fsync != "everysec":
        warnings.append(f"appendfsync is {fsync}: a power cut may take half a minute")
    return "window", warnings


def _remedy(durability: Durability, fsync: str | None) -> str:
    if durability == "memory":
        return "set `appendonly yes`, or accept its loss with ?durability=memory in the engine's URL"
    if fsync is None:
        return "allow the user +config|get, so that `appendfsync always` can be seen"
    return "set `appendfsync always`, or accept the loss of a second with ?durability=window"


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
