"""Server-sent events as a gateway writes them: bytes in, blocks out.

Source: WHATWG HTML, "Interpreting an event stream". Lines end with LF or CRLF only: a general line splitter would also
split at the U+2028 that JSON strings may hold.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Block", "SseReader"]


class Block(NamedTuple):
    """One dispatched event: its type, its data and its id (None when the block had none)."""

    event: str
    data: str
    id: str | None


class SseReader:
    """Collects a stream's bytes into blocks. Comments, our heartbeats among them, pass silently."""

    def __init__(self) -> None:
        self._rest = b""
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> list[Block]:
        """The blocks that this chunk completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        blocks = []
        for line in lines:
            block = self._take(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if block is not None:
                blocks.append(block)
        return blocks

    def _take(self, line: str) -> Block | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id":
            self._id = value
        return None

    def _dispatch(self) -> Block | None:
        block = Block(self._event, "\n".join(self._data), self._id) if self._data else None
        self._event, self._data, self._id = "", [], None
        return block
