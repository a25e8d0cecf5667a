"""Asks an endpoint many times at once, and times every word of every answer."""

from __future__ import annotations

import asyncio
import re
import time
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["Load", "Seen", "ask_many"]

_WORDS = re.compile(rb'"(?:text|content)":"([0-9. ]+)"')
_BODY = b'{"messages":[{"role":"user","content":"hello"}]}'


class Load(NamedTuple):
    """How much is asked: `requests` in all, `concurrency` at once, `words` in each answer."""

    requests: int
    concurrency: int
    words: int


class Seen(NamedTuple):
    """What came of it, in seconds. `late_s`: of each word, from the provider's write to its reader's hand."""

    wall_s: float
    first_s: list[float]
    late_s: list[float]
    failed: int


async def ask_many(url: str, path: str, load: Load) -> Seen:
    """Ask, each request on a connection of its own. The stamps in the words are of this machine's monotonic clock."""
    places = asyncio.Semaphore(load.concurrency)
    first_s: list[float] = []
    late_s: list[float] = []
    failed = 0

    async def one() -> None:
        nonlocal failed
        async with places:
            try:
                came = await _ask(url, path, load.words, late_s)
            except (OSError, asyncio.IncompleteReadError):
                came = None
        if came is None:
            failed += 1
        else:
            first_s.append(came)

    began_s = time.monotonic()
    await asyncio.gather(*[one() for _ in range(load.requests)])
    return Seen(time.monotonic() - began_s, first_s, late_s, failed)


async def _ask(url: str, path: str, words: int, late_s: list[float]) -> float | None:
    """Seconds to the first word; None when not all words came."""
    began_s = time.monotonic()
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    head = f"POST {path} HTTP/1.1\r\nhost: {at.netloc}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(_BODY) + _BODY)
    first_s, count = 0.0, 0
    try:
        while line := await reader.readline():
            if found := _WORDS.search(line):
                now_s = time.monotonic()
                first_s = first_s or now_s - began_s
                stamps = found[1].split()
                count += len(stamps)
                late_s.extend(now_s - float(stamp) for stamp in stamps)
                if count >= words:  # the result repeats them
                    break
    finally:
        writer.close()
    return first_s if count == words else None
