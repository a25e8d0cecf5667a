"""Sends the same request again and again, on many connections, each waiting for its answer before the next.

Raw sockets and one poll: the least that a client can cost, since it shares the machine with the server.
"""

from __future__ import annotations

import itertools
import json
import re
import select
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.driver import Spec, main
from benchmarks.measure import Usage, quantile, usage

__all__ = ["request_bytes"]

_HOST = "127.0.0.1"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END = b"\r\n\r\n"


def request_bytes(path: str, body: str, accept: str = "application/json", prefer: str = "") -> bytes:
    """A POST as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nhost: {_HOST}\r\ncontent-type: application/json\r\naccept: {accept}\r\n"
    head += f"prefer: {prefer}\r\n" if prefer else ""
    return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()


class Connection:
    """One connection with at most one request under way."""

    __slots__ = ("_got", "_need", "_sent_at", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((_HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._got, self._need, self._sent_at = b"", 0, 0.0

    def send(self, request: bytes) -> None:
        self._sent_at = time.monotonic()
        self.socket.sendall(request)

    def receive(self) -> tuple[bytes, float] | None:
        """The status and the milliseconds it took, once the answer is whole."""
        part = self.socket.recv(65536)
        if not part:
            raise ConnectionError("the server closed the connection")
        self._got += part
        if not self._need:
            head = self._got.find(_END)
            if head < 0:
                return None
            length = _LENGTH.search(self._got, 0, head)
            if length is None:
                raise ConnectionError(f"an answer without a length: {self._got[:head]!r}")
            self._need = head + len(_END) + int(length[1])
        if len(self._got) < self._need:
            return None
        status, self._got, self._need = self._got[9:12], self._got[self._need :], 0
        return status, (time.monotonic() - self._sent_at) * 1000


def load(spec: Spec) -> Mapping[str, Any]:
    """Send `count` requests over `connections` connections; those after a twentieth of them are counted.

    All have the same `body`, or take turns with those in the file `bodies`.
    """
    bodies = json.loads(Path(spec["bodies"]).read_text()) if "bodies" in spec else [spec["body"]]
    requests = itertools.cycle([request_bytes(spec["path"], body, prefer=spec.get("prefer", "")) for body in bodies])
    connections = [Connection(spec["port"]) for _ in range(spec["connections"])]
    warm = max(spec["count"] // 20, len(connections))
    statuses, times, begin = _send(connections, requests, warm + spec["count"], skip=warm)
    used = usage()
    return {
        **_result(statuses, times),
        "wall_s": used.at_s - begin.at_s,
        "cpu_s": used.cpu_s - begin.cpu_s,
        "answers": len(times),
    }


def probe(spec: Spec) -> Mapping[str, Any]:
    """Send `count` requests over one connection, with a pause before each."""
    requests = itertools.repeat(request_bytes(spec["path"], spec["body"]))
    connection = Connection(spec["port"])
    statuses: dict[str, int] = {}
    times = []
    for _ in range(spec["count"]):
        time.sleep(spec["pause_s"])
        one, took, _ = _send([connection], requests, 1)
        statuses |= one
        times += took
    return _result(statuses, times)


def _send(
    connections: list[Connection], requests: Iterator[bytes], count: int, skip: int = 0
) -> tuple[dict[str, int], list[float], Usage]:
    """Keep every connection busy until `count` answers are in: how many had each status, and how long each took.

    The times of the first `skip` are left out; the last figure is of the moment when those were in. (Not two rounds:
    servers close what idles between them.)
    """
    waiting = {connection.socket.fileno(): connection for connection in connections}
    poll = select.epoll()
    for number in waiting:
        poll.register(number, select.EPOLLIN)
    statuses: dict[str, int] = {}
    times: list[float] = []
    begin = usage()
    unsent, left = count, skip
    for connection in connections[:count]:
        connection.send(next(requests))
        unsent -= 1
    while len(times) + skip - left < count:
        for number, _ in poll.poll():
            answer = waiting[number].receive()
            if answer is None:
                continue
            status = answer[0].decode()
            statuses[status] = statuses.get(status, 0) + 1
            if left:
                left -= 1
                begin = begin if left else usage()
            else:
                times.append(answer[1])
            if unsent > 0:
                waiting[number].send(next(requests))
                unsent -= 1
    poll.close()
    return statuses, times, begin


def _result(statuses: Mapping[str, int], times: list[float]) -> dict[str, Any]:
    return {"statuses": statuses, "p50_ms": quantile(times, 0.5), "p99_ms": quantile(times, 0.99)}


if __name__ == "__main__":
    main({"load": load, "probe": probe})
