"""A provider's event stream, read as it comes and within limits: bytes in, the data of each event out.

Source: WHATWG HTML, "Interpreting an event stream". Only `data` counts here: providers' other fields say nothing that
their data does not. `client.sse` reads our own gateway; this reads a stranger, who may send a line without an end.
"""

from __future__ import annotations

__all__ = ["EventReader", "LineTooLong"]


class LineTooLong(Exception):
    """An event is larger than the limit."""


class EventReader:
    """Collects a stream's bytes into the data of its events. Comments, heartbeats among them, pass silently."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._rest = bytearray()  # an unfinished line: it grows in place, in however small chunks it comes
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of each event that this chunk completes. Raises LineTooLong."""
        *lines, rest = chunk.split(b"\n")
        found: list[bytes] = []
        for line in lines:
            if self._rest:
                self._rest += line
                line = bytes(self._rest)
                self._rest.clear()
            self._take(line.removesuffix(b"\r"), found)
        self._rest += rest
        if len(self._rest) + self._data_bytes > self._limit_bytes:
            raise LineTooLong(f"an event of more than {self._limit_bytes} bytes")
        return found

    def _take(self, line: bytes, found: list[bytes]) -> None:
        if line.startswith(b"data:"):
            value = line[6:] if line[5:6] == b" " else line[5:]
            self._data.append(value)
            self._data_bytes += len(value) + 1
            if self._data_bytes > self._limit_bytes:
                raise LineTooLong(f"an event of more than {self._limit_bytes} bytes")
        elif not line and self._data:
            found.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
            self._data, self._data_bytes = [], 0
