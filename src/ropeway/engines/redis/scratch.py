"""Stores for a moment: under a prefix of their own beside whatever else the server holds, and gone after."""

from __future__ import annotations

import secrets
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ropeway.engines.redis.address import parse
from ropeway.engines.redis.partition import Partition

__all__ = ["scratch_url", "wipe"]

SCAN_COUNT = 500


def scratch_url(url: str, name: str) -> str:
    """The same server's URL with a prefix that nobody has: the URL's own one (a user may be bound to it), then `name`.

    Raises InvalidRequest for a URL that is none.
    """
    prefix = f"{parse(url).prefix}:{name}-{secrets.token_hex(6)}"
    parts = urlsplit(url)
    options = [(key, value) for key, value in parse_qsl(parts.query) if key != "prefix"]
    return urlunsplit(parts._replace(query=urlencode([*options, ("prefix", prefix)])))


async def wipe(partition: Partition) -> int:
    """Delete every key of a partition, jobs and all; how many there were. Raises EngineUnavailable."""
    cursor, gone = "0", 0
    while True:
        cursor, keys = await partition.ask("SCAN", cursor, "MATCH", f"{partition.root}:*", "COUNT", SCAN_COUNT)
        if keys:
            gone += int(await partition.ask("UNLINK", *keys))
        if cursor == "0":
            return gone
